"""Constants of moves against what an H100 took (`studies/gpu_latency/layouts.py`)."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hwmodels.device_file import load_device
from hwmodels.estimators.gpu_kernels import TERMS
from hwmodels.estimators.gpu_residual import load_artefact
from hwmodels.estimators.gpu_skeleton import GpuFigures
from hwmodels.kernel import Kernel

MEASURED = Path(__file__).parents[3] / "studies" / "gpu_latency" / "results" / "layouts.csv"


def log_ratios(part: str, operation: str, detail: str, read: float, write: float) -> np.ndarray:
    """log(predicted / measured) of the rows of one operation."""
    table = pd.read_csv(MEASURED)
    rows = table[(table["part"] == part) & (table["operation"] == operation)]
    device = load_device("h100-sxm")
    gpu, constants = GpuFigures.of(device), load_artefact().constants
    found = []
    for row in rows.itertuples():
        count = 2 * math.prod(int(size) for size in str(row.shape).split("x"))
        kernel = Kernel(
            kind="pointwise",
            detail=detail,
            sizes={},
            input_bytes=round(read * count),
            write_bytes=round(write * count),
            inputs_are_cold=part == "cold",
        )
        seconds = TERMS["pointwise"]([kernel], device, gpu, constants).latency_s[0]
        found.append(math.log(seconds * 1e6 / row.median_us))
    return np.array(found)


@pytest.mark.parametrize(
    ("row", "moved", "most"),
    [
        (("chain", "relu"), ("relu", 1, 1), 0.06),
        (("chain", "bias"), ("strided", 1, 1), 0.10),
        (("cold", "bias"), ("strided", 1, 1), 0.20),
        (("cold", "cat2"), ("concat", 2, 2), 0.10),
        (("cold", "avgpool2"), ("maps_averagepool", 1, 0.25), 0.10),
    ],
)
def test_moves_take_what_was_measured(
    row: tuple[str, str], moved: tuple[str, float, float], most: float
) -> None:
    errors = log_ratios(*row, *moved)
    assert len(errors) >= 6
    assert np.abs(errors).mean() < most
