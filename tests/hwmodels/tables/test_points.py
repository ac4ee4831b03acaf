"""Networks priced on many devices at once cost what they cost on each alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from hwmodels.devices.device import Device
from hwmodels.devices.load import load_device
from hwmodels.errors import WorkError
from hwmodels.estimators.array.records import QUICK
from hwmodels.formats import catalog
from hwmodels.formats.quantizer import Quantizer
from hwmodels.runtimes.load import load_runtime
from hwmodels.tables.network import CostTable, PhaseWork
from hwmodels.tables.points import price_points
from hwmodels.work.work import OperandName, Work

RUNTIME = load_runtime("free")
Choice = dict[OperandName, Quantizer]
INT8: Choice = {"weight": catalog.quantizer("int8"), "input": catalog.quantizer("int8:static")}


@pytest.fixture(name="phases")
def phases_fixture(llama: Callable[..., Work]) -> tuple[PhaseWork, ...]:
    return (
        PhaseWork(name="prefill", share=1.0, work=llama(tokens=32, width=256)),
        PhaseWork(name="decode", share=4.0, work=llama(tokens=1, context=64, width=256)),
    )


def varied(name: str, memory: str, *, capacity: float, bandwidth: float) -> Device:
    """A device whose memory holds more, and whose main memory is faster, by factors."""
    device = load_device(name)
    memories = []
    for place, one in enumerate(device.memories):
        held, rate = one.capacity_bytes, one.bandwidth_bytes_per_s
        if one.name == memory:
            held = replace(held, value=held.value * capacity)
        if place == 0:
            rate = replace(rate, value=rate.value * bandwidth)
        memories.append(replace(one, capacity_bytes=held, bandwidth_bytes_per_s=rate))
    return replace(device, memories=tuple(memories))


def devices(generator: np.random.Generator) -> list[Device]:
    found = [
        varied(
            name, memory, capacity=2.0 ** generator.uniform(-3, 3),
            bandwidth=2.0 ** generator.uniform(-2, 2),
        )
        for name, memory in (("gemmini", "scratchpad"), ("tpu-v1", "unified_buffer"))
        for _ in range(4)
    ]  # fmt: skip
    return [*found, load_device("ethos-u55"), load_device("h100-sxm")]


def choices_of(phases: tuple[PhaseWork, ...]) -> dict[str, tuple[Choice, ...]]:
    regions = phases[0].work.regions
    products = ("gemm", "conv2d")
    return {region.name: (INT8 if region.kind in products else {},) for region in regions}


def test_a_point_costs_what_its_device_costs_alone(phases: tuple[PhaseWork, ...]) -> None:
    choices = choices_of(phases)
    points = devices(np.random.default_rng(7))
    found = price_points(phases, choices, points, RUNTIME)
    assert not found.refused
    for index, device in enumerate(points):
        table = CostTable.build(phases, choices, device, RUNTIME)
        alone = table.total({})
        assert found.latency_s[index] == pytest.approx(alone.latency_s, rel=1e-9)
        assert found.energy_j[index] == pytest.approx(alone.energy_j, rel=1e-9)
    arrays = found.gap[:8]
    assert (arrays >= 0).all()
    assert np.isnan(found.gap[-1])  # nothing is searched on a GPU
    assert len(set(found.latency_s.tolist())) == len(points)


def test_a_device_that_is_too_small_is_refused_alone(phases: tuple[PhaseWork, ...]) -> None:
    small = varied("gemmini", "scratchpad", capacity=1e-5, bandwidth=1.0)
    points = [small, load_device("gemmini"), load_device("gemmini")]
    choices = choices_of(phases)
    found = price_points(phases, choices, points, RUNTIME)
    assert list(found.refused) == [0]
    assert "scratchpad" in found.refused[0]
    assert np.isinf(found.latency_s[0])
    assert np.isfinite(found.latency_s[1:]).all()
    with pytest.raises(WorkError, match="none of 1 devices runs the network"):
        price_points(phases, choices, points[:1], RUNTIME)


def test_areas_are_those_of_the_devices(phases: tuple[PhaseWork, ...]) -> None:
    points = [load_device("gemmini"), load_device("h100-sxm")]
    found = price_points(phases, {}, points[1:], RUNTIME)
    assert points[1].area_mm2 is None or found.area_mm2[0] == points[1].area_mm2.value


def test_a_quick_search_is_one_of_its_own(
    phases: tuple[PhaseWork, ...],
) -> None:
    """Its gap is of other grids, and its prices are near."""
    points, choices = devices(np.random.default_rng(3))[:8], choices_of(phases)
    usual = price_points(phases, choices, points, RUNTIME)
    quick = price_points(phases, choices, points, RUNTIME, effort=QUICK)
    assert (quick.gap != usual.gap).any()
    assert quick.latency_s == pytest.approx(usual.latency_s, rel=0.5)
    assert not quick.refused
