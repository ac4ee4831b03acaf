"""Few measurements of a device: which are refused, what they change, which to take next."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hwmodels.adapt.few_shot import (
    fittable_device,
    fitted_device_file,
    samples_of,
    with_measurements,
)
from hwmodels.adapt.gains import fit_errors
from hwmodels.adapt.next_measurements import next_measurements
from hwmodels.adapt.prediction import predict_ops
from hwmodels.devices.load import load_device
from hwmodels.errors import DeviceError, MeasurementError
from hwmodels.estimators.gpu.features import FEATURES
from hwmodels.estimators.gpu.gemm_correction import TYPE_FEATURES, GemmSample, gemm_correction
from hwmodels.estimators.gpu.learned import Doubt
from hwmodels.operators.lower import KINDS
from hwmodels.operators.measured import measurements_of
from hwmodels.operators.optable import OpTable, read_optable

MEASURED = Path(__file__).parents[2] / "data" / "h100_ops.csv.gz"
RUNTIME = "torch-eager"


def _table(folder: Path, frame: pd.DataFrame) -> OpTable:
    path = folder / "ops.csv"
    frame.to_csv(path, index=False)
    return read_optable(path, timed=True)


@pytest.fixture
def gemms(tmp_path: Path) -> OpTable:
    """The bf16 GEMMs of a measured H100."""
    frame = pd.read_csv(MEASURED)
    return _table(tmp_path, frame[(frame["op"] == "gemm") & (frame["dtype"] == "bf16")])


def _errors(table: OpTable, device: object) -> float:
    predicted = predict_ops(table, load_device(str(device)), RUNTIME)
    ratio = predicted["predicted_us"] / predicted["median_us"]
    return float(np.abs(np.log(ratio)).mean())


def test_a_few_measurements_bring_a_foreign_device_close(tmp_path: Path, gemms: OpTable) -> None:
    """An H100 taken for a B200: 30 GEMMs cut the error by more than half."""
    device = load_device("b200-sxm")
    rows = samples_of(gemms, device, runtime=RUNTIME, samples=30)
    adapted = tmp_path / "adapted.yaml"
    text = fitted_device_file("b200-sxm", measurements_of(gemms, rows, RUNTIME))
    adapted.write_text(text, encoding="utf-8")
    assert len(load_device(adapted).measurements) == 30
    assert _errors(gemms, adapted) < 0.5 * _errors(gemms, "b200-sxm")


def test_a_second_fit_keeps_what_the_first_one_knew(tmp_path: Path, gemms: OpTable) -> None:
    first, second = tmp_path / "first.yaml", tmp_path / "second.yaml"
    first.write_text(fitted_device_file("a30", measurements_of(gemms, range(4), RUNTIME)))
    second.write_text(fitted_device_file(first, measurements_of(gemms, range(2, 6), RUNTIME)))
    assert len(load_device(second).measurements) == 6


def test_errors_are_of_rows_that_were_not_fitted(gemms: OpTable) -> None:
    device = load_device("b200-sxm")
    rows = samples_of(gemms, device, runtime=RUNTIME, samples=12)
    taken = measurements_of(gemms, rows, RUNTIME)
    errors = fit_errors(gemms, rows, taken, device, runtime=RUNTIME)
    assert errors.unused == len(gemms.shapes) - 12
    assert errors.unused_before is not None
    assert errors.unused_after is not None
    assert errors.left_out is not None
    assert errors.unused_after < 0.6 * errors.unused_before
    assert errors.left_out < 0.6 * errors.before


def test_one_sample_cannot_be_left_out(gemms: OpTable) -> None:
    device = load_device("b200-sxm")
    rows = np.array([3])
    taken = measurements_of(gemms, rows, RUNTIME)
    assert fit_errors(gemms, rows, taken, device, runtime=RUNTIME).left_out is None


@pytest.mark.parametrize(
    ("factor", "message"),
    [(1e-3, "physical limit"), (1e3, "check the unit"), (1e6, "check the unit")],
)
def test_units_off_by_a_thousand_are_refused(tmp_path: Path, factor: float, message: str) -> None:
    frame = pd.read_csv(MEASURED)
    table = _table(tmp_path, frame.assign(median_us=frame["median_us"] * factor))
    with pytest.raises(MeasurementError, match=message):
        samples_of(table, load_device("h100-sxm"), runtime=RUNTIME, samples=3)


def test_small_operators_in_milliseconds_are_refused_too(tmp_path: Path) -> None:
    """They move so little that no physical limit says it; the launch does."""
    frame = pd.read_csv(MEASURED)
    small = frame[(frame["op"] == "add") & (frame["median_us"] < 2)]
    table = _table(tmp_path, small.assign(median_us=small["median_us"] / 1000))
    with pytest.raises(MeasurementError, match="check the unit"):
        samples_of(table, load_device("h100-sxm"), runtime=RUNTIME, samples=None)


def test_samples_of_a_device_that_is_too_slow_are_refused() -> None:
    """Times of an H100 are faster than a T4 can be."""
    table = read_optable(MEASURED, timed=True)
    with pytest.raises(MeasurementError, match="physical limit of t4"):
        samples_of(table, load_device("t4"), runtime=RUNTIME, samples=3)


def test_an_npu_learns_nothing_from_measurements() -> None:
    with pytest.raises(DeviceError, match=r"adapts GPUs and processors; ethos-u55 is .* 'npu'"):
        fittable_device("ethos-u55")


def test_suggestions_are_of_many_kinds_and_never_twice_the_same() -> None:
    table = read_optable(MEASURED, timed=True)
    rows = np.arange(len(table.shapes))
    chosen = next_measurements(table, rows, load_device("l4"), runtime=RUNTIME, count=30)
    assert len(set(chosen.tolist())) == 30
    kinds = {KINDS.get(table.ops[row], table.ops[row]) for row in chosen}
    assert {"gemm", "elementwise", "conv2d"} <= kinds
    assert kinds & {"softmax", "layernorm", "rmsnorm"}


def test_suggestions_narrow_the_intervals_more_than_chance(tmp_path: Path, gemms: OpTable) -> None:
    device = load_device("rtx-5090")
    truth = predict_ops(gemms, device, RUNTIME)["predicted_us"]
    gemms = _table(tmp_path, gemms.frame.assign(median_us=1.1 * truth))
    every = np.arange(len(gemms.shapes))
    suggested = next_measurements(gemms, every, device, runtime=RUNTIME, count=4)
    widths = []
    draws = [np.random.default_rng(seed).permutation(every)[:4] for seed in range(5)]
    for rows in (suggested, *draws):
        knowing = with_measurements(device, measurements_of(gemms, rows, RUNTIME))
        frame = predict_ops(gemms, knowing, RUNTIME)
        widths.append(float(np.log(frame["high_us"] / frame["low_us"]).mean()))
    assert widths[0] < min(widths[1:])


def test_a_type_that_runs_another_kernel_does_not_drag_the_others_along(gemms: OpTable) -> None:
    """fp16 rows that took a hundred times as long, as in an emulation, leave bf16 as it is."""
    device = load_device("h100-sxm")
    rows = np.arange(0, 40, 4)
    honest = measurements_of(gemms, rows, RUNTIME)
    slow = tuple(
        replace(one, dtype="fp32", median_us=1000 * one.median_us)
        for one in measurements_of(gemms, rows + 1, RUNTIME)
    )
    errors = [
        float((frame["predicted_us"] / frame["median_us"] - 1).abs().median())
        for frame in (
            predict_ops(gemms, with_measurements(device, taken), RUNTIME)
            for taken in (honest, (*honest, *slow))
        )
    ]
    assert errors[1] < errors[0] + 0.03


def test_suggestions_differ_from_what_the_device_was_measured_on(gemms: OpTable) -> None:
    device = load_device("l4")
    rows = np.arange(len(gemms.shapes))
    first = next_measurements(gemms, rows, device, runtime=RUNTIME, count=5)
    knowing = with_measurements(device, measurements_of(gemms, first, RUNTIME))
    again = next_measurements(gemms, rows, knowing, runtime=RUNTIME, count=5)
    assert not set(first.tolist()) & set(again.tolist())


def test_measurements_without_a_gemm_leave_gemms_as_they_were() -> None:
    table = read_optable(MEASURED, timed=True)
    device = load_device("h100-pcie")
    rows = np.flatnonzero([op == "softmax" for op in table.ops])
    knowing = with_measurements(device, measurements_of(table, rows, RUNTIME))
    before, after = (predict_ops(table, one, RUNTIME)["predicted_us"] for one in (device, knowing))
    gemms = np.array([op == "gemm" for op in table.ops])
    assert (before[gemms] == after[gemms]).all()
    assert (before[rows] != after[rows]).all()


def _doubt(rows: int, device_sd: float = 0.2) -> Doubt:
    """An interval of a factor 1.5, most of it the device."""
    whole = np.full(rows, 0.4)
    sd = np.full(rows, device_sd)
    return Doubt(low=-whole, high=whole, device_sd=sd, noise_sd=np.full(rows, 0.14))


@pytest.mark.parametrize("noise", [0.03, 0.3])
def test_intervals_of_a_few_samples_hold_what_samples_left_out_say(noise: float) -> None:
    """Noise that the process does not expect widens them, less noise narrows them."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(400, len(FEATURES)))
    features[:, [FEATURES.index(name) for name in TYPE_FEATURES]] = 1.0
    ratios = 0.2 + noise * rng.normal(size=400)
    samples = tuple(
        GemmSample(
            runtime="vllm", features=tuple(row), log_ratio=float(ratio), low=-0.4, high=0.4,
            device_sd=0.2, noise_sd=0.14,
        )
        for row, ratio in zip(features[:150], ratios[:150], strict=True)
    )  # fmt: skip
    found = gemm_correction(samples, features[150:], "vllm", _doubt(250))
    inside = np.abs(ratios[150:] - found.mean) <= 0.4 * found.width
    assert inside.mean() == pytest.approx(0.9, abs=0.05)


