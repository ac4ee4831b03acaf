"""`dse predict --sensitivity`, against laws whose exponents are known."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest

from hwmodels.devices.device import Device, DeviceKind
from hwmodels.estimators.registry import ESTIMATORS
from hwmodels.runtimes.runtime import Runtime
from hwmodels.work.kernel import Kernel, KernelCost
from tests.cli.conftest import Dse
from tests.cli.test_errors import assert_refused

LINE = ("predict", "zoo:byte-gpt", "--device", "l4:free", "--dim", "batch=8", "--dim",
        "sequence=64", "--sensitivity")  # fmt: skip
BANDWIDTH, IDLE = "memories.dram.bandwidth_bytes_per_s", "power.idle_w"


class _Moving:
    """Bytes over the square root of the bandwidth of main memory, at idle power."""

    kinds: frozenset[DeviceKind] = frozenset({"gpu"})

    def estimate(
        self, kernels: Sequence[Kernel], device: Device, runtime: Runtime
    ) -> tuple[KernelCost, ...]:
        return tuple(self._cost(kernel, device) for kernel in kernels)

    def _cost(self, kernel: Kernel, device: Device) -> KernelCost:
        seconds = (kernel.bytes + 1) / device.main_memory.bandwidth_bytes_per_s.value**0.5
        return KernelCost(
            latency_s=seconds, low_s=seconds, high_s=seconds,
            energy_j=seconds * device.power.idle_w.value, traffic_bytes=1.0, bound="memory",
        )  # fmt: skip


def test_elasticities_are_the_exponents_of_the_law(
    dse: Dse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ESTIMATORS, "gpu", _Moving())
    rows = json.loads(dse(*LINE, "--json").out)
    by_figure = {row["figure"]: row for row in rows}
    assert rows[0]["figure"] == BANDWIDTH
    assert by_figure[BANDWIDTH]["latency"] == pytest.approx(-0.5)
    assert by_figure[BANDWIDTH]["energy"] == pytest.approx(-0.5)
    assert by_figure[IDLE]["latency"] == 0
    assert by_figure[IDLE]["energy"] == pytest.approx(1)
    assert all(row["latency"] == 0 for row in rows[1:])
    ratio = by_figure[BANDWIDTH]["latency_lower_s"] / by_figure[BANDWIDTH]["latency_higher_s"]
    assert ratio == pytest.approx((1.1 / 0.9) ** 0.5)
    assert by_figure[BANDWIDTH]["value"] == 300e9
    assert "aiconfigurator" in by_figure[BANDWIDTH]["source"]


def test_people_read_figures_with_their_marks_and_what_has_no_effect(dse: Dse) -> None:
    outcome = dse(*LINE)
    lines = outcome.out.splitlines()
    assert lines[0].startswith("bf16 on l4 under free: ")
    assert "The latency follows " in outcome.out
    assert "figures that are assumed or scaled from another device" in outcome.out
    assert "no effect here: " in outcome.out
    assert "power.limit_w" in outcome.out


def test_the_figures_of_a_shipped_device_move_the_latency_as_they_should(dse: Dse) -> None:
    """More bandwidth and faster units never make it slower, a slower launch never faster."""
    rows = {row["figure"]: row for row in json.loads(dse(*LINE, "--json").out)}
    assert rows[BANDWIDTH]["latency"] <= 0
    assert rows["launch_s"]["latency"] > 0.1
    assert rows["price_usd_per_h"]["latency"] == rows["price_usd_per_h"]["energy"] == 0


@pytest.mark.parametrize(
    "more", [("--device", "t4"), ("--format", "bf16", "--format", "int8"), ("--check", "t.csv")]
)
def test_one_price_at_a_time(dse: Dse, more: tuple[str, ...]) -> None:
    assert_refused(dse(*LINE, *more), "--sensitivity")
