"""Few measurements on a new device correct its predictions: a Gaussian process over kernels.

The logarithm of measured over predicted time is taken as the sum of a shift of the device, a shift
of each number type under each runtime, and smooth functions of the shape, for all and for each
type. With three samples the shifts move, with a hundred the shape dependence does.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hwmodels.estimators.gpu_features import FEATURES

Floats = NDArray[np.float64]

# Standard deviations of log(measured / predicted) over devices that were left out, by what they
# share, and the reach of a sample in units of `SHAPE_SCALES` (`studies/gpu_latency`).
DEVICE_SD = 0.15
TYPE_SD = 0.12
SHAPE_SD = 0.15
TYPE_SHAPE_SD = 0.12
NOISE_SD = 0.06
REACH = 1.0
SHAPE_SCALES = {
    "compute_share": 1.0, "memory_share": 1.0, "fixed_share": 1.0, "balance": 2.0,
    "log2_m": 3.0, "log2_n": 4.0, "log2_k": 4.0,
}  # fmt: skip
TYPE_FEATURES = ("input_bytes", "weight_bytes", "integer", "cold")
SAME_TYPE = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One measurement on the device."""

    runtime: str
    features: tuple[float, ...]
    """In the order of `FEATURES`."""
    log_ratio: float
    """log(measured / predicted without samples)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapted:
    """Posterior of log(measured / predicted) for kernels, each of shape (kernels,)."""

    mean: Floats
    sd_share: Floats
    """What is left of the prior's standard deviation, in (0, 1]."""


def adapted(samples: tuple[Sample, ...], features: Floats, runtime: str) -> Adapted:
    """The posterior at kernels of a runtime, features (kernels, features), given samples."""
    known = np.array([sample.features for sample in samples])
    runtimes = np.array([sample.runtime for sample in samples])
    ratios = np.array([sample.log_ratio for sample in samples])
    here = np.full(len(features), runtime)
    covariance = _covariance(known, runtimes, known, runtimes)
    covariance += NOISE_SD**2 * np.eye(len(samples))
    across = _covariance(features, here, known, runtimes)
    solved = np.linalg.solve(covariance, np.column_stack([ratios, across.T]))
    prior = DEVICE_SD**2 + TYPE_SD**2 + SHAPE_SD**2 + TYPE_SHAPE_SD**2
    explained = np.einsum("ij,ji->i", across, solved[:, 1:])
    left = np.clip(prior - explained + NOISE_SD**2, 0.0, None) / (prior + NOISE_SD**2)
    return Adapted(mean=across @ solved[:, 0], sd_share=np.sqrt(left))


def _covariance(
    first: Floats,
    first_runtimes: NDArray[np.str_],
    second: Floats,
    second_runtimes: NDArray[np.str_],
) -> Floats:
    """Shape (first, second)."""
    near = np.exp(-0.5 * _squared_distance(first, second) / REACH**2)
    same = _same_type(first, second) & (first_runtimes[:, None] == second_runtimes)
    shared: Floats = DEVICE_SD**2 + SHAPE_SD**2 * near
    return np.asarray(shared + same * (TYPE_SD**2 + TYPE_SHAPE_SD**2 * near))


def _squared_distance(first: Floats, second: Floats) -> Floats:
    columns = [FEATURES.index(name) for name in SHAPE_SCALES]
    scales = np.array(list(SHAPE_SCALES.values()))
    a, b = first[:, columns] / scales, second[:, columns] / scales
    squares: Floats = (a**2).sum(1)[:, None] + (b**2).sum(1) - 2 * a @ b.T
    return np.clip(squares, 0.0, None)


def _same_type(first: Floats, second: Floats) -> NDArray[np.bool_]:
    columns = [FEATURES.index(name) for name in TYPE_FEATURES]
    gap = np.abs(first[:, None, columns] - second[None, :, columns])
    return np.asarray((gap < SAME_TYPE).all(axis=-1))
