"""Calls that memories do not hold say so: their price is that of larger ones."""

from __future__ import annotations

import pytest

from dse.model import open_model
from dse.predict import Usage, predict
from hwmodels.devices.load import load_device
from hwmodels.devices.vary import DeviceFile
from hwmodels.runtimes.load import load_runtime
from hwmodels.runtimes.platform import Platform
from hwmodels.tables.room import lacking_room
from hwmodels.work.cost import CostEstimate

GIGA = 10**9


@pytest.mark.parametrize(
    ("weights", "activations", "said"),
    [(70 * GIGA, 2 * GIGA, False), (70 * GIGA, 20 * GIGA, True), (812 * GIGA, 0, True)],
)
def test_main_memory_holds_weights_caches_and_activations_or_it_is_said(
    weights: int, activations: int, said: bool
) -> None:
    cost = CostEstimate(weight_bytes=weights, kv_bytes=GIGA, peak_bytes=activations)
    found = list(lacking_room(cost, load_device("h100-sxm"), "bf16"))
    assert len(found) == said
    if said:
        assert f"take {(weights + GIGA + activations) / GIGA:.3g} GB" in found[0]
        assert "dram holds" in found[0]


def test_an_arena_too_small_for_the_activations_is_named() -> None:
    graph = open_model("zoo:fashion-resnet").graph

    def said(capacity: str) -> bool:
        device = DeviceFile("edge-npu").varied({"memories.sram.capacity": capacity})
        platform = Platform(device=device, runtime=load_runtime("free"), runtime_origin="free")
        (found,) = predict(graph, [platform], ["int8"], usage=Usage(dims={"batch": 1}))
        return any("moves tensors to dram" in one for one in found.remarks)

    assert said("64 KiB")
    assert not said("1 MiB")


def test_predictions_of_one_device_alone_say_it() -> None:
    graph = open_model("zoo:fashion-resnet").graph
    batch = 200_000_000
    (found,) = predict(graph, ["h100-sxm:free"], ["bf16"], usage=Usage(dims={"batch": batch}))
    assert any("dram holds" in one for one in found.remarks)
    (small,) = predict(graph, ["h100-sxm:free"], ["bf16"], usage=Usage(dims={"batch": 1}))
    assert not any("holds" in one for one in small.remarks)
