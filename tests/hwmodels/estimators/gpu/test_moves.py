"""Constants of moves against what an H100 took (`studies/gpu_latency/layouts.py`)."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hwmodels.devices.load import load_device
from hwmodels.estimators.gpu.kernels import TERMS
from hwmodels.estimators.gpu.residual import load_artefact
from hwmodels.estimators.gpu.skeleton import GpuFigures
from hwmodels.work.kernel import Kernel
from hwmodels.work.loops import ConvolutionLoops
from hwmodels.work.work import plain_format

MEASURED = Path(__file__).parents[4] / "studies" / "gpu_latency" / "results" / "layouts.csv"


def log_ratios(named: tuple[str, str], moved: tuple[str, float, float]) -> np.ndarray:
    """log(predicted / measured) of the rows of one operation."""
    (part, operation), (detail, read, write) = named, moved
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
    errors = log_ratios(row, moved)
    assert len(errors) >= 6
    assert np.abs(errors).mean() < most


def test_convolutions_in_fp32_walk_along_their_depth() -> None:
    """One image, 3x3, 512 channels of 7x7: 134 us in fp32 on an H100; a tenth of that in fp16."""
    loops = ConvolutionLoops(
        images=1, groups=1, in_channels=512, out_channels=512, in_size=(7, 7), out_size=(7, 7),
        kernel=(3, 3),
    )  # fmt: skip
    seconds = {}
    for element, width in (("fp32", 4), ("bf16", 2)):
        kernel = Kernel(
            kind="conv2d",
            loops=loops,
            input_format=plain_format(8 * width),
            weight_format=plain_format(8 * width),
            weight_element=element,
            input_element=element,
            input_bytes=49 * 512 * width,
            weight_bytes=512 * 4608 * width,
            write_bytes=49 * 512 * width,
            inputs_are_cold=True,
        )
        device = load_device("h100-sxm")
        terms = TERMS["conv2d"]([kernel], device, GpuFigures.of(device), load_artefact().constants)
        seconds[element] = float(terms.latency_s[0])
    assert seconds["fp32"] == pytest.approx(133.6e-6, rel=0.15)
    assert seconds["bf16"] == pytest.approx(13.1e-6, rel=0.35)


@pytest.mark.parametrize(("bits", "share"), [(16, 0.20), (32, 0.40), (64, 0.60)])
def test_kernels_of_an_address_an_element_move_wide_ones_as_fast(bits: int, share: float) -> None:
    """A bias on warm maps: the time of an element is the same, until bytes rule (0.60)."""
    device = load_device("h100-sxm")
    gpu, constants = GpuFigures.of(device), load_artefact().constants
    count = 8 * 64 * 56 * 56
    kernel = Kernel(
        kind="pointwise",
        detail="strided",
        input_format=plain_format(bits),
        input_bytes=count * bits // 8,
        write_bytes=count * bits // 8,
    )
    terms = TERMS["pointwise"]([kernel], device, gpu, constants)
    assert terms.cache_s[0] == pytest.approx(
        2 * count * bits / 8 / (share * gpu.cache_bytes_per_s)
    )
