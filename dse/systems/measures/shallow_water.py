"""Turbulent shallow water whose every operation is rounded, beside itself in float64.

The rotating equations in vector-invariant form on a C grid (Arakawa and Lamb, 1977), doubly
periodic, driven by a wind of two jets over a meridional ridge, in units of a cell and of the
water's depth. Source of the comparison: arXiv 2104.15076.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from scipy.stats import wasserstein_distance
from torch import Tensor

from dse.systems.measures.measure import Rows
from dse.systems.measures.physics import Rounded, rounder
from dse.systems.measures.tensors import Size
from hwmodels.validation import Entry

GRAVITY, ROTATION = 4.0, 0.5
"""Waves travel two cells a unit of time; the radius of deformation is four cells."""
WIND, DRAG, VISCOSITY, RIDGE = 0.01, 0.005, 0.01, 0.2
STEP = 0.2
NOISE = 0.01
"""Standard deviation of velocities at first."""
EAST, NORTH = -1, -2
"""Axes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShallowWater(Entry):
    """Wasserstein-1 distances of velocities between ensembles in narrow formats and in float64.

    Ensembles begin from noise of their own. Half of those in float64 are held against the other
    half: the floor, which is what the flow varies by itself.
    """

    draws: ClassVar[bool] = True
    formats: Annotated[tuple[str, ...], Field(min_length=1)]
    """Of every result of an operation."""
    members: Size = 4
    """Of an ensemble."""
    pairs: Size = 3
    """Pairs of ensembles in float64."""
    cells: tuple[Size, Size] = (32, 64)
    """North and east."""
    spin_up: Size = 2500
    """Steps before the first sample."""
    steps: Size = 3000
    """Steps that are sampled."""
    every: Size = 20
    """Steps between samples."""

    def rows(self, seed: int) -> Rows:
        """`floor`, and one mean distance a format from all ensembles in float64.

        `speed`: root mean square of eastward velocities in float64.
        """
        wide = [
            self._samples(self._start(seed * 100 + one), rounder(None, 0))
            for one in range(2 * self.pairs)
        ]
        floors = [_distance(*wide[2 * one : 2 * one + 2]) for one in range(self.pairs)]
        found = {
            "floor": sum(floors) / len(floors),
            "speed": float(torch.cat(wide).square().mean().sqrt()),
        }
        for name in self.formats:
            own = self._samples(self._start(seed * 100 + 99).float(), rounder(name, seed))
            found[name] = sum(_distance(own, one) for one in wide) / len(wide)
        return found

    def _start(self, seed: int) -> Tensor:
        """Eastward and northward velocity and height of the surface, (3, members, cells)."""
        generator = torch.Generator().manual_seed(seed)
        shape = (3, self.members, *self.cells)
        state = NOISE * torch.randn(*shape, generator=generator, dtype=torch.float64)
        state[2] = 0
        return state

    def _samples(self, state: Tensor, round_: Rounded) -> Tensor:
        """Eastward velocities at the samples' times, flat."""
        flow = Flow.over(self.cells, state.dtype, round_)
        state, found = round_(state), []
        for step in range(self.spin_up + self.steps):
            state = flow.advanced(state)
            if step >= self.spin_up and (step - self.spin_up) % self.every == 0:
                found.append(state[0].flatten())
        return torch.cat(found)


def _distance(one: Tensor, other: Tensor) -> float:
    return float(wasserstein_distance(one, other))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Flow:
    """The equations on a grid, each operation rounded once."""

    depth: Tensor
    """Of the water at rest, (east)."""
    wind: Tensor
    """Eastward acceleration, (north, 1)."""
    round_: Rounded

    @classmethod
    def over(cls, cells: tuple[int, int], dtype: torch.dtype, round_: Rounded) -> Flow:
        """The flow over a ridge in the middle, under two jets of wind."""
        north, east = cells
        y = (torch.arange(north, dtype=torch.float64) + 0.5) / north
        x = (torch.arange(east, dtype=torch.float64) - east / 2) / 4
        wind = WIND * torch.sin(4 * math.pi * y)[:, None]
        return cls(
            depth=round_((1 - RIDGE * torch.exp(-(x**2))).to(dtype)),
            wind=round_(wind.to(dtype)),
            round_=round_,
        )

    def advanced(self, state: Tensor) -> Tensor:
        """The state after a step of three stages (Shu and Osher, 1988)."""
        one = self._euler(state)
        two = self._mixed(state, 0.75, self._euler(one), 0.25)
        return self._mixed(state, 1 / 3, self._euler(two), 2 / 3)

    def _euler(self, state: Tensor) -> Tensor:
        return self.round_(state + self.round_(STEP * self.tendency(state)))

    def _mixed(self, one: Tensor, share: float, other: Tensor, rest: float) -> Tensor:
        return self.round_(self.round_(share * one) + self.round_(rest * other))

    def tendency(self, state: Tensor) -> Tensor:
        """The time derivative, shaped as the state."""
        r = self.round_
        flow, surface = state[:2], state[2]
        # Differences of both velocities across the other one's direction make the vorticity.
        turns = r(torch.stack([_next(flow[1], EAST) - flow[1], _next(flow[0], NORTH) - flow[0]]))
        turning = r(ROTATION + r(turns[0] - turns[1]))
        # Both are wanted where the other velocity stands: means of two corners, of four cells.
        corners = r(torch.stack([turning + _last(turning, NORTH), turning + _last(turning, EAST)]))
        pairs = r(torch.stack([flow[1] + _next(flow[1], EAST), flow[0] + _next(flow[0], NORTH)]))
        across = r(
            torch.stack([pairs[0] + _last(pairs[0], NORTH), pairs[1] + _last(pairs[1], EAST)])
        )
        deflected = r(r(corners / 2) * r(across / 4))
        # Bernoulli's function at centres, and its slopes.
        squares = r(flow**2)
        sums = r(
            torch.stack(
                [squares[0] + _last(squares[0], EAST), squares[1] + _last(squares[1], NORTH)]
            )
        )
        head = r(r(GRAVITY * surface) + r(r(sums[0] + sums[1]) / 4))
        slopes = r(torch.stack([_next(head, EAST) - head, _next(head, NORTH) - head]))
        pushed = torch.stack([deflected[0], -deflected[1]])
        driven = r(r(pushed - slopes) + self._friction(flow))
        driven = torch.stack([r(driven[0] + self.wind), driven[1]])
        # What flows out of a cell.
        height = r(self.depth + surface)
        sides = r(torch.stack([height + _next(height, EAST), height + _next(height, NORTH)]))
        carried = r(flow * r(sides / 2))
        out = r(
            torch.stack(
                [carried[0] - _last(carried[0], EAST), carried[1] - _last(carried[1], NORTH)]
            )
        )
        return torch.cat([driven, -r(out[0] + out[1])[None]])

    def _friction(self, flow: Tensor) -> Tensor:
        """Drag of the ground and viscosity."""
        r = self.round_
        east = r(_next(flow, EAST) + _last(flow, EAST))
        north = r(_next(flow, NORTH) + _last(flow, NORTH))
        bent = r(r(east + north) - r(4 * flow))
        return r(r(VISCOSITY * bent) - r(DRAG * flow))


def _next(x: Tensor, axis: int) -> Tensor:
    """Values of the neighbours to the east or north."""
    return torch.roll(x, -1, axis)


def _last(x: Tensor, axis: int) -> Tensor:
    """Values of the neighbours to the west or south."""
    return torch.roll(x, 1, axis)
