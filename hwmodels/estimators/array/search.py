"""The best mapping of a nest: tilings and orders level by level, pruned by bounds.

From main memory to the array, every tile on a grid (`steps`) and every order of the reuse loops
between two levels. A partial mapping's bound is the cost of what it decided plus the least that
the rest can cost (`descent`). What is not better than the best mapping so far is not looked at.
Then finer grids around the best mapping are looked through, and all of it again on grids of more
tiles. How far the mapping found can be from the best one of all is stated (`boxes`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hwmodels.devices.spatial import Goal
from hwmodels.estimators.array.bound import EDP, ENERGY, LATENCY
from hwmodels.estimators.array.descent import best_mappings, priced_mappings
from hwmodels.estimators.array.mapping import Mapping
from hwmodels.estimators.array.nest import Floats
from hwmodels.estimators.array.problem import Figures, Indices
from hwmodels.estimators.array.records import EFFORT, Effort, Room, Shape
from hwmodels.estimators.array.traffic import ORDERS

GOALS: dict[Goal, int] = {"latency": LATENCY, "energy": ENERGY, "edp": EDP}


@dataclass(frozen=True, kw_only=True)
class Found:
    """Mappings of a nest on n devices, and how far from the best of one unrolling each can be."""

    goals: Floats
    """(n,) in the units of the search's goal; infinite where no mapping fits."""
    gaps: Floats
    """(n,)"""
    tiles: Floats
    """(n, stages - 1, 8)"""
    orders: Indices
    """(n, stages) indices into `ORDERS`."""

    @property
    def least(self) -> Floats:
        """(n,) goals that no mapping is below; infinite where none fits."""
        return np.divide(
            self.goals, 1 + self.gaps, out=np.full_like(self.goals, np.inf),
            where=np.isfinite(self.goals),
        )  # fmt: skip

    def mapping(self, device: int) -> Mapping:
        """The mapping on one of the devices."""
        return Mapping(
            tiles=tuple(tuple(map(float, tile)) for tile in self.tiles[device]),
            orders=tuple(ORDERS[order] for order in self.orders[device]),
        )


def search(shape: Shape, figures: Figures, goal: Goal, effort: Effort = EFFORT) -> Found:
    """The best mapping of a nest on each of n devices that differ in figures alone.

    goal: what is least: cycles, joules, or their product.
    """
    count, stages = len(figures.base_j), int(shape["stages"][0])
    found = Found(
        goals=np.empty(count),
        gaps=np.empty(count),
        tiles=np.ones((count, stages - 1, 8)),
        orders=np.zeros((count, stages), dtype=np.int64),
    )
    best_mappings(
        shape, figures, GOALS[goal], effort, Room.of(stages), found.goals, found.gaps, found.tiles,
        found.orders,
    )  # fmt: skip
    return found


def priced(
    shape: Shape, figures: Figures, tiles: Floats, orders: Indices
) -> tuple[Floats, Floats, Floats]:
    """The costs of mappings, one on each of n devices.

    Returns bytes that are read and written, (n, levels, 3), and cycles, (n, 3): all, those
    without stalls, those of the level that moves longest.
    """
    count, levels = len(tiles), int(shape["levels"][0])
    read, written, cycles = (
        np.zeros((count, levels, 3)), np.zeros((count, levels, 3)), np.zeros((count, 3)),
    )  # fmt: skip
    room = Room.of(int(shape["stages"][0]))
    priced_mappings(shape, figures, room, tiles, orders, read, written, cycles)
    return read, written, cycles
