"""Kernels one after another."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hwmodels.devices.load import load_device
from hwmodels.runtimes.load import load_runtime
from hwmodels.tables.sequence import in_sequence
from hwmodels.work.kernel import KernelCost

COST = KernelCost(
    latency_s=2e-6, low_s=1e-6, high_s=3e-6, energy_j=1e-3, traffic_bytes=10.0, bound="launch"
)


def test_every_kernel_starts_later_by_the_cycles_of_the_runtime() -> None:
    """990 cycles at 1.98 GHz are half a microsecond, in which the device idles."""
    device = load_device("h100-sxm")
    runtime = replace(load_runtime("torch-eager"), switch_cycles=990)
    for cost in in_sequence([COST, COST], device, runtime):
        assert cost.latency_s == pytest.approx(2.5e-6)
        assert (cost.low_s, cost.high_s) == pytest.approx((1.5e-6, 3.5e-6))
        assert cost.energy_j == pytest.approx(1e-3 + 0.5e-6 * device.power.idle_w.value)
        assert cost.traffic_bytes == COST.traffic_bytes


def test_without_cycles_nothing_changes() -> None:
    assert in_sequence([COST], load_device("h100-sxm"), load_runtime("vllm")) == (COST,)
