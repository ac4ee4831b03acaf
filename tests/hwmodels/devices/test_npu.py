"""NPU files: what contradicts itself is refused, with the field."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from hwmodels.devices.load import load_device
from hwmodels.errors import DeviceError
from tests.hwmodels.devices.changed import Content, changed


def _changed(tmp_path: Path, change: Callable[[Content], object]) -> Path:
    return changed("ethos-u55", tmp_path, change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("npu"), "npu: a device of kind 'npu' needs the section `npu`"),
        (lambda c: c.update(kind="array"), "npu: a device of kind 'array' has no section `npu`"),
        (lambda c: c["npu"].update(arena="l2"), "npu.arena: the memory 'l2' has no port"),
        (lambda c: c["npu"]["ports"][1].update(memory="rom"), "npu.ports: 'rom' is none of the"),
        (lambda c: c["npu"]["ports"].pop(), "memories.0: the memory 'flash' has no port"),
        (lambda c: c["npu"]["weights"].update(elements=["int4"]),
         "npu.weights.elements: the array multiplies weights in int8, which the decoder lacks"),
        (lambda c: c["npu"]["buffers"]["shared"].update(value=2),
         "npu.buffers: not even a micro-block of 2 x 2 x 8 outputs"),
        (lambda c: c["npu"]["buffers"].pop("shared"), "expected either `shared` or both"),
        (lambda c: c["npu"]["blocks"].update(areas=True),
         "blocks.areas: areas are fitted to a buffer of inputs and one of accumulators"),
        (lambda c: c["npu"]["steps"].pop(0), "inputs of 8 bits lack the walk depth"),
        (lambda c: c["npu"]["steps"].append(c["npu"]["steps"][0]),
         "two of the walk depth for inputs of 8 bits"),
        (lambda c: c["npu"]["steps"][0].update(cycles=8),
         "npu.steps: walking by depth over inputs of 8 bits is 128 MACs a cycle"),
        (lambda c: c["npu"]["output"].pop("add"), "npu.output.add: missing"),
        (lambda c: c["npu"]["blocks"].update(source=""), "npu.blocks.source"),
        (lambda c: c["npu"].update(stpes=[]), "npu.stpes: unknown key; did you mean 'steps'"),
    ],
)  # fmt: skip
def test_a_file_that_contradicts_itself_is_refused(
    tmp_path: Path, change: Callable[[Content], object], message: str
) -> None:
    path = _changed(tmp_path, change)
    with pytest.raises(DeviceError) as caught:
        load_device(path)
    assert message in str(caught.value)
    assert "mine.yaml" in str(caught.value)


def test_an_unchanged_copy_is_the_device(tmp_path: Path) -> None:
    assert load_device(_changed(tmp_path, lambda content: content)) == load_device("ethos-u55")


@pytest.mark.parametrize(
    ("name", "runtime"),
    [("ethos-u55", "vela"), ("ethos-u55-128", "vela"), ("ethos-u65-512", "vela"),
     ("ethos-u85-512", "vela-u85"), ("edge-npu", "free")],
)  # fmt: skip
def test_npus_name_their_compiler_and_say_what_they_were_compared_with(
    name: str, runtime: str
) -> None:
    device = load_device(name)
    assert device.kind == "npu"
    assert device.default_runtime == runtime
    if name.startswith("ethos"):
        assert device.note == "validated against Arm Vela 5.2, an estimator, not silicon"
    else:
        assert "example" in device.title.lower()
        assert not device.validated
