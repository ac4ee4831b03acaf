"""Numbers that say how stable a training was, and intervals of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import stats
from torch import Tensor

SHARPNESS_EPSILON = 5e-4
"""Half width of the box around each logit, relative to its magnitude plus 1 (Keskar et al., arXiv
1609.04836, section 2.2.2)."""
SPIKE_SIGMAS, SPIKE_WINDOW, SPIKE_LEAST = 7.0, 1000, 20
"""A spike is this far above the mean of the last steps (arXiv 2405.18710, section 3); fewer steps
than the third number have no spread that counts."""
CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A mean and the bounds of its interval."""

    mean: float
    low: float
    high: float

    @property
    def holds_zero(self) -> bool:
        """Whether nothing can be said of the sign."""
        return not (self.low > 0 or self.high < 0)


def sharpness(logits: Tensor, labels: Tensor, *, epsilon: float = SHARPNESS_EPSILON) -> Tensor:
    """The rise of the loss, in percent, when every logit moves by epsilon of its magnitude.

    100 (max f(x + z) - f(x)) / (1 + f(x)) over |z_i| <= epsilon (|x_i| + 1), f the cross entropy.
    f rises in every logit but the label's and falls in that, so that the maximum is a corner of
    the box: no search is needed.

    Args:
        logits: (samples, classes).
        labels: (samples).
        epsilon: Half width of the box.

    Returns:
        (samples), float64.

    Source: the metric of arXiv 2405.18710, section 3.3, there maximised by L-BFGS-B.
    """
    x = logits.double()
    room = epsilon * (x.abs() + 1)
    is_label = torch.nn.functional.one_hot(labels, x.shape[1]).bool()
    corner = torch.where(is_label, x - room, x + room)
    before, after = (
        torch.nn.functional.cross_entropy(one, labels, reduction="none") for one in (x, corner)
    )
    return 100 * (after - before) / (1 + before)


def certified(reference: Tensor, other: Tensor) -> Tensor:
    """Whether two models must agree on the class: the gap of outputs is twice their distance.

    The gap is that of the reference's two largest outputs, the distance the largest difference of
    any output: what is less than half of the gap cannot bring another class to the front.

    Args:
        reference: Outputs (samples, classes).
        other: Outputs of the other model.

    Returns:
        (samples), bool.

    Source: the lemma of arXiv 2305.10947, section 3.
    """
    first, second = reference.topk(2, -1).values.unbind(-1)
    return first - second >= 2 * (reference - other).abs().amax(-1)


def spikes(series: Sequence[float]) -> list[int]:
    """Places that are more than seven standard deviations above the mean of the steps before."""
    values = np.asarray(series, dtype=np.float64)
    found = []
    for index in range(SPIKE_LEAST, len(values)):
        past = values[max(0, index - SPIKE_WINDOW) : index]
        spread = float(past.std())
        if spread > 0 and values[index] > past.mean() + SPIKE_SIGMAS * spread:
            found.append(index)
    return found


def interval_of_mean(values: Sequence[float]) -> Interval | None:
    """Mean with its interval by Student's t; None of fewer than two values."""
    if len(values) < 2:
        return None
    mean = float(np.mean(values))
    error = float(np.std(values, ddof=1)) / math.sqrt(len(values))
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1)) * error
    return Interval(mean=mean, low=mean - half, high=mean + half)


def interval_of_share(count: int, total: int) -> Interval:
    """Share with Wilson's interval, which is not empty where none or all are counted."""
    if not total:
        return Interval(mean=math.nan, low=0.0, high=1.0)
    found = stats.binomtest(count, total).proportion_ci(CONFIDENCE, method="wilson")
    return Interval(mean=count / total, low=float(found.low), high=float(found.high))


def seeds_needed(differences: Sequence[float], resolved: float) -> int | None:
    """Seeds whose paired differences would tell `resolved` from zero; None of fewer than two.

    The count at which half of the interval is as wide as the difference, at the spread of these.
    """
    if len(differences) < 2 or resolved <= 0:
        return None
    spread = float(np.std(differences, ddof=1))
    count = 2
    while (
        float(stats.t.ppf((1 + CONFIDENCE) / 2, count - 1)) * spread / math.sqrt(count) > resolved
    ):
        count = max(count + 1, math.ceil(count * 1.05))
    return count
