"""The analytic skeleton against our own H100 measurements (`tests/data/h100_ops.csv.gz`)."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hwmodels.device_file import load_device
from hwmodels.estimators.gpu import GpuEstimator
from hwmodels.kernel import Kernel
from hwmodels.runtime_file import load_runtime

MEASURED = Path(__file__).parents[2] / "data" / "h100_ops.csv.gz"
ELEMENTS = {
    "bf16": ("bf16", 2, 2), "fp16": ("fp16", 2, 2), "tf32": ("tf32", 4, 4),
    "fp8": ("e4m3", 1, 2), "fp32": ("fp32", 4, 4),
}  # fmt: skip


@pytest.fixture(name="measured", scope="module")
def measured_fixture() -> pd.DataFrame:
    return pd.read_csv(MEASURED)


def _kernel(shape: dict[str, int], dtype: str) -> Kernel:
    element, read, written = ELEMENTS[dtype]
    m, n, k = shape["M"], shape["N"], shape["K"]
    return Kernel(
        kind="gemm",
        sizes={"B": 1, "M": m, "N": n, "K": k, "taps": 1},
        weight_element=element,
        input_element=element,
        input_bytes=m * k * read,
        weight_bytes=n * k * read,
        write_bytes=m * n * written,
        inputs_are_cold=True,
    )


@pytest.mark.parametrize(
    ("dtype", "median", "mean"),
    [("bf16", 0.10, 0.15), ("fp16", 0.11, 0.15), ("tf32", 0.10, 0.15), ("fp8", 0.11, 0.15),
     ("fp32", 0.35, 0.40)],
)  # fmt: skip
def test_skeleton_tells_gemm_latencies_of_an_h100(
    measured: pd.DataFrame, dtype: str, median: float, mean: float
) -> None:
    """|log(predicted / measured)|: 7-9 % in the median for the tensor cores; fp32 runs on the
    vector unit, which the tiles were not made for.
    """
    rows = measured[(measured["op"] == "gemm") & (measured["dtype"] == dtype)]
    kernels = [_kernel(json.loads(shape), dtype) for shape in rows["shape"]]
    costs = GpuEstimator().estimate(kernels, load_device("h100-sxm"), load_runtime("torch-eager"))
    predicted = np.array([cost.latency_s for cost in costs]) * 1e6
    error = np.abs(np.log(predicted / rows["median_us"].to_numpy()))
    assert np.median(error) < median
    assert np.mean(error) < mean
    assert len(error) > 60
