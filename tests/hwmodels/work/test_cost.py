from __future__ import annotations

import pytest

from hwmodels.work.cost import CostEstimate

GEMM = CostEstimate(
    latency_s=3e-6, low_s=2e-6, high_s=5e-6, energy_j=2e-3, traffic_bytes=100.0,
    weight_bytes=64, peak_bytes=10, bound="memory",
)  # fmt: skip
CAST = CostEstimate(
    latency_s=1e-6, low_s=1e-6, high_s=2e-6, energy_j=1e-4, traffic_bytes=20.0, peak_bytes=12,
    bound="conversion", status="emulated", notes=("no kernel",),
)  # fmt: skip


def test_a_sum_adds_time_energy_bytes_and_takes_the_largest_peak() -> None:
    total = CostEstimate.total([("gemm", GEMM), ("cast", CAST)])
    assert total.latency_s == pytest.approx(4e-6)
    assert (total.low_s, total.high_s) == pytest.approx((3e-6, 7e-6))
    assert total.energy_j == pytest.approx(2.1e-3)
    assert total.traffic_bytes == 120.0
    assert total.weight_bytes == 64
    assert total.peak_bytes == 12
    assert dict(total.parts)["cast"] is CAST


def test_the_bound_is_that_of_the_most_time_and_the_status_the_worst() -> None:
    total = CostEstimate.total([("gemm", GEMM), ("cast", CAST)])
    assert (total.bound, total.status, total.note) == ("memory", "emulated", "no kernel")


def test_phases_are_weighted_by_share_and_share_their_memory() -> None:
    mean = CostEstimate.mean([("prefill", 0.25, GEMM), ("decode", 0.75, CAST)])
    assert mean.latency_s == pytest.approx(0.25 * 3e-6 + 0.75 * 1e-6)
    assert (mean.weight_bytes, mean.peak_bytes) == (64, 12)
    assert dict(mean.parts)["prefill"].latency_s == 3e-6


def test_nothing_costs_nothing() -> None:
    assert CostEstimate.total([]) == CostEstimate()
    assert CostEstimate.mean([]) == CostEstimate()
