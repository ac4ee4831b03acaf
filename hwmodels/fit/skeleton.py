"""Fitting the skeleton's constants to measured GEMMs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import minimize

from hwmodels.estimators.gpu_skeleton import CONSTANTS, SkeletonConstants
from hwmodels.fit.predict import predict
from hwmodels.number_type import NUMBER_TYPES

Floats = NDArray[np.float64]

FITTED = (
    "compute_efficiency", "tile_efficiency", "dram_efficiency", "cache_efficiency",
    "core_bytes_per_cycle", "split_cycles", "step_cycles", "ramp_cycles", "resident_share",
)  # fmt: skip
SHARES = ("compute_efficiency", "dram_efficiency", "cache_efficiency", "resident_share")
"""Constants that cannot exceed 1."""
ROWS_PER_DEVICE = 800
ROWS_PER_GROUP = 400
EVALUATIONS = 220
STEP = 0.3
"""First step of the simplex, in log units."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FittedSkeleton:
    """Constants, and what dynamic quantisation costs beside its bytes."""

    constants: SkeletonConstants
    quantize_cycles: Mapping[str, float] = field(default_factory=dict)
    """By `runtime/dtype`, and by dtype alone for runtimes that were not measured."""

    def cycles(self, runtime: str, dtype: str) -> float:
        """Extra cycles of a runtime's quantisation; zero for a dtype that was never measured."""
        known = self.quantize_cycles
        return known.get(f"{runtime}/{dtype}", known.get(dtype, known.get("", 0.0)))


def fit_skeleton(table: pd.DataFrame, seed: int = 0) -> FittedSkeleton:
    """The constants with the least mean |log ratio|.

    GEMM constants on 16-bit GEMMs, devices weighted equally; then the quantisation cycles on the
    dtypes that quantise.
    """
    plain = _sampled(table[table["dtype"].isin(("bf16", "fp16"))], ("device",), seed)
    start = np.log([getattr(CONSTANTS, name) for name in FITTED])

    def loss(logs: Floats) -> float:
        values = np.exp(logs)
        excess = sum(max(float(values[FITTED.index(name)]) - 1, 0.0) for name in SHARES)
        return _error(plain, FittedSkeleton(constants=_with(values))) + excess

    simplex = np.vstack([start, start + STEP * np.eye(len(start))])
    options = {"maxfev": EVALUATIONS, "initial_simplex": simplex}
    best = minimize(loss, start, method="Nelder-Mead", options=options)
    fitted = FittedSkeleton(constants=_with(np.exp(best.x)))
    return replace(fitted, quantize_cycles=_quantize_cycles(table, fitted, seed))


def _with(values: Sequence[float] | Floats) -> SkeletonConstants:
    fitted = {
        name: min(float(value), 1.0) if name in SHARES else float(value)
        for name, value in zip(FITTED, values, strict=True)
    }
    return replace(CONSTANTS, **fitted)  # type: ignore[arg-type]


def _quantize_cycles(table: pd.DataFrame, fitted: FittedSkeleton, seed: int) -> dict[str, float]:
    """Extra cycles by runtime and dtype, by dtype, and overall (the empty name)."""
    kinds = [name for name, number in NUMBER_TYPES.items() if number.quantizes]
    quantized = _sampled(
        table[table["dtype"].isin(kinds)], ("device", "runtime", "dtype"), seed, ROWS_PER_GROUP
    )
    if quantized.empty:
        return {}
    found: dict[str, float] = {"": _fit_cycles(quantized, fitted)}
    for dtype, rows in quantized.groupby("dtype"):
        found[str(dtype)] = _fit_cycles(rows, fitted)
    for pair, rows in quantized.groupby(["runtime", "dtype"]):
        found["/".join(map(str, cast("tuple[str, str]", pair)))] = _fit_cycles(rows, fitted)
    return found


def _fit_cycles(table: pd.DataFrame, fitted: FittedSkeleton) -> float:
    """Cycles in 0 to 4e4 with the least mean |log ratio|, on a grid of 200."""
    base = predict(table, fitted.constants, lambda _r, _d: 0.0).skeleton_s
    one = predict(table, fitted.constants, lambda _r, _d: 1.0).skeleton_s
    grid = np.linspace(0, 4e4, 201)
    guess = base[:, None] + (one - base)[:, None] * grid
    errors = np.abs(np.log(guess / table["latency_s"].to_numpy()[:, None])).mean(axis=0)
    return float(grid[int(np.argmin(errors))])


def _error(table: pd.DataFrame, fitted: FittedSkeleton) -> float:
    seconds = predict(table, fitted.constants, fitted.cycles).skeleton_s
    ratio = np.abs(np.log(seconds / table["latency_s"].to_numpy()))
    return float(pd.Series(ratio).groupby(table["device"].to_numpy()).mean().mean())


def _sampled(
    table: pd.DataFrame, by: Sequence[str], seed: int, most: int = ROWS_PER_DEVICE
) -> pd.DataFrame:
    shuffled = table.sample(frac=1.0, random_state=seed)
    return shuffled.groupby(list(by)).head(most).reset_index(drop=True)
