"""Few measurements on a new device correct its predictions: a Gaussian process over kernels.

The logarithm of measured over predicted time is taken as the sum of a shift of the device, a shift
of each number type under each runtime, and smooth functions of the shape, for all and for each
type. With three samples the shifts move, with a hundred the shape dependence does.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from hwmodels.estimators.gpu.features import FEATURES

Floats = NDArray[np.float64]

# Standard deviations of log(measured / predicted) over devices that were left out, by what they
# share, and the reach of a sample in units of `SHAPE_SCALES` (`studies/gpu_latency`).
DEVICE_SD = 0.15
TYPE_SD = 0.12
SHAPE_SD = 0.15
TYPE_SHAPE_SD = 0.12
NOISE_SD = 0.06
REACH = 1.0
OUTLYING = 2.5
"""Standard deviations of the prior beyond which a type's samples are no part of it."""
COVERAGE = 0.9
PRIOR_SCORES = 10
LEAST_END = 0.01
"""No interval's end is nearer, in log units: times repeat no better."""
SHAPE_SCALES = {
    "compute_share": 1.0, "memory_share": 1.0, "fixed_share": 1.0, "balance": 2.0,
    "log2_m": 3.0, "log2_n": 4.0, "log2_k": 4.0,
}  # fmt: skip
TYPE_FEATURES = ("input_bytes", "weight_bytes", "integer", "cold")
SAME_TYPE = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class GemmSample:
    """One measurement on the device."""

    runtime: str
    features: tuple[float, ...]
    """In the order of `FEATURES`."""
    log_ratio: float
    """log(measured / predicted without samples)."""
    low: float
    """End of the interval of `log_ratio` without samples, at most 0."""
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Correction:
    """Posterior of log(measured / predicted) for kernels, each of shape (kernels,)."""

    mean: Floats
    width: Floats
    """Factor that the ends of the interval without samples shrink by."""
    scores: Floats
    """Error of each sample, left out, over the end of its interval."""


def gemm_correction(samples: tuple[GemmSample, ...], features: Floats, runtime: str) -> Correction:
    """The posterior at kernels of a runtime, features (kernels, features), given samples.

    Without samples it is the prior.
    """
    if not samples:
        nothing = np.zeros(0)
        return Correction(
            mean=np.zeros(len(features)), width=np.ones(len(features)), scores=nothing
        )
    known = np.array([sample.features for sample in samples])
    runtimes = np.array([sample.runtime for sample in samples])
    here = np.full(len(features), runtime)
    same = _same_type(known, known) & (runtimes[:, None] == runtimes)
    across = _same_type(features, known) & (here[:, None] == runtimes)
    found = posterior(
        Observed(
            ratios=np.array([sample.log_ratio for sample in samples]),
            low=np.array([sample.low for sample in samples]),
            high=np.array([sample.high for sample in samples]),
        ),
        covariance(known, runtimes, known, runtimes),
        covariance(features, here, known, runtimes),
        same=same,
        alike=same * _nearness(known, known),
        alike_across=across * _nearness(features, known),
        prior=DEVICE_SD**2 + TYPE_SD**2 + SHAPE_SD**2 + TYPE_SHAPE_SD**2,
        noise_sd=NOISE_SD,
    )
    return replace(found, width=found.width * calibration(found.scores))


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """Log ratios of samples and their intervals without samples, each of shape (samples,)."""

    ratios: Floats
    low: Floats
    high: Floats


def posterior(
    observed: Observed,
    between: Floats,
    across: Floats,
    *,
    same: NDArray[np.bool_],
    alike: Floats,
    alike_across: Floats,
    prior: float,
    noise_sd: float,
) -> Correction:
    """Of a Gaussian process with variance `prior` everywhere, given the log ratios of samples.

    `between` (samples, samples) and `across` (kernels, samples) are the prior's; `same` says
    which are of one type, `alike` and `alike_across` are 1 for the same shape of it and fall to 0.
    A type whose samples are `OUTLYING` standard deviations off is another kernel than the model
    has in mind (a fallback, an emulation): around its samples it gets a term of its own of that
    variance, so that it does not drag the others along.

    The width is what the process leaves of its standard deviation.
    """
    ratios = observed.ratios
    own = np.where(same, ratios, 0.0).sum(1) / same.sum(1)
    surplus = np.where(own**2 > OUTLYING**2 * prior, own**2, 0.0)
    between = between + alike * surplus + noise_sd**2 * np.eye(len(ratios))
    across = across + alike_across * surplus
    variance = prior + np.max(alike_across * surplus, axis=1, initial=0.0)
    inverse = np.asarray(np.linalg.inv(between), dtype=np.float64)
    explained = ((across @ inverse) * across).sum(axis=1)
    whole = prior + noise_sd**2
    left = np.clip(variance - explained + noise_sd**2, 0.0, None) / whole
    scores = _left_out_scores(observed, inverse, whole)
    width = np.minimum(np.sqrt(left), 1.0)
    return Correction(mean=across @ (inverse @ ratios), width=width, scores=scores)


def _left_out_scores(observed: Observed, inverse: Floats, whole: float) -> Floats:
    """Error of each sample, left out, over the end of its interval.

    Source: Rasmussen and Williams 2006, "Gaussian Processes for Machine Learning", equation 5.12.
    """
    certain = np.diag(inverse)
    missed = inverse @ observed.ratios / certain
    width = np.minimum(np.sqrt(1 / certain / whole), 1.0)
    ends = np.where(missed < 0, -observed.low, observed.high)
    return np.asarray(np.abs(missed) / np.maximum(ends, LEAST_END) / width)


def calibration(scores: Floats) -> float:
    """The factor by which intervals have to be wider to hold `COVERAGE` of samples left out.

    As few samples say little, `PRIOR_SCORES` of a normal distribution whose interval is right
    count with them.

    Source: Vovk et al. 2005, "Algorithmic Learning in a Random World" (conformal prediction).
    """
    normal = NormalDist()
    levels = (np.arange(PRIOR_SCORES) + 0.5) / PRIOR_SCORES
    end = normal.inv_cdf((1 + COVERAGE) / 2)
    expected = [normal.inv_cdf((1 + float(level)) / 2) / end for level in levels]
    return float(np.quantile(np.concatenate([scores, expected]), COVERAGE))


def covariance(
    first: Floats,
    first_runtimes: NDArray[np.str_],
    second: Floats,
    second_runtimes: NDArray[np.str_],
) -> Floats:
    """Of two lists of GEMMs by the prior, shape (first, second); features (GEMMs, features)."""
    near = _nearness(first, second)
    same = _same_type(first, second) & (first_runtimes[:, None] == second_runtimes)
    shared: Floats = DEVICE_SD**2 + SHAPE_SD**2 * near
    return np.asarray(shared + same * (TYPE_SD**2 + TYPE_SHAPE_SD**2 * near))


def _nearness(first: Floats, second: Floats) -> Floats:
    """Likeness of GEMMs' shapes, 1 for the same, shape (first, second)."""
    return np.asarray(np.exp(-0.5 * _squared_distance(first, second) / REACH**2))


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
