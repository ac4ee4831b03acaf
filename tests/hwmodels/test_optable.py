from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from hwmodels.device_file import load_device
from hwmodels.errors import MeasurementError
from hwmodels.op_prediction import predict_ops
from hwmodels.optable import read_optable, timed_rows

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
