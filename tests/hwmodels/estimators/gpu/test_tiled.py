"""Products by kernels of one small tile."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hwmodels.adapt.prediction import predict_ops
from hwmodels.devices.load import load_device
from hwmodels.errors import WorkError
from hwmodels.estimators.gpu.skeleton import GpuFigures
from hwmodels.estimators.registry import estimator_of
from hwmodels.operators.lower import operator_kernels
from hwmodels.operators.optable import read_optable
from hwmodels.runtimes.load import load_runtime
from hwmodels.work.kernel import Kernel

MEASURED = Path(__file__).parents[3] / "data" / "h100_ops.csv.gz"
DEVICE = load_device("h100-sxm")
EAGER = load_runtime("torch-eager")
PLAIN = ("bf16", "bf16")


def product(rows: int) -> Kernel:
    """The kernel of (rows, 8192) times (8192, 28672) in int4."""
    sizes = {"M": rows, "K": 8192, "N": 28672}
    (kernel,) = operator_kernels("gemm", sizes, "w4a16", EAGER, PLAIN)
    return kernel


def seconds(kernel: Kernel) -> float:
    (cost,) = estimator_of(DEVICE).estimate([kernel], DEVICE, EAGER)
    return cost.latency_s


def test_every_eight_columns_read_the_activation_again() -> None:
    """At 16 rows: 3584 times 262,144 bytes and the weights once, through the cache."""
    gpu, kernel = GpuFigures.of(DEVICE), product(16)
    assert (kernel.kind, kernel.tile) == ("tiled_gemm", (16, 8))
    weights = 8192 * 28672 // 2 + 2 * 64 * 28672
    assert kernel.weight_bytes == weights
    read = 28672 // 8 * (16 * 8192 * 2) + weights
    fixed = gpu.launch_s + (1930 + 1.39 * 8192) / gpu.clock_hz
    assert seconds(kernel) == pytest.approx(fixed + read / (0.48 * gpu.cache_bytes_per_s))


def test_sixteen_rows_more_read_all_of_it_again() -> None:
    times = [seconds(product(rows)) for rows in (16, 32, 48, 33)]
    assert times[2] - times[1] == pytest.approx(times[1] - times[0])
    assert times[1] < times[3] < times[2]


def test_one_row_is_bound_by_main_memory() -> None:
    (cost,) = estimator_of(DEVICE).estimate([product(1)], DEVICE, EAGER)
    assert cost.bound == "memory"
    assert cost.traffic_bytes >= product(1).weight_bytes


def test_measured_products_are_met() -> None:
    """159 products, 1 to 1024 rows, on an H100: 58 % when they were GEMMs at 6 % of the peak."""
    table = read_optable(MEASURED, timed=True)
    rows = table.take(np.flatnonzero([dtype == "w4a16" for dtype in table.dtypes]))
    frame = predict_ops(rows, DEVICE, "torch-eager")
    error = np.abs(np.log(frame["predicted_us"] / frame["median_us"]))
    assert error.mean() < 0.1


def test_a_tile_belongs_to_a_tiled_product() -> None:
    with pytest.raises(WorkError, match="tile"):
        replace(product(1), kind="gemm")
