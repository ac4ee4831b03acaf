"""Corrections of a device's file in the price of a network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from hwmodels.devices.device import Correction, Device
from hwmodels.devices.load import load_device
from hwmodels.runtimes.load import load_runtime
from hwmodels.tables.network import CostTable, PhaseWork
from hwmodels.work.kernel import by_group
from hwmodels.work.work import Work


def _table(work: Work, device: Device) -> CostTable:
    phases = (PhaseWork(name="call", share=1.0, work=work),)
    return CostTable.build(phases, {}, device, load_runtime("torch-eager"), detailed=True)


@pytest.fixture(name="work")
def work_fixture(llama: Callable[..., Work]) -> Work:
    return llama(layers=2, tokens=256, width=1024)


def test_the_times_of_groups_add_up_to_the_latency(work: Work) -> None:
    table = _table(work, load_device("h100-sxm"))
    assert sum(by_group(table.times({})).values()) == pytest.approx(table.total({}).latency_s)
    assert {one.kind for one in by_group(table.times({}))} >= {"gemm", "rowwise", "pointwise"}


def test_a_factor_holds_for_the_kernels_that_it_names_and_no_others(work: Work) -> None:
    plain = load_device("h100-sxm")
    slow = Correction(runtime="torch-eager", kind="gemm", formats="bf16", factor=1.5)
    other = Correction(runtime="vllm", factor=9.0)
    before = _table(work, plain)
    after = _table(work, replace(plain, corrections=(slow, other)))
    times = by_group(before.times({}))
    gemm = sum(seconds for group, seconds in times.items() if group.kind == "gemm")
    assert after.total({}).latency_s == pytest.approx(sum(times.values()) + 0.5 * gemm)
    assert after.total({}).high_s > before.total({}).high_s
    assert after.total({}).energy_j > before.total({}).energy_j


def test_factors_multiply_but_never_beyond_the_speed_of_light(work: Work) -> None:
    plain = load_device("h100-sxm")
    every = Correction(runtime="torch-eager", factor=1.1)
    launches = Correction(runtime="torch-eager", bound="launch", factor=2.0)
    before = by_group(_table(work, plain).times({}))
    after = by_group(_table(work, replace(plain, corrections=(every, launches))).times({}))
    for group, seconds in before.items():
        factor = 2.2 if group.bound == "launch" else 1.1
        assert after[group] == pytest.approx(factor * seconds)
    impossible = replace(plain, corrections=(replace(every, factor=1e-6),))
    table = _table(work, impossible)
    macs = sum(region.macs for region in work.regions)
    rate = plain.rate("bf16", "bf16")
    assert rate is not None
    assert table.total({}).latency_s >= 2 * macs / rate.ops_per_s.value
    assert table.total({}).low_s <= table.total({}).latency_s
