from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from hwmodels.adapt.prediction import predict_ops
from hwmodels.devices.load import load_device
from hwmodels.errors import MeasurementError
from hwmodels.operators.optable import read_optable, timed_rows

MEASURED = Path(__file__).parents[2] / "data" / "h100_ops.csv.gz"
ATTENTION = '{"B": 1, "H": 8, "HK": %d, "S": 4, "L": 4, "D": 64, "causal": %s}'
CONV = '{"N": 1, "C": 8, "H": 9, "W": 9, "O": 6, "k": 3, "stride": 1, "groups": %d}'
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
        (("attention", ATTENTION % (3, 1), "bf16", 1.0), "HK: expected a divisor of H, 8, got 3"),
        (("attention", ATTENTION % (2, '"yes"'), "bf16", 1.0), "causal: expected true or false"),
        (("conv2d", CONV % 3, "bf16", 1.0), "groups: expected a divisor of C, 8, got 3"),
        (("conv2d", CONV % 4, "bf16", 1.0), "groups: expected a divisor of O, 6, got 4"),
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


@pytest.mark.parametrize(
    ("shape", "measured_us"),
    [
        ('{"M": 1, "K": 4096, "N": 6144}', 182.3),
        ('{"M": 512, "K": 4096, "N": 6144}', 28113.5),
        ('{"M": 13908, "K": 13312, "N": 448}', 181644.0),
    ],
)
def test_torch_multiplies_int8_weights_without_the_matrix_unit(
    tmp_path: Path, shape: str, measured_us: float
) -> None:
    """`torch._weight_int8pack_mm` of an H100 (`studies/profile_h100/results/ops.csv.gz`)."""
    path = _written(tmp_path, ("gemm", shape, "w8a16"), columns="op shape dtype")
    table = read_optable(path, timed=False)
    (slow,) = predict_ops(table, load_device("h100-sxm"), "torch-eager")["predicted_us"]
    assert measured_us / 4 < slow < 1.2 * measured_us
    (served,) = predict_ops(table, load_device("h100-sxm"), "vllm")["predicted_us"]
    assert served < slow


ATTENTION = '{"B": 8, "H": 32, "HK": 8, "S": 1, "L": 32768, "D": 128}'


@pytest.mark.parametrize("column", ["kv_dtype", "kv_cache_dtype"])
def test_a_narrow_cache_has_a_column(tmp_path: Path, column: str) -> None:
    rows = [("attention", ATTENTION, "bfloat16", cache) for cache in ("bfloat16", "fp8", None)]
    rows.append(("gemm", GEMM, "fp8", "bfloat16"))
    path = _written(tmp_path, *rows, columns=f"op shape dtype {column}")
    table = read_optable(path, timed=False)
    assert table.dtypes == ("bf16", "bf16_kv_fp8", "bf16", "fp8")
    wide, narrow, unsaid, _ = predict_ops(table, load_device("h100-sxm"), "vllm")["predicted_us"]
    assert wide == unsaid
    assert narrow < 0.75 * wide


def test_a_window_of_attention_bounds_its_keys(tmp_path: Path) -> None:
    windowed = ATTENTION.replace("}", ', "window": 128}')
    rows = [("attention", shape, "bf16") for shape in (ATTENTION, windowed)]
    path = _written(tmp_path, *rows, columns="op shape dtype")
    whole, last = predict_ops(read_optable(path, timed=False), load_device("h100-sxm"), "vllm")[
        "predicted_us"
    ]
    assert last < whole / 5


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (("attention", ATTENTION, "bf16", "fp9"), "unknown cache 'fp9' (column kv_dtype)"),
        (("attention", ATTENTION, "fp32", "fp8"), "with queries in bf16 or fp16, got fp32"),
        (("gemm", GEMM, "bf16_kv_fp8", None), "bf16_kv_fp8 is of attention, got gemm"),
        (("attention", ATTENTION.replace("}", ', "window": 0}'), "bf16", None),
         "shape.window: expected a positive integer, got 0"),
    ],
)  # fmt: skip
def test_a_cache_that_no_kernel_has_is_refused(
    tmp_path: Path, row: tuple[object, ...], message: str
) -> None:
    path = _written(tmp_path, row, columns="op shape dtype kv_dtype")
    with pytest.raises(MeasurementError) as raised:
        read_optable(path, timed=False)
    assert message in str(raised.value)


def test_rows_with_more_values_than_names_are_refused(tmp_path: Path) -> None:
    """A shape without its quotes; pandas would take the first values for labels."""
    path = tmp_path / "ops.csv"
    path.write_text('op,shape,dtype,median_us\nadd,{"rows": 8, "cols": 64},bf16,1.5\n')
    with pytest.raises(MeasurementError, match=r"rows have 5 values under 4 names; .* in quotes"):
        read_optable(path, timed=True)
