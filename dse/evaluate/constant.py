"""Loss of a network that gives the same answer to every input: the measure of ruin."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, TypeVar

import torch
from torch import Tensor
from torch.nn.functional import pad

from dse.evaluate.reference import DistributionReference, RegressionReference, set_spread
from dse.evaluate.ruin import ConstantAnswer

Reference = DistributionReference | RegressionReference
Kind = TypeVar("Kind", DistributionReference, RegressionReference)


class Referring(Protocol):
    """A batch, whose references may be made anew whenever they are asked for."""

    @property
    def references(self) -> Sequence[Reference]:
        """One an output."""


def constant_answer(batches: Sequence[Referring]) -> ConstantAnswer:
    """The loss of the best constant answer, and the share of answers that it changes.

    That is the mean distribution, or the mean sample where there is no distribution.
    """
    losses, flips, weights = [], [], []
    for place, first in enumerate(batches[0].references):
        loss, flipped = _of_output(batches, place)
        losses.append(loss)
        flips.append(flipped)
        weights.append(first.output.weight)
    return ConstantAnswer(loss=_mean(losses, weights), flip_rate=_mean(flips, weights))


def _of_output(batches: Sequence[Referring], place: int) -> tuple[float, float]:
    if isinstance(batches[0].references[place], DistributionReference):
        return _of_distribution(lambda: _column(batches, place, DistributionReference))
    return set_spread(list(_column(batches, place, RegressionReference)))[1], math.nan


def _column(batches: Sequence[Referring], place: int, kind: type[Kind]) -> Iterator[Kind]:
    """One output's references, one batch after the other."""
    found = (batch.references[place] for batch in batches)
    return (one for one in found if isinstance(one, kind))


def _of_distribution(column: Callable[[], Iterator[DistributionReference]]) -> tuple[float, float]:
    mass = votes = torch.zeros(0)
    for one in column():
        mass = _added(mass, one.mass)
        tops = one.top if one.kept is None else one.top[one.kept]
        votes = _added(votes, torch.bincount(tops.flatten().cpu(), minlength=one.classes))
    log_mean = (mass / mass.sum()).log()
    losses = torch.cat(
        [one.divergence_of(log_mean.to(one.log_probabilities)) for one in column()]
    ).double()
    flips = 1 - float(votes.max() / votes.sum().clamp_min(1))
    return float(losses[~losses.isnan()].mean()), flips


def _added(first: Tensor, second: Tensor) -> Tensor:
    """The sum of two vectors, the shorter one with zeros behind it."""
    size = max(len(first), len(second))
    return pad(first, (0, size - len(first))) + pad(second, (0, size - len(second)))


def _mean(values: Sequence[float], weights: Sequence[float]) -> float:
    pairs = [(v, w) for v, w in zip(values, weights, strict=True) if not math.isnan(v)]
    whole = sum(weight for _, weight in pairs)
    return sum(value * weight for value, weight in pairs) / whole if whole else math.nan
