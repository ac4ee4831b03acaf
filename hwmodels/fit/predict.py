"""The skeleton over a table of measured GEMMs, with the quantisation that their times hold."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hwmodels.devices.load import load_device
from hwmodels.estimators.gpu.constants import SkeletonConstants
from hwmodels.estimators.gpu.features import FEATURES, gemm_features
from hwmodels.estimators.gpu.overhead import (
    Overheads,
    conversion_basis,
    has_overhead,
    overhead_s,
    widening_basis,
)
from hwmodels.estimators.gpu.skeleton import Gemms, GpuFigures, gemm_terms
from hwmodels.operators.lower import CYCLED_WEIGHTS
from hwmodels.operators.number_type import NUMBER_TYPES, NumberType

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]
QUANTISED_BYTES = 2
"""Bytes of an activation's element before it is quantised."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """Seconds of table rows, shape (rows,), and features of their GEMMs."""

    gemm_s: Floats
    light_s: Floats
    features: Floats
    """Shape (rows, features)."""
    basis: Floats
    """Terms of the overhead (`gpu.overhead`), shape (rows, 6); zero where there is none."""

    def take(self, rows: Indices) -> Prediction:
        """The account of some of the rows."""
        return Prediction(
            gemm_s=self.gemm_s[rows],
            light_s=self.light_s[rows],
            features=self.features[rows],
            basis=self.basis[rows],
        )

    def overhead_s(self, table: pd.DataFrame, overheads: Overheads) -> Floats:
        """Quantisation and widening of every row of the predicted table."""
        seconds = np.zeros(len(table))
        for (runtime, dtype), index in _groups(table, "runtime", "dtype"):
            if has_overhead(NUMBER_TYPES[dtype]):
                seconds[index] = overhead_s(overheads, runtime, dtype, self.basis[index])
        return seconds


def predict(table: pd.DataFrame, constants: SkeletonConstants) -> Prediction:
    """The skeleton's account of every row of `table` (columns of `fit.measurement`)."""
    gemm, light = np.zeros(len(table)), np.zeros(len(table))
    features = np.zeros((len(table), len(FEATURES)))
    basis = np.zeros((len(table), 6))
    for (name, dtype, cold), index in _groups(table, "device", "dtype", "cold"):
        gpu = GpuFigures.of(load_device(str(name)))
        number = NUMBER_TYPES[dtype]
        rows = table.iloc[index]
        gemms = gemms_of_rows(rows, device_rate(str(name), number), number, cold=bool(cold))
        terms = gemm_terms(gemms, gpu, constants)
        gemm[index], light[index] = terms.latency_s, terms.light_s
        features[index] = gemm_features(gemms, terms, gpu)
        if has_overhead(number) and not cold:
            basis[index] = _basis(gemms, number, gpu, constants)
    return Prediction(gemm_s=gemm, light_s=light, features=features, basis=basis)


def _groups(table: pd.DataFrame, *keys: str) -> Iterator[tuple[tuple[Any, ...], Indices]]:
    """Values of the keys, and the positions of the rows that have them."""
    for key, index in table.groupby(list(keys), sort=False).indices.items():
        yield cast("tuple[Any, ...]", key), np.asarray(index, dtype=np.intp)


def gemm_s(table: pd.DataFrame, constants: SkeletonConstants) -> Floats:
    """The skeleton's GEMM seconds alone."""
    return predict(table, constants).gemm_s


def _basis(
    gemms: Gemms, number: NumberType, gpu: GpuFigures, constants: SkeletonConstants
) -> Floats:
    if not number.quantizes:
        return widening_basis(gemms.m, gemms.n, gemms.k, gpu)
    moved = gemms.m * gemms.k * (QUANTISED_BYTES + number.input_bytes)
    return conversion_basis(gemms.m, gemms.k, moved, gpu, constants)


def device_rate(name: str, number: NumberType) -> float:
    """Peak of a device for a number type, widened where no unit has it."""
    device = load_device(name)
    pair = device.widened(number.weight_element, number.input_element) or ("fp32", "fp32")
    rate = device.rate(*pair)
    assert rate is not None, "a widened pair has a rate"
    return rate.ops_per_s.value


def gemms_of_rows(table: pd.DataFrame, rate: float, number: NumberType, *, cold: bool) -> Gemms:
    """Rows of one device and number type as arrays."""
    m, n, k = (table[size].to_numpy(dtype=float) for size in ("m", "n", "k"))
    weights = n * k * number.weight_bytes
    moved = m * k * number.input_bytes + weights + m * n * number.output_bytes
    warm = not cold
    return Gemms(
        batch=np.ones_like(m),
        m=m,
        n=n,
        k=k,
        input_bytes=np.full_like(m, number.input_bytes),
        weight_bytes=np.full_like(m, number.weight_bytes),
        cold_bytes=moved * cold,
        warm_bytes=moved * warm,
        copied_bytes=weights * warm,
        copies=np.full_like(m, CYCLED_WEIGHTS if warm else 1),
        ops_per_s=np.full_like(m, rate),
        peak_ops_per_s=np.full_like(m, rate),
        integer=np.full_like(m, number.is_integer),
    )