def test_one_sample_hardly_changes_what_intervals_are_worth() -> None:
    features = np.ones((1, len(FEATURES)))
    lucky = GemmSample(
        runtime="vllm", features=tuple(features[0]), log_ratio=0.0, low=-0.4, high=0.4,
        device_sd=0.2, noise_sd=0.14,
    )  # fmt: skip
    far = features + 1.5
    assert 0.8 < gemm_correction((lucky,), far, "vllm", _doubt(1)).width[0] <= 1.0


def test_a_slow_sample_says_nothing_of_shapes_far_from_it(gemms: OpTable) -> None:
    """Torch's int4 kernel takes 25 times the model's time at M = 2048, not at M = 1."""
    device = load_device("h100-sxm")
    sizes = np.array([shape["M"] for shape in gemms.shapes])
    (slow,) = measurements_of(gemms, np.flatnonzero(sizes == sizes.max())[:1], RUNTIME)
    taken = (replace(slow, median_us=25 * slow.median_us),)
    before = predict_ops(gemms, device, RUNTIME)["predicted_us"]
    after = predict_ops(gemms, with_measurements(device, taken), RUNTIME)["predicted_us"]
    assert (after / before)[sizes == sizes.max()].max() > 5
    assert (after / before)[sizes == 1].max() < 2


