"""Two models of physics whose every operation is rounded: what rounding does without networks.

Source: Climate modelling in low precision, arXiv 2104.15076, which compares long-run distributions
instead of trajectories.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from scipy.stats import wasserstein_distance
from torch import Tensor

from dse.numerics import quantize
from dse.systems.measures.measure import Rows
from dse.systems.measures.tensors import Positive, Size
from hwmodels.formats.catalog import quantizer
from hwmodels.validation import Entry

SIGMA, RHO, BETA = 10.0, 28.0, 8 / 3
"""The parameters of Lorenz (1963), Deterministic Nonperiodic Flow, section 7."""
Rounded = Callable[[Tensor], Tensor]


def rounder(name: str | None, seed: int) -> Rounded:
    """Rounding of results to a format, each with draws of its own; None rounds nothing."""
    if name is None:
        return lambda x: x
    chosen = quantizer(name)
    calls = iter(range(seed << 24, (seed + 1) << 24))
    return lambda x: quantize(x, chosen, axes=(-1,), seed=next(calls))


@dataclass(frozen=True, slots=True, kw_only=True)
class ChaoticFlow(Entry):
    """Wasserstein-1 distances of Lorenz's z between ensembles in narrow formats and in float64.

    Heun's steps; half of the ensembles in float64 are held against the other half: the floor,
    which is what the model varies by itself.
    """

    draws: ClassVar[bool] = True
    formats: Annotated[tuple[str, ...], Field(min_length=1)]
    """Of every result of an operation."""
    members: Size = 1500
    """Of an ensemble."""
    pairs: Size = 5
    """Pairs of ensembles in float64."""
    step: Positive = 0.01
    """Time of a step."""
    spin_up: Size = 600
    """Steps before the first sample."""
    steps: Size = 1900
    """Steps that are sampled."""
    every: Size = 10
    """Steps between samples."""

    def rows(self, seed: int) -> Rows:
        """`floor`, and one distance a format from all ensembles in float64."""
        starts = [self._start(seed * 100 + one) for one in range(2 * self.pairs)]
        wide = [self._samples(one.double(), rounder(None, 0)) for one in starts]
        floors = [
            float(wasserstein_distance(*wide[2 * one : 2 * one + 2])) for one in range(self.pairs)
        ]
        found = {"floor": sum(floors) / len(floors)}
        for name in self.formats:
            own = self._samples(self._start(seed * 100 + 99).float(), rounder(name, seed))
            distances = [float(wasserstein_distance(own, one)) for one in wide]
            found[name] = sum(distances) / len(distances)
        return found

    def _start(self, seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        middle = torch.tensor([[0.0], [1.0], [25.0]])
        return middle + torch.randn(3, self.members, generator=generator)

    def _samples(self, state: Tensor, round_: Rounded) -> Tensor:
        """Values of z at the samples' times, flat."""
        state, found = round_(state), []
        for step in range(self.spin_up + self.steps):
            first = _tendency(state, round_)
            ahead = round_(state + round_(self.step * first))
            second = _tendency(ahead, round_)
            change = round_(self.step / 2 * round_(first + second))
            state = round_(state + change)
            if step >= self.spin_up and (step - self.spin_up) % self.every == 0:
                found.append(state[2])
        return torch.cat(found)


def _tendency(state: Tensor, round_: Rounded) -> Tensor:
    """The time derivative of (x, y, z), shaped (3, members), each operation rounded once."""
    x, y, z = state
    one = round_(torch.stack([y - x, RHO - z, x * y]))
    two = round_(torch.stack([SIGMA * one[0], x * one[1], BETA * z]))
    three = round_(torch.stack([two[1] - y, one[2] - two[2]]))
    return torch.cat([two[:1], three])


@dataclass(frozen=True, slots=True, kw_only=True)
class SlowDiffusion(Entry):
    """Diffusion of heat into a column of soil by small steps: the largest error of a temperature.

    The surface is held 20 K above the rest, whose changes a step soon are below half a unit in the
    last place.
    """

    draws: ClassVar[bool] = True
    formats: Annotated[tuple[str, ...], Field(min_length=1)]
    """Of every result of an operation."""
    cells: Size = 21
    """Of the column."""
    columns: Size = 200
    """Columns beside each other, which differ by what is drawn alone."""
    steps: Size = 20_000
    """Steps in time."""
    coefficient: Positive = 0.002
    """Diffusivity times step over the square of a cell."""
    base: Positive = 273.0
    """Temperature at first, K."""
    warmer: Positive = 20.0
    """Of the surface above it, K."""

    def rows(self, seed: int) -> Rows:
        """Mean over columns of the largest error, K, one a format."""
        exact = self._run(torch.float64, rounder(None, 0), 1)
        return {
            name: float(
                (self._run(torch.float32, rounder(name, seed), self.columns) - exact)
                .abs().amax(1).mean()
            )
            for name in self.formats
        }  # fmt: skip

    def _run(self, dtype: torch.dtype, round_: Rounded, columns: int) -> Tensor:
        """Temperatures after the last step, (columns, cells)."""
        state = torch.full((columns, self.cells), self.base, dtype=dtype)
        state[:, 0] += self.warmer
        for _ in range(self.steps):
            # The deepest cell has a neighbour that is as warm as itself.
            below = torch.cat([state[:, 2:], state[:, -1:]], 1)
            slope = round_(round_(below - state[:, 1:]) + round_(state[:, :-1] - state[:, 1:]))
            state[:, 1:] = round_(state[:, 1:] + round_(self.coefficient * slope))
        return state
