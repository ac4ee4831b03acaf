"""Few measurements on a new device correct its predictions: a Gaussian process over kernels.

The logarithm of measured over predicted time, in standard deviations of what is unknown of the
device (`learned.Doubt`), is taken as the sum of a shift of the device, of its runtime, of each
number type, of each type under each runtime, and rough functions of the shape: for all, for each
type, for each type under each runtime. So a device whose siblings were measured is corrected
little, and by many samples; one that nobody knows moves with the first.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from hwmodels.estimators.gpu.features import FEATURES
from hwmodels.estimators.gpu.learned import Doubt

Floats = NDArray[np.float64]

# Shares of the variance by what kernels have in common: the likeliest on devices that were left
# out (`studies/gpu_latency/kinship.py`). What all kernels of a device share is little.
DEVICE_SHARE = 0.03
RUNTIME_SHARE = 0.02
TYPE_SHARE = 0.03
KERNEL_SHARE = 0.02
"""Of a type under a runtime, as `KERNEL_SHAPE_SHARE`."""
SHAPE_SHARE = 0.11
TYPE_SHAPE_SHARE = 0.47
KERNEL_SHAPE_SHARE = 0.32
REACH = 2.3
"""Distance in units of `SHAPE_SCALES` at which the likeness of shapes is 1/e."""
NOISE_SHARE = 0.6
"""Part of the spread of shapes that no function of the shape explains, in standard deviations."""
LEAST_NOISE_SD = 0.03
"""Times repeat no better, in log units."""
OUTLYING = 2.5
"""Standard deviations beyond which a type's samples are no part of the process, and up to which a
sample counts in another type."""
GAIN_SAMPLES = 5
"""Samples that would have been predicted well: weight of the belief that correcting helps."""
COVERAGE = 0.9
PRIOR_SCORES = 10
LEAST_END = 0.01
"""No interval's end is nearer, in log units: times repeat no better."""
SHAPE_SCALES = {
    "compute_share": 1.0, "memory_share": 1.0, "fixed_share": 1.0, "balance": 2.0,
    "log2_m": 3.0, "log2_n": 4.0, "log2_k": 4.0, "wave_fill": 0.5, "waves": 2.0,
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
    device_sd: float
    """As `learned.Doubt` has it, with `noise_sd`."""
    noise_sd: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Correction:
    """Posterior of log(measured / predicted) for kernels, each of shape (kernels,)."""

    mean: Floats
    width: Floats
    """Factor that the ends of the interval without samples shrink by."""
    scores: Floats
    """Error of each sample, left out, over the end of its interval."""
    gain: float = 1.0
    """Share of the correction that samples left out bear out, in [0, 1]."""


def gemm_correction(
    samples: tuple[GemmSample, ...], features: Floats, runtime: str, doubt: Doubt
) -> Correction:
    """The posterior at kernels of a runtime, features (kernels, features), given samples.

    `doubt` is that of the kernels without samples. Without samples it is the prior.
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
    sd = np.array([sample.device_sd for sample in samples])
    noise = np.maximum([sample.noise_sd for sample in samples], LEAST_NOISE_SD)
    noise_across = np.maximum(doubt.noise_sd, LEAST_NOISE_SD)
    ratios = np.array([sample.log_ratio for sample in samples])
    surprise = _surprise(ratios / np.hypot(sd, noise))
    ends = np.hypot(surprise * sd, noise) / np.hypot(sd, noise) / (surprise * sd)
    widened = np.hypot(surprise * doubt.device_sd, noise_across)
    spread = noise / sd / surprise
    found = posterior(
        Observed(
            ratios=_winsorised(ratios / sd / surprise, spread, same),
            low=np.array([sample.low for sample in samples]) * ends,
            high=np.array([sample.high for sample in samples]) * ends,
        ),
        covariance(known, runtimes, known, runtimes),
        covariance(features, here, known, runtimes),
        same=same,
        alike=same * _nearness(known, known),
        alike_across=across * _nearness(features, known),
        prior=1.0,
        noise=(NOISE_SHARE * spread) ** 2,
        rest=spread**2,
        rest_across=(noise_across / doubt.device_sd / surprise) ** 2,
    )
    wider = widened / np.hypot(doubt.device_sd, noise_across)
    return replace(
        found,
        mean=found.gain * found.mean * surprise * doubt.device_sd,
        width=found.width * wider * calibration(found.scores),
    )


def _surprise(scores: Floats) -> float:
    """The factor by which a device is less known than its relatives let expect, at least 1.

    From the median of its samples' |errors| over their standard deviation, and of `PRIOR_SCORES`
    as expected: a few wild samples don't change it, a board whose clock is capped does.
    """
    normal = NormalDist()
    levels = (np.arange(PRIOR_SCORES) + 0.5) / PRIOR_SCORES
    expected = [normal.inv_cdf((1 + float(level)) / 2) for level in levels]
    middle = np.median(np.concatenate([np.abs(scores), expected]))
    return max(1.0, float(middle) / normal.inv_cdf(0.75))


def _winsorised(ratios: Floats, spread: Floats, same: NDArray[np.bool_]) -> Floats:
    """Ratios no further off than `OUTLYING`, but for types that are so as a whole."""
    end = OUTLYING * np.sqrt(1 + spread**2)
    own = _own(ratios, same)
    return np.asarray(np.where(np.abs(own) > OUTLYING, ratios, np.clip(ratios, -end, end)))


def _own(ratios: Floats, same: NDArray[np.bool_]) -> Floats:
    """The mean ratio of each sample's type, shape (samples,)."""
    return np.asarray(np.where(same, ratios, 0.0).sum(1) / same.sum(1))


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
    noise: Floats,
    rest: Floats,
    rest_across: Floats,
) -> Correction:
    """Of a Gaussian process with variance `prior` everywhere, given the log ratios of samples.

    `between` (samples, samples) and `across` (kernels, samples) are the prior's; `same` says
    which are of one type, `alike` and `alike_across` are 1 for the same shape of it and fall to 0.
    A type whose samples are `OUTLYING` standard deviations off is another kernel than the model
    has in mind (a fallback, an emulation): around its samples it gets a term of its own of that
    variance, so that it does not drag the others along.

    `noise` is a sample's variance beside the process; `rest` that of one more time of samples,
    `rest_across` of kernels. The width is what the process leaves of its standard deviation.
    """
    ratios = observed.ratios
    own = _own(ratios, same)
    surplus = np.where(own**2 > OUTLYING**2 * prior, own**2, 0.0)
    between = between + alike * surplus + np.diag(noise)
    across = across + alike_across * surplus
    variance = prior + np.max(alike_across * surplus, axis=1, initial=0.0)
    inverse = np.asarray(np.linalg.inv(between), dtype=np.float64)
    explained = ((across @ inverse) * across).sum(axis=1)
    left = (np.clip(variance - explained, 0.0, None) + rest_across) / (prior + rest_across)
    certain = np.diag(inverse)
    missed = inverse @ ratios / certain
    ordinary = surplus == 0
    unknown = np.clip(1 / certain - noise, 0.0, None) + rest
    ends = np.where(missed < 0, -observed.low, observed.high)
    wide = np.minimum(np.sqrt(unknown / (prior + rest)), 1.0)
    return Correction(
        mean=across @ (inverse @ ratios),
        width=np.minimum(np.sqrt(left), 1.0),
        scores=np.abs(missed) / np.maximum(ends, LEAST_END) / wide,
        gain=_gain(ratios[ordinary], (ratios - missed)[ordinary], prior + rest[ordinary]),
    )


