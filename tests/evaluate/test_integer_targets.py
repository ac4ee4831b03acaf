"""Schemes on devices without 16-bit floats: an integer network is one from end to end."""

from __future__ import annotations

import pytest

from dse.model import Model, open_model
from dse.predict import IN_INTEGERS, Prediction, Usage, predict


@pytest.fixture(name="model", scope="module")
def model_fixture() -> Model:
    return open_model("zoo:fashion-resnet")


def predicted(model: Model, devices: list[str], scheme: str) -> tuple[Prediction, ...]:
    return predict(model.graph, devices, [scheme], usage=Usage(dims={"batch": 1}))


@pytest.mark.parametrize(
    "device", ["ethos-u55", "ethos-u55-128", "ethos-u65-512", "ethos-u85-512"]
)
@pytest.mark.parametrize("scheme", ["w8a8_int8_static", "int8"])
def test_an_integer_network_is_native_on_an_npu_its_head_too(
    model: Model, device: str, scheme: str
) -> None:
    (found,) = predicted(model, [device], scheme)
    assert found.cost.status == "native"
    assert found.native_share == 1.0
    said = [remark for remark in found.remarks if IN_INTEGERS in remark]
    assert len(said) == (scheme == "w8a8_int8_static")
    assert all(remark.startswith("w8a8_int8_static holds for head") for remark in said)


def test_beside_it_a_device_with_floats_keeps_the_head_in_16_bits(model: Model) -> None:
    npu, gpu = predicted(model, ["ethos-u55", "h100-sxm:free"], "w8a8_int8_static")
    assert (npu.device, gpu.device) == ("ethos-u55", "h100-sxm")
    assert not any(IN_INTEGERS in remark for remark in gpu.remarks)
    head = dict(gpu.cost.parts)["head"].weight_bytes
    assert head == pytest.approx(2 * dict(npu.cost.parts)["head"].weight_bytes, rel=0.05)