def _measured(rng: np.random.Generator, ratios: np.ndarray) -> tuple[GemmSample, ...]:
    """Samples of one type on a device that is sure to 5 %, of shapes that spread by 14 %."""
    features = rng.normal(size=(len(ratios), len(FEATURES)))
    features[:, [FEATURES.index(name) for name in TYPE_FEATURES]] = 1.0
    return tuple(
        GemmSample(
            runtime="vllm", features=tuple(row), log_ratio=float(ratio), low=-0.25, high=0.25,
            device_sd=0.05, noise_sd=0.14,
        )
        for row, ratio in zip(features, ratios, strict=True)
    )  # fmt: skip


def test_samples_that_bear_nothing_out_change_nothing() -> None:
    """Noise as wide as expected, on a device that is known: a hundred samples move it by 2 %."""
    rng = np.random.default_rng(1)
    samples = _measured(rng, 0.14 * rng.normal(size=100))
    features = rng.normal(size=(200, len(FEATURES)))
    features[:, [FEATURES.index(name) for name in TYPE_FEATURES]] = 1.0
    found = gemm_correction(samples, features, "vllm", _doubt(200, 0.05))
    assert np.sqrt(np.mean(found.mean**2)) < 0.02


def test_a_board_that_is_slower_than_its_kin_says_is_believed() -> None:
    """All times 40 % up, eight standard deviations: thirty samples tell most of it."""
    rng = np.random.default_rng(2)
    samples = _measured(rng, 0.34 + 0.03 * rng.normal(size=30))
    features = np.array([samples[0].features]) + 0.1
    features[:, [FEATURES.index(name) for name in TYPE_FEATURES]] = 1.0
    found = gemm_correction(samples, features, "vllm", _doubt(1, 0.05))
    assert found.mean[0] > 0.7 * 0.34
