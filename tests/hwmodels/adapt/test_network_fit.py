"""What the times of whole networks say of kernels, against factors that were put in."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hwmodels.adapt.deviation import Comparison
from hwmodels.adapt.few_shot import fitted_device_file
from hwmodels.adapt.network_fit import (
    TimedNetwork,
    corrected_device_file,
    fit_networks,
    left_out,
)
from hwmodels.devices.device import Correction, Measurement
from hwmodels.devices.load import load_device
from hwmodels.work.kernel import KernelGroup

GROUPS = (
    KernelGroup(kind="gemm", formats="bf16", bound="compute"),
    KernelGroup(kind="gemm", formats="bf16", bound="memory"),
    KernelGroup(kind="attention", formats="bf16", bound="compute"),
    KernelGroup(kind="pointwise", formats="bf16", bound="launch"),
    KernelGroup(kind="rowwise", formats="", bound="launch"),
)
SLOW = 2


def _networks(factors: tuple[float, ...], count: int = 24) -> list[TimedNetwork]:
    """Networks of all groups in other shares, whose true times differ by a factor a group."""
    generator = np.random.default_rng(0)
    mixes = 1e-3 * generator.dirichlet(np.ones(len(GROUPS)), size=count)
    return [
        TimedNetwork(
            runtime="vllm",
            measured_s=float(mix @ np.array(factors)),
            times=dict(zip(GROUPS, map(float, mix), strict=True)),
        )
        for mix in mixes
    ]


def _comparison(networks: list[TimedNetwork]) -> Comparison:
    predicted = np.array([one.predicted_s for one in networks])
    return Comparison(
        measured=np.array([one.measured_s for one in networks]),
        predicted=predicted,
        low=predicted * 0.8,
        high=predicted * 1.2,
        labels={},
    )


def test_exact_times_ask_for_no_correction() -> None:
    fit = fit_networks(_networks((1.0,) * 5))
    assert fit.corrections() == ()
    assert all(one.factor == pytest.approx(1) for one in fit.shifts(_networks((1.0,) * 5)))


@pytest.mark.parametrize("outlier", [1.0, 6.0])
def test_the_slow_kernels_are_found(outlier: float) -> None:
    """Attention takes half as long again, and nothing else does; one network is wrong for once."""
    networks = _networks((1.0, 1.0, 1.5, 1.0, 1.0))
    networks[3] = replace(networks[3], measured_s=outlier * networks[3].measured_s)
    shifts = fit_networks(networks).shifts(networks)
    assert shifts[0].group == GROUPS[SLOW]
    assert shifts[0].factor == pytest.approx(1.5, rel=0.08)
    assert shifts[0].moved > 0.7
    assert all(abs(one.factor - 1) < 0.09 for one in shifts[1:])
    assert sum(one.share_of_time for one in shifts) == pytest.approx(1)


def test_one_network_moves_everything_a_little_and_leaves_doubt() -> None:
    (network,) = _networks((1.2,) * 5, count=1)
    fit = fit_networks([network])
    assert fit.seconds(network) == pytest.approx(network.measured_s, rel=0.03)
    assert all(1 < one.factor < 1.25 for one in fit.shifts([network]))
    assert all(one.doubt > 0.1 for one in fit.shifts([network]))
    assert left_out([network], _comparison([network])) is None


def test_networks_that_are_left_out_are_met_by_what_the_others_say() -> None:
    networks = _networks((1.3, 1.1, 1.5, 0.8, 1.0))
    before = _comparison(networks)
    after = left_out(networks, before)
    assert after is not None
    assert after.errors().mape < 0.2 * before.errors().mape
    np.testing.assert_allclose(after.high / after.low, 1.5)


def test_models_that_err_in_opposite_ways_do_not_help_each_other() -> None:
    """Each is left out whole, so that the other, which is too fast, makes it worse."""
    slow, fast = (_networks((factor,) * 5, count=8) for factor in (1.3, 1 / 1.3))
    networks = [*slow, *fast]
    before = _comparison(networks)
    groups = ["slow"] * 8 + ["fast"] * 8
    apart = left_out(networks, before, groups)
    assert apart is not None
    assert apart.errors().mape > 1.3 * before.errors().mape
    assert left_out(networks, before, ["one"] * 16) is None


def test_corrections_of_a_file_multiply_and_are_dropped_by_operators(tmp_path: Path) -> None:
    first, second, third = (tmp_path / f"{name}.yaml" for name in "abc")
    slow = Correction(runtime="vllm", kind="gemm", factor=1.5)
    first.write_text(corrected_device_file("l4", [slow]))
    assert load_device(first).corrections == (slow,)
    faster = [replace(slow, factor=0.8), replace(slow, kind="attention", factor=2.0)]
    second.write_text(corrected_device_file(first, faster))
    assert [one.factor for one in load_device(second).corrections] == [1.2, 2.0]
    timed = Measurement(
        op="softmax", sizes=(("cols", 512), ("rows", 64)), dtype="bf16", runtime="vllm",
        median_us=3.0,
    )  # fmt: skip
    third.write_text(fitted_device_file(second, [timed]))
    assert load_device(third).corrections == ()
    assert load_device(third).measurements == (timed,)


def test_a_device_file_that_is_written_elsewhere_finds_its_runtime(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    text = Path("hwmodels/devices/l4.yaml").read_text()
    (folder / "l4.yaml").write_text(f"{text}runtime: own.yaml\n")
    (tmp_path / "new.yaml").write_text(corrected_device_file(folder / "l4.yaml", []))
    assert load_device(tmp_path / "new.yaml").runtime == str(folder / "own.yaml")
