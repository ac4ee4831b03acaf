"""Percentiles of values that stand for more than themselves."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from dse.numerics.grids.errors import StateError

VAGUEST_RANK = 0.5
"""Most standard deviations of a rank, in units of the rank: where four values of a sample lie
beyond a percentile, more or fewer could."""


def upper_rank(kept: float, count: int) -> int:
    """The place from the largest (1) on of the value that a share `kept` is not above."""
    return count - max(math.ceil(kept * count), 1) + 1


def lower_rank(kept: float, count: int) -> int:
    """The same place at the other end, from the smallest (1) on."""
    return min(math.floor((1 - kept) * count) + 1, count)


def largest(values: Tensor, counts: Tensor, rank: int) -> Tensor:
    """The value of a rank from the largest on.

    Exact as long as all values down to it stand for themselves alone.

    Args:
        values: (n,).
        counts: (n,) float64, how many values each stands for, 1 or more.
        rank: From 1 on.

    Raises:
        StateError: Values that stand for many others are too few there to tell.
    """
    order = torch.argsort(values, descending=True, stable=True)
    ordered = counts[order]
    place = int(torch.searchsorted(ordered.cumsum(0), float(rank)))
    place = min(place, len(ordered) - 1)
    passed = ordered[: place + 1]
    deviation = math.sqrt(float((passed * (passed - 1)).sum()))
    if deviation > VAGUEST_RANK * rank:
        exact = int((passed.cumsum(0) == torch.arange(1, place + 2)).sum())
        known = int(counts.sum().round())
        raise StateError(
            f"value {rank} from the end of {known} is not known: calibration keeps the first "
            f"{exact} of an end and a sample of the others, of which each stands for "
            f"{float(passed.max()):.0f}; ask for a lower percentile, which the sample tells, or a "
            "higher one, or calibrate on fewer data"
        )
    return values[order[place]]
