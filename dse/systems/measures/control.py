"""Functions between products under methods of training, and control that is learned by trial."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from dse.systems.measures.measure import Rows
from dse.systems.measures.methods import MethodGiven, given_method
from dse.systems.measures.tensors import Positive, Size
from dse.training.control.actor_critic import ActorCritic, Learned, Settings
from dse.training.functions import normal_log_density, softplus
from dse.training.quantized import NUMBERS, Quantized
from dse.training.stability import interval_of_mean
from hwmodels.validation import Entry

Methods = Annotated[Mapping[str, MethodGiven], Field(min_length=1)]


class _Densities(nn.Module):
    """Both functions of a squashed normal distribution, as a policy calls them."""

    def forward(self, x: Tensor, distance: Tensor, deviation: Tensor) -> tuple[Tensor, Tensor]:
        """Softplus and the density's logarithm; shaped as `x` and `distance`."""
        return softplus(x), normal_log_density(distance, torch.zeros_like(distance), deviation)


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionForms(Entry):
    """Functions of a method beside those in float64."""

    draws: ClassVar[bool] = False
    methods: Methods
    """By name; what they say of functions counts."""
    arguments: Annotated[tuple[float, ...], Field(min_length=1)]
    """Of softplus."""
    deviation: Positive
    """Of a normal density, at distances of as much."""

    def rows(self, seed: int) -> Rows:
        """Of both functions, `softplus` and `normal`, under each method.

        `<method> <function> lost`: numbers among values and derivatives that are not finite;
        `error`: largest distance of the others' values from float64.
        """
        del seed
        x = torch.tensor(self.arguments, dtype=torch.float64)
        at = torch.full((1,), self.deviation, dtype=torch.float64)
        exact = (torch.nn.functional.softplus(x), -0.5 - at.log() - math.log(2 * math.pi) / 2)
        found: dict[str, float] = {}
        for name, given in self.methods.items():
            method = given_method(given)
            number = (
                torch.float32 if method.functions is None else NUMBERS[method.functions.format]
            )
            inputs = [one.to(number).requires_grad_() for one in (x, at.clone())]
            values = Quantized(_Densities(), method)(*inputs, at.to(number))
            slopes = torch.autograd.grad([one.sum() for one in values], inputs)
            for what, value, slope, wanted in zip(
                ("softplus", "normal"), values, slopes, exact, strict=True
            ):
                whole = torch.isfinite(value) & torch.isfinite(slope)
                error = (value.detach().double() - wanted).abs()[whole]
                found[f"{name} {what} lost"] = float((~whole).sum())
                found[f"{name} {what} error"] = float(error.max()) if len(error) else 0.0
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class SwungUp(Entry):
    """Pendulums that soft actor-critic learns to swing up under several methods."""

    draws: ClassVar[bool] = True
    methods: Methods
    """By name; the first one is what others are held against."""
    updates: Size = 3000
    """Of a run."""
    runs: Annotated[int, Field(ge=2)] = 3
    """Pairs of runs."""

    def rows(self, seed: int) -> Rows:
        """Of each method numbers over its runs.

        `reward` is the mean of a step, in [-1, 0], of what did not fail; `failed` counts runs in
        which a weight was no number; `gap`, `gap low` and `gap high` (95 %) are of the reward
        over that of the first method, of pairs that both ended.
        """
        seeds = range(seed * self.runs, (seed + 1) * self.runs)
        first: list[Learned] = []
        found: dict[str, float] = {}
        for name, given in self.methods.items():
            ended = [self._learned(given, one) for one in seeds]
            first = first or ended
            kept = [one.reward for one in ended if one.failed_at is None]
            pairs = [
                one.reward - other.reward
                for one, other in zip(ended, first, strict=True)
                if one.failed_at is None and other.failed_at is None
            ]
            interval = interval_of_mean(pairs)
            found |= {
                f"{name} reward": fmean(kept) if kept else math.nan,
                f"{name} failed": float(len(ended) - len(kept)),
                f"{name} gap": fmean(pairs) if pairs else math.nan,
                f"{name} gap low": interval.low if interval else math.nan,
                f"{name} gap high": interval.high if interval else math.nan,
            }
        return found

    def _learned(self, given: MethodGiven, seed: int) -> Learned:
        run = ActorCritic(given_method(given), seed, Settings(updates=self.updates))
        while not run.done:
            run.advance()
        return run.outcome()
