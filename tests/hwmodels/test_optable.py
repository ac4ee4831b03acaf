from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hwmodels.device_file import load_device
from hwmodels.errors import MeasurementError
from hwmodels.few_shot import fitted_device_file, light_us
from hwmodels.optable import predict_ops, read_optable, refuse_impossible, timed_rows

MEASURED = Path(__file__).parents[1] / "data" / "h100_ops.csv.gz"
GEMM = '{"M": 64, "K": 4096, "N": 4096}'


def _written(
    folder: Path, *rows: tuple[object, ...], columns: str = "op shape dtype median_us"
) -> Path:
    path = folder / "ops.csv"
    pd.DataFrame(list(rows), columns=columns.split()).to_csv(path, index=False)
    return path


def test_predictions_keep_columns_and_order(tmp_path: Path) -> None:
    path = _written(
        tmp_path,
        ("add", '{"rows": 8, "cols": 64}', "bf16", 1.5, "mine"),
        ("gemm", GEMM, "fp8_dynamic", 20.0, "yours"),
        columns="op shape dtype median_us note",
    )
    predicted = predict_ops(read_optable(path, timed=False), load_device("l4"), "vllm")
    assert list(predicted["note"]) == ["mine", "yours"]
    assert list(predicted.columns) == [
        "op", "shape", "dtype", "median_us", "note", "predicted_us", "low_us", "high_us",
        "energy_mj",
    ]  # fmt: skip
    assert (predicted["low_us"] <= predicted["predicted_us"]).all()
    assert (predicted["predicted_us"] <= predicted["high_us"]).all()


def test_a_runtime_column_wins_over_the_flag(tmp_path: Path) -> None:
    rows = [
        ("gemm", GEMM, "fp8_dynamic", 1.0, runtime) for runtime in ("vllm", "tensorrt-llm", None)
    ]
    path = _written(tmp_path, *rows, columns="op shape dtype median_us runtime")
    predicted = predict_ops(read_optable(path, timed=False), load_device("h100-sxm"), "vllm")
    first, second, third = predicted["predicted_us"]
    assert first == third
    assert first != second


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (("gem", GEMM, "bf16", 1.0), "op: unknown operator 'gem'; did you mean 'gemm'"),
        (("gemm", GEMM, "bf61", 1.0), "dtype: unknown number type 'bf61'; did you mean 'bf16'"),
        (("gemm", "{M: 1}", "bf16", 1.0), "shape: not a JSON object"),
        (("gemm", '{"M": 1, "K": 2}', "bf16", 1.0), "gemm needs M, K, N; missing N"),
        (("gemm", '{"M": 1, "K": 2, "N": -3}', "bf16", 1.0), "shape.N: expected a positive"),
        (("gemm", GEMM, "bf16", -1.0), "expected a positive number of microseconds"),
        (("gemm", GEMM, "bf16", "fast"), "expected a positive number of microseconds"),
        (("gemm", GEMM, "bf16", float("inf")), "expected a positive number of microseconds"),
    ],
)  # fmt: skip
def test_a_wrong_row_names_its_line(tmp_path: Path, row: tuple[object, ...], message: str) -> None:
    path = _written(tmp_path, ("add", '{"rows": 1, "cols": 2}', "bf16", 1.0), row)
    with pytest.raises(MeasurementError, match=r"ops\.csv: line 3: ") as raised:
        read_optable(path, timed=True)
    assert message in str(raised.value)


def test_duplicates_are_refused_and_empty_times_skipped(tmp_path: Path) -> None:
    once, untimed = ("gemm", GEMM, "bf16", 5.0), ("gemm", GEMM, "fp16", None)
    path = _written(tmp_path, once, untimed, ("gemm", GEMM, "bf16", 6.0))
    with pytest.raises(MeasurementError, match="line 4: the same operator"):
        read_optable(path, timed=True)
    path = _written(tmp_path, once, untimed)
    assert list(timed_rows(read_optable(path, timed=True))) == [0]


def test_missing_columns_are_named(tmp_path: Path) -> None:
    path = _written(tmp_path, ("gemm", GEMM, 3.0), columns="op shape median_ms")
    with pytest.raises(MeasurementError, match="columns missing: dtype, median_us"):
        read_optable(path, timed=True)


def test_milliseconds_taken_for_microseconds_are_refused(tmp_path: Path) -> None:
    device = load_device("h100-sxm")
    table = read_optable(MEASURED, timed=True)
    refuse_impossible(table, device, light_us(table, device, "torch-eager"))
    wrong = table.frame.assign(median_us=table.frame["median_us"] / 1000)
    path = tmp_path / "ms.csv"
    wrong.to_csv(path, index=False)
    scaled = read_optable(path, timed=True)
    with pytest.raises(MeasurementError, match="check the unit of the column"):
        refuse_impossible(scaled, device, light_us(scaled, device, "torch-eager"))


def test_a_few_measurements_bring_a_foreign_device_close(tmp_path: Path) -> None:
    """An H100 taken for a B200: 30 GEMMs cut the error by more than half."""
    frame = pd.read_csv(MEASURED)
    frame = frame[(frame["op"] == "gemm") & (frame["dtype"] == "bf16")]
    rows = tmp_path / "bf16.csv"
    frame.to_csv(rows, index=False)
    table = read_optable(rows, timed=True)
    adapted = tmp_path / "adapted.yaml"
    text = fitted_device_file("b200-sxm", table, runtime="torch-eager", samples=30)
    adapted.write_text(text, encoding="utf-8")
    errors = []
    for device in ("b200-sxm", adapted):
        predicted = predict_ops(table, load_device(device), "torch-eager")["predicted_us"]
        errors.append(np.abs(np.log(predicted.to_numpy() / frame["median_us"].to_numpy())).mean())
    assert errors[1] < 0.5 * errors[0]


def test_samples_of_a_device_that_is_too_slow_are_refused() -> None:
    """Times of an H100 are faster than a T4 can be."""
    table = read_optable(MEASURED, timed=True)
    with pytest.raises(MeasurementError, match="physical limit of t4"):
        fitted_device_file("t4", table, runtime="torch-eager", samples=3)
