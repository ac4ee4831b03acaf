"""The skeleton over a table of measured GEMMs, with the quantisation that their times hold."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hwmodels.device_file import load_device
from hwmodels.estimators.gpu_features import FEATURES, gemm_features
from hwmodels.estimators.gpu_skeleton import (
    MOVE_EFFICIENCY,
    Gemms,
    GpuFigures,
    Moves,
    SkeletonConstants,
    gemm_terms,
    move_terms,
)
from hwmodels.number_type import NUMBER_TYPES, NumberType

Floats = NDArray[np.float64]
QuantizeCycles = Callable[[str, str], float]
"""Cycles that a runtime's dynamic quantisation adds, by runtime and dtype."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """Seconds of table rows, shape (rows,), and features of their GEMMs."""

    skeleton_s: Floats
    """GEMM and quantisation."""
    light_s: Floats
    features: Floats
    """Shape (rows, features)."""


def predict(
    table: pd.DataFrame, constants: SkeletonConstants, quantize_cycles: QuantizeCycles
) -> Prediction:
    """The skeleton's account of every row of `table` (columns of `fit.measurement`)."""
    skeleton = np.zeros(len(table))
    light = np.zeros(len(table))
    features = np.zeros((len(table), len(FEATURES)))
    rows = np.arange(len(table))
    for (name, runtime, dtype, cold), group in table.groupby(
        ["device", "runtime", "dtype", "cold"], sort=False
    ):
        index = rows[table.index.get_indexer(group.index)]
        device = load_device(str(name))
        gpu = GpuFigures.of(device)
        number = NUMBER_TYPES[str(dtype)]
        gemms = _gemms(group, device_rate(str(name), number), number, cold=bool(cold))
        terms = gemm_terms(gemms, gpu, constants)
        extra = quantisation_s(group, number, gpu, constants)
        extra += bool(number.quantizes) * quantize_cycles(str(runtime), str(dtype)) / gpu.clock_hz
        skeleton[index] = terms.latency_s + extra
        light[index] = terms.light_s
        features[index] = gemm_features(gemms, terms, gpu)
    return Prediction(skeleton_s=skeleton, light_s=light, features=features)


def device_rate(name: str, number: NumberType) -> float:
    """Peak of a device for a number type, widened where no unit has it."""
    device = load_device(name)
    pair = device.widened(number.weight_element, number.input_element) or ("fp32", "fp32")
    rate = device.rate(*pair)
    assert rate is not None, "a widened pair has a rate"
    return rate.ops_per_s.value


def quantisation_s(
    table: pd.DataFrame, number: NumberType, gpu: GpuFigures, constants: SkeletonConstants
) -> Floats:
    """Seconds of the quantisation kernels that the rows' times hold."""
    m, k = (table[size].to_numpy(dtype=float) for size in ("m", "k"))
    if not number.quantizes:
        return np.zeros_like(m)
    moved = m * k * (2 + number.input_bytes)
    moves = Moves(
        kind="quantize",
        efficiency=np.full_like(m, MOVE_EFFICIENCY["quantize"]),
        rows=m,
        cols=k,
        cold_bytes=0 * moved,
        warm_bytes=moved,
    )
    return number.quantizes * move_terms(moves, gpu, constants).latency_s


def _gemms(table: pd.DataFrame, rate: float, number: NumberType, *, cold: bool) -> Gemms:
    m, n, k = (table[size].to_numpy(dtype=float) for size in ("m", "n", "k"))
    moved = m * k * number.input_bytes + n * k * number.weight_bytes + m * n * number.output_bytes
    return Gemms(
        batch=np.ones_like(m),
        m=m,
        n=n,
        k=k,
        input_bytes=np.full_like(m, number.input_bytes),
        weight_bytes=np.full_like(m, number.weight_bytes),
        cold_bytes=moved * cold,
        warm_bytes=moved * (not cold),
        ops_per_s=np.full_like(m, rate),
        peak_ops_per_s=np.full_like(m, rate),
        integer=np.full_like(m, number.input_element.startswith("int")),
    )
