"""Losses of assignments that only a task's score was measured of.

A score has units of its own: accuracy, perplexity per word. What it lost against the unquantized
model, its degradation, is taken as proportional to the run's loss, with one factor a score over
all assignments that have both: d = s_ref - s (more is better), s - s_ref (less is), or
ln s - ln s_ref (perplexities, so that it is in nats). The factor is the ratio of sums, sum of
losses over sum of degradations, which noise in single scores does not bias as it does a slope.

What a score then says of an assignment's loss is weighed with what the surrogate predicts, each by
the inverse of its variance: a score within its noise moves nothing, and an exact one decides.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

CLEAR = 2.0
"""Standard errors by which all degradations together must be above zero."""
FEWEST = 2
FEWEST_WITHOUT_ERRORS = 3
"""Assignments from whose scatter an error can be told, where the tool gives none."""
LEAST_ERROR = 0.1
"""Measured points were fitted to: predictions of others miss by more than those."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Degradation:
    """A loss in units of a score."""

    value: float
    stderr: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """Losses in nats of a score's degradations."""

    factor: float
    scatter: float
    """Root mean square of what the factor leaves, in nats."""

    def loss(self, degradation: Degradation) -> tuple[float, float]:
        """The loss that a degradation stands for, and its standard error, in nats."""
        error = self.scatter if degradation.stderr is None else self.factor * degradation.stderr
        return self.factor * degradation.value, error


def degradation(
    name: str,
    score: tuple[float, float | None],
    reference: tuple[float, float | None],
    *,
    higher_is_better: bool,
) -> Degradation:
    """The loss of a model's score against the reference's.

    Errors are added as if the two were measured apart. They were measured on the same records, so
    that their difference is known better than that.

    Args:
        name: of the score; perplexities are compared by their logarithms.
        score: value and standard error.
        reference: of the unquantized model.
        higher_is_better: of both.
    """
    (value, error), (base, base_error) = score, reference
    if "perplexity" in name and value > 0 and base > 0:
        error = None if error is None else error / value
        base_error = None if base_error is None else base_error / base
        value, base = math.log(value), math.log(base)
    lost = base - value if higher_is_better else value - base
    known = [one for one in (error, base_error) if one is not None]
    return Degradation(value=lost, stderr=math.hypot(*known) if len(known) == 2 else None)


def linked(losses: Sequence[float], lost: Sequence[Degradation]) -> Link | str:
    """The factor between losses in nats and degradations; else why there is none.

    Args:
        losses: of assignments, measured in emulation or predicted.
        lost: of the same.
    """
    errors = [one.stderr for one in lost if one.stderr is not None]
    complete = len(errors) == len(lost)
    fewest = FEWEST if complete else FEWEST_WITHOUT_ERRORS
    if len(lost) < fewest:
        return f"{len(lost)} assignments have it, expected at least {fewest}"
    total, values = sum(losses), np.array([one.value for one in lost])
    # One reference is in all differences, so that their errors do not average out.
    noise = sum(errors) if complete else 0.0
    if not values.sum() > CLEAR * noise or total <= 0:
        return (
            f"all {len(lost)} assignments together lost {values.sum():.3g} +- {noise:.3g}, which "
            "is nothing beyond its noise"
        )
    factor = total / float(values.sum())
    rest = factor * values - np.array(losses)
    return Link(factor=factor, scatter=float(np.sqrt(np.mean(rest**2))))


def weighed(
    predicted: float, error: float, told: Sequence[tuple[float, float]]
) -> tuple[float, float]:
    """The loss that a prediction and several estimates together stand for, and its error.

    Args:
        predicted: by the surrogate.
        error: its standard error, positive.
        told: estimates with their standard errors.
    """
    floor = 1e-3 * error
    pairs = [(predicted, error), *((value, max(each, floor)) for value, each in told)]
    weights = np.array([1 / each**2 for _, each in pairs])
    mean = float((weights * np.array([value for value, _ in pairs])).sum() / weights.sum())
    return max(0.0, mean), float(1 / np.sqrt(weights.sum()))


def relative_error(predicted: np.ndarray, measured: np.ndarray) -> float:
    """The share by which predictions miss measured losses: a robust standard deviation.

    Args:
        predicted: (points,) losses.
        measured: of the same points.
    """
    usable = np.isfinite(measured) & (measured > 0)
    if not usable.any():
        return 1.0
    missed = np.abs(predicted[usable] / measured[usable] - 1)
    return max(LEAST_ERROR, 1.4826 * float(np.median(missed)))


def losses_of_scores(
    predicted: Mapping[str, float],
    error: float,
    lost: Mapping[str, Mapping[str, Degradation]],
    links: Mapping[str, Link],
) -> dict[str, tuple[float, float]]:
    """Loss and standard error of assignments by digest.

    Args:
        predicted: loss of each.
        error: the predictions', as a share.
        lost: digest -> score -> degradation.
        links: by score.
    """
    found = {}
    for digest, loss in predicted.items():
        told = [links[name].loss(one) for name, one in lost[digest].items() if name in links]
        if told:
            found[digest] = weighed(loss, max(error * loss, 1e-12), told)
    return found
