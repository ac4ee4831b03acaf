"""Dynamic quantisation where every operation is a kernel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hwmodels.adapt.prediction import predict_ops
from hwmodels.devices.load import load_device
from hwmodels.formats import catalog
from hwmodels.operators.lower import operator_kernels
from hwmodels.operators.optable import read_optable
from hwmodels.plans.eager_kernels import eager_quantisation, eager_rescaling

MEASURED = Path(__file__).parents[2] / "data" / "h100_ops.csv.gz"
PAIR = ("e4m3", "e4m3")


def test_bytes_are_those_of_the_operations_one_by_one() -> None:
    """|x| 2+2, maximum 2, times scale 2+2, clamp 2+2, cast 2+1: 17 bytes an element."""
    kernels = eager_quantisation(64, 128, stored=catalog.format("e4m3"), per_row=False, cold=True)
    assert sum(one.bytes for one in kernels) == 17 * 64 * 128
    assert [one.inputs_are_cold for one in kernels] == [True] + [False] * 6


def test_rows_are_divided_in_float32() -> None:
    """|x| 4, maximum 2, division 2+4, clamp 8, cast 5; rounding adds 8, rescaling 8+8+6."""
    kernels = eager_quantisation(8, 16, stored=catalog.format("e4m3"), per_row=True, cold=True)
    assert sum(one.bytes for one in kernels) == 25 * 8 * 16
    rounded = eager_quantisation(8, 16, stored=catalog.format("int8"), per_row=True, cold=True)
    assert sum(one.bytes for one in rounded) == 33 * 8 * 16
    assert sum(one.bytes for one in eager_rescaling(8, 16)) == 22 * 8 * 16


@pytest.mark.parametrize(("runtime", "more"), [("torch-eager", 8), ("torch-compile", 1)])
def test_a_compiler_has_one_kernel_for_it(runtime: str, more: int) -> None:
    sizes = {"M": 16, "K": 128, "N": 64}
    kernels = operator_kernels("gemm", sizes, "fp8_dynamic", runtime, PAIR)
    assert len(kernels) == more + 1
    assert [one.kind for one in kernels].count("gemm") == 1


def test_measured_quantisation_is_within_a_factor_of_two() -> None:
    """On an H100: one kernel for all of it would be three times too fast."""
    table = read_optable(MEASURED, timed=True)
    rows = table.take(np.flatnonzero([op == "quant_fp8" for op in table.ops]))
    frame = predict_ops(rows, load_device("h100-sxm"), "torch-eager")
    ratio = frame["predicted_us"] / frame["median_us"]
    assert ratio.between(0.5, 2).all()


def test_a_slow_weight_only_kernel_is_priced_as_its_runtime_says() -> None:
    """torch's int4 kernel reaches 6 % of the peak on an H100; vLLM's has no such mark."""
    table = read_optable(MEASURED, timed=True)
    large = [
        op == "gemm" and dtype == "w4a16" and sizes["M"] > 1000
        for op, dtype, sizes in zip(table.ops, table.dtypes, table.shapes, strict=True)
    ]
    rows = table.take(np.flatnonzero(large))
    device = load_device("h100-sxm")
    eager, served = (
        predict_ops(rows, device, name)["predicted_us"] for name in ("torch-eager", "vllm")
    )
    assert (eager > 5 * served).all()
