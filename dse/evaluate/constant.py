"""Loss of a network that gives the same answer to every input: the measure of ruin."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from dse.evaluate.reference import DistributionReference, RegressionReference, set_spread
from dse.evaluate.ruin import ConstantAnswer

Reference = DistributionReference | RegressionReference


def constant_answer(batches: Sequence[Sequence[Reference]]) -> ConstantAnswer:
    """The loss of the best constant answer, and the share of answers that it changes.

    That is the mean distribution, or the mean sample where there is no distribution.

    Args:
        batches: the references of each batch, one an output.
    """
    losses, flips, weights = [], [], []
    for column in zip(*batches, strict=True):
        loss, flipped = _of_output(column)
        losses.append(loss)
        flips.append(flipped)
        weights.append(column[0].output.weight)
    return ConstantAnswer(loss=_mean(losses, weights), flip_rate=_mean(flips, weights))


def _of_output(column: Sequence[Reference]) -> tuple[float, float]:
    distributions = [one for one in column if isinstance(one, DistributionReference)]
    if distributions:
        return _of_distribution(distributions)
    return set_spread([one for one in column if isinstance(one, RegressionReference)])[1], math.nan


def _of_distribution(column: Sequence[DistributionReference]) -> tuple[float, float]:
    classes = max(one.probabilities.shape[-1] for one in column)
    total = torch.zeros(classes, dtype=torch.float64)
    votes = torch.zeros(classes, dtype=torch.int64)
    for one in column:
        positions = _positions(one, one.probabilities)
        total[: positions.shape[1]] += positions.sum(dim=0, dtype=torch.float64).cpu()
        tops = one.top if one.kept is None else one.top[one.kept]
        votes += torch.bincount(tops.flatten().cpu(), minlength=classes)
    log_mean = (total / total.sum()).log()
    losses = torch.cat(
        [one.divergence_of(log_mean.to(one.probabilities)) for one in column]
    ).double()
    flips = 1 - float(votes.max() / votes.sum().clamp_min(1))
    return float(losses[~losses.isnan()].mean()), flips


def _positions(reference: DistributionReference, values: Tensor) -> Tensor:
    """(positions that count, classes)."""
    if reference.kept is None:
        return values.flatten(0, -2)
    return values[reference.kept]


def _mean(values: Sequence[float], weights: Sequence[float]) -> float:
    pairs = [(v, w) for v, w in zip(values, weights, strict=True) if not math.isnan(v)]
    whole = sum(weight for _, weight in pairs)
    return sum(value * weight for value, weight in pairs) / whole if whole else math.nan