def _gain(ratios: Floats, predicted: Floats, variance: Floats) -> float:
    """The share of a correction that does best on samples left out, drawn to all of it.

    Source for what is left out: Rasmussen and Williams 2006, "Gaussian Processes for Machine
    Learning", equation 5.12.
    """
    if not len(ratios):
        return 1.0
    belief = GAIN_SAMPLES * float(variance.mean())
    both = float(ratios @ predicted) + belief
    return float(np.clip(both / (float(predicted @ predicted) + belief), 0.0, 1.0))


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
    """Of two lists of GEMMs by the prior, in its variance, shape (first, second).

    Features are (GEMMs, features).
    """
    near = np.exp(-np.sqrt(_squared_distance(first, second)) / REACH)
    runtime = first_runtimes[:, None] == second_runtimes
    kind = _same_type(first, second)
    shared = DEVICE_SHARE + RUNTIME_SHARE * runtime + SHAPE_SHARE * near
    own = kind * (TYPE_SHARE + TYPE_SHAPE_SHARE * near)
    return np.asarray(shared + own + kind * runtime * (KERNEL_SHARE + KERNEL_SHAPE_SHARE * near))


def _nearness(first: Floats, second: Floats) -> Floats:
    """Likeness of GEMMs' shapes that leaves nothing to far ones, shape (first, second)."""
    return np.asarray(np.exp(-0.5 * _squared_distance(first, second)))


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
