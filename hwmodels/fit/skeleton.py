"""Fitting the skeleton's GEMM constants and the overheads to measured GEMMs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hwmodels.estimators.gpu.constants import CONSTANTS, SkeletonConstants
from hwmodels.estimators.gpu.overhead import Overhead, Overheads, has_overhead
from hwmodels.fit.predict import Prediction, gemm_s
from hwmodels.fit.simplex import least
from hwmodels.operators.number_type import NUMBER_TYPES

Floats = NDArray[np.float64]

FITTED = (
    "compute_efficiency", "tile_efficiency", "dram_efficiency", "cache_efficiency",
    "core_bytes_per_cycle", "split_cycles", "step_cycles", "ramp_cycles", "overlap",
)  # fmt: skip
SHARES = ("compute_efficiency", "dram_efficiency", "cache_efficiency")
"""Constants that cannot exceed 1."""
LEAST_OVERLAP = 1.0
ROWS_PER_RUNTIME = 250
ROWS_PER_GROUP = 500
EVALUATIONS = 300
STEP = 0.3
"""First step of the simplex, in log units."""
RIDGE = 0.01
"""Loss of a constant that is off its default by a factor of e: the tables of some devices do not
determine the bandwidth of a cache that they never show."""
START = Overhead(
    launches=1.5, row_cycles=300, depth_cycles=0.3, element_cycles=0.05, passes=1.2,
    fixed_cycles=300,
)  # fmt: skip
OVERHEAD_EVALUATIONS = 250
OVERHEAD_STEP = 0.7
OVERHEAD_RIDGE = 1e-4


def fit_constants(table: pd.DataFrame, seed: int = 0) -> SkeletonConstants:
    """The GEMM constants with the least mean |log ratio| on 16-bit GEMMs, devices alike."""
    plain = table[table["dtype"].isin(("bf16", "fp16"))]
    rows = _sampled(plain, ("device", "runtime"), seed, ROWS_PER_RUNTIME)
    measured = np.log(rows["latency_s"].to_numpy())
    weights = 1 / rows.groupby("device")["k"].transform("size").to_numpy(dtype=float)
    weights /= weights.sum()
    start = np.log([getattr(CONSTANTS, name) for name in FITTED])

    def loss(logs: Floats) -> float:
        errors = np.abs(np.log(gemm_s(rows, _with(np.exp(logs)))) - measured)
        excess = sum(max(float(np.exp(logs[FITTED.index(name)])) - 1, 0.0) for name in SHARES)
        return float(weights @ errors) + RIDGE * float(((logs - start) ** 2).sum()) + excess

    return _with(np.exp(least(loss, start, step=STEP, evaluations=EVALUATIONS)))


def fit_overheads(
    table: pd.DataFrame, account: Prediction, gemm: Floats, seed: int = 0
) -> dict[str, Overhead]:
    """The overhead of every quantising and weight-only number type of every runtime.

    `gemm` are the seconds of the rows' GEMMs alone; only warm rows hold an overhead.
    """
    measured = table["latency_s"].to_numpy()
    shuffled = np.random.default_rng(seed).permutation(len(table))
    kinds = [name for name, number in NUMBER_TYPES.items() if has_overhead(number)]
    wanted = table["dtype"].isin(kinds).to_numpy() & ~table["cold"].to_numpy(dtype=bool)
    rows = table.iloc[shuffled[wanted[shuffled]]].assign(row=shuffled[wanted[shuffled]])
    rows = rows.groupby(["device", "runtime", "dtype"]).head(ROWS_PER_GROUP)
    found = {}
    for (runtime, dtype), group in rows.groupby(["runtime", "dtype"]):
        index = group["row"].to_numpy()
        found[f"{runtime}/{dtype}"] = _overhead(account.basis[index], gemm[index], measured[index])
    return found


def _overhead(basis: Floats, gemm: Floats, measured: Floats) -> Overhead:
    names = tuple(Overhead.__dataclass_fields__)
    start = np.log([getattr(START, name) for name in names])

    def loss(logs: Floats) -> float:
        errors = np.abs(np.log((gemm + basis @ np.exp(logs)) / measured))
        return float(errors.mean()) + OVERHEAD_RIDGE * float(np.abs(logs - start).sum())

    best = np.exp(least(loss, start, step=OVERHEAD_STEP, evaluations=OVERHEAD_EVALUATIONS))
    return Overhead(**dict(zip(names, map(float, best), strict=True)))


def _with(values: Sequence[float] | Floats) -> SkeletonConstants:
    fitted = {
        name: min(float(value), 1.0) if name in SHARES else float(value)
        for name, value in zip(FITTED, values, strict=True)
    }
    fitted["overlap"] = max(fitted["overlap"], LEAST_OVERLAP)
    return replace(CONSTANTS, **fitted)  # type: ignore[arg-type]


def _sampled(table: pd.DataFrame, by: Sequence[str], seed: int, most: int) -> pd.DataFrame:
    shuffled = table.sample(frac=1.0, random_state=seed)
    return shuffled.groupby(list(by)).head(most).reset_index(drop=True)


__all__ = ["Overheads", "fit_constants", "fit_overheads"]
