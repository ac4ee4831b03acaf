"""The best mapping of a nest: tilings and orders level by level, pruned by bounds.

From main memory to the array, every tile on a grid (`tilings`) and every order of the reuse loops
between two levels. A partial mapping's bound is the cost of what it decided plus the least that
the rest can cost (`bound`). What is not better than the best mapping so far is not looked at;
where the number of looks ends first, the gap to the least bound left is stated.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field, replace

import numpy as np

from hwmodels.devices.spatial import LOOPS, Goal
from hwmodels.errors import WorkError
from hwmodels.estimators.array.bound import Rest
from hwmodels.estimators.array.mapping import Mapping, Partial, below
from hwmodels.estimators.array.nest import RELEVANT, Floats
from hwmodels.estimators.array.timing import elapsed, multiplying
from hwmodels.estimators.array.traffic import MULTIPLIER, ORDERS, RELEVANT_INDICES, Order, Placed
from hwmodels.tensors import TENSORS

MOST_TILES = 1024
"""Tiles of one level that are compared at once."""
ZOOMS = 3
"""Finer grids around the best mapping so far, at most."""
ENOUGH = 0.01
"""Share that a finer grid must gain to be followed by another."""
MOST_LOOKS = 48
"""Partial mappings whose inner levels are looked at."""
MOST_PARTS = 4096
"""Steps of a loop up to which every way to part it counts; beyond, powers of two do."""
MOST_CHILDREN = 24
"""Tilings of one level that are followed, the most promising ones."""
SINGLE = 1e-6
"""Weight of energy where latency is the goal, and the other way round: ties."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A mapping, and how far from the best one on the grid it can be."""

    mapping: Mapping
    goal: float
    """Of the mapping, in the units of the search's goal."""
    gap: float


def search(placed: Placed, goal: Goal, *, base_j: float = 0.0, idle_j: float = 0.0) -> Found:
    """The best mapping of a placed nest.

    Args:
        placed: the nest on its hierarchy.
        goal: what is least: cycles, joules, or their product.
        base_j: joules that every mapping takes (multiplying).
        idle_j: joules a cycle.

    Raises:
        WorkError: A level that cannot hold the smallest tile.
    """
    return _Search(placed=placed, goal=goal, base_j=base_j, idle_j=idle_j).found()


@dataclass(kw_only=True)
class _Search:
    placed: Placed
    goal: Goal
    base_j: float
    idle_j: float
    best: float = math.inf
    mapping: Mapping | None = None
    left: float = math.inf
    looks: int = 0
    rest: Rest = field(init=False)
    grid: dict[int, Floats] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.rest = Rest.of_nest(self.placed)

    def found(self) -> Found:
        stages = len(self.placed.hierarchy.stages)
        for stage in range(stages - 1):
            self.grid[stage] = tilings(self.placed, stage)
        self._descend(Partial.start(self.placed), stages - 2, (), ())
        if self.mapping is None:
            raise WorkError(_too_small(self.placed))
        for _ in range(ZOOMS):
            before, tiles = self.best, self.mapping.tiles
            for stage, tile in enumerate(tiles):
                self.grid[stage] = tilings(self.placed, stage, around=np.array(tile))
            self.looks = 0
            self._descend(Partial.start(self.placed), stages - 2, (), ())
            if self.best >= before * (1 - ENOUGH):
                break
        gap = max(self.best / min(self.left, self.best) - 1.0, 0.0)
        return Found(mapping=self.mapping, goal=self.best, gap=gap)

    def _descend(
        self,
        outer: Partial,
        cut: int,
        tiles: tuple[tuple[float, ...], ...],
        orders: tuple[Order, ...],
    ) -> None:
        self.looks += 1
        candidates = self._candidates(outer, cut)
        if not len(candidates):
            return
        partial = below(self.placed, outer, cut, candidates, ORDERS)
        bounds = self._score(partial, cut)
        ranked = np.argsort(bounds, kind="stable")
        if cut == MULTIPLIER:
            ranked = ranked[:1]
        for place, index in enumerate(ranked):
            if bounds[index] >= self.best * (1 - 1e-12):
                return
            order, row = divmod(int(index), len(candidates))
            now = (*orders, ORDERS[order])
            if cut == MULTIPLIER:
                self.best = float(bounds[index])
                self.mapping = Mapping(tiles=tiles[::-1], orders=now[::-1])
                return
            if place >= MOST_CHILDREN or (self.looks >= MOST_LOOKS and self.mapping):
                self.left = min(self.left, float(bounds[index]))
                return
            chosen = tuple(float(size) for size in candidates[row])
            self._descend(partial.row(int(index)), cut - 1, (*tiles, chosen), now)

    def _candidates(self, outer: Partial, cut: int) -> Floats:
        if cut == MULTIPLIER:
            return self.placed.unrolling.tile[None, :]
        grid = self.grid[cut]
        inside = grid[(grid <= outer.tile[0] + 1e-9).all(axis=1)]
        counts = outer.counts * np.ceil(outer.tile / inside - 1e-9)
        fitting: Floats = inside[self.placed.fits(cut, inside, counts)]
        return fitting

    def _score(self, partial: Partial, cut: int) -> Floats:
        """Goal of tilings, or its bound where inner cuts are open."""
        more_j, more_bytes = self.rest.of(partial, cut)
        partial = replace(
            partial,
            folds=self._least_folds(partial),
            level_bytes=partial.level_bytes + more_bytes,
        )
        busy = multiplying(self.placed, partial) + partial.exposed
        settled = cut <= self.placed.lowest_home_cut
        cycles = elapsed(self.placed, partial, busy, settled=settled)
        energy = partial.energy_j + more_j + self.base_j + self.idle_j * cycles
        if self.goal == "latency":
            return cycles * (1 + SINGLE * energy / (1 + energy))
        if self.goal == "energy":
            return energy * (1 + SINGLE * cycles / (1 + cycles))
        return energy * cycles if energy.any() else cycles

    def _least_folds(self, partial: Partial) -> Floats:
        """Folds that are decided, or that the counts above the open cuts make at least."""
        stationary = self.placed.hierarchy.stationary
        if stationary is None:
            return partial.folds
        held = self.placed.can_hold(stationary, MULTIPLIER, partial.tile, partial.counts)
        runs = np.where(held, partial.runs[:, TENSORS.index(stationary)], 1.0)
        steps = (partial.tile / self.placed.unrolling.tile)[:, RELEVANT_INDICES[stationary]]
        least = partial.counts.prod(axis=1) / runs * steps.prod(axis=1)
        return np.where(partial.folds > 0, partial.folds, np.maximum(least, 1.0))


def tilings(placed: Placed, stage: int, around: Floats | None = None) -> Floats:
    """Tiles of a stage that are compared, (n, 8): multiples of what is unrolled.

    Loops that nothing in the stage or below depends on have no steps in it. `around` a tile (8,)
    the grid is finer: half to twice its steps, and one and all of them.
    """
    hierarchy, tile = placed.hierarchy, placed.unrolling.tile
    members = [index for one in hierarchy.stages[: stage + 1] for index in one]
    held = {tensor for index in members for tensor in hierarchy.levels[index].holds}
    free = [
        index
        for index, loop in enumerate(LOOPS)
        if placed.sizes[index] > tile[index] and any(loop in RELEVANT[tensor] for tensor in held)
    ]
    taps = [index for index in free if LOOPS[index] in ("FY", "FX")]
    others = len(free) - len(taps)
    each = math.floor((MOST_TILES / 2 ** len(taps)) ** (1 / others)) if others else 2
    axes = [
        _steps(
            placed.sizes[index] / tile[index],
            2 if index in taps else max(each, 3),
            None if around is None or index in taps else around[index] / tile[index],
        )
        * tile[index]
        if index in free
        else np.array([tile[index]])
        for index in range(len(LOOPS))
    ]
    return np.array(list(itertools.product(*axes)), dtype=float)


def _steps(count: float, most: int, around: float | None = None) -> Floats:
    """Numbers of steps of a tile that divide `count` without waste, at most so many and two.

    One step and all of them are always among them; the others are spread evenly by their logs,
    over all or from half to twice a number.
    """
    total = round(count)
    useful = sorted(
        {math.ceil(total / parts) for parts in range(1, total + 1)}
        if total <= MOST_PARTS
        else {math.ceil(total / 2**power) for power in range(total.bit_length())}
    )
    pool = np.array(useful, dtype=float)
    low, high = 1.0, float(total)
    if around is not None:
        low, high = max(around / 2, 1.0), min(around * 2, float(total))
        pool = pool[(pool >= low) & (pool <= high)]
    if len(pool) > most:
        exact = pool[total % pool == 0]
        pool = exact if around is None and len(exact) >= most else pool
        wanted = np.geomspace(low, high, most)
        pool = pool[np.abs(np.log(pool[None, :] / wanted[:, None])).argmin(axis=1)]
    kept = [] if around is None else [around]
    return np.unique(np.concatenate([pool, kept, [1.0, float(total)]]))


def _too_small(placed: Placed) -> str:
    hierarchy = placed.hierarchy
    tile = placed.unrolling.tile[None, :]
    counts = np.ceil(placed.sizes / tile)
    for index, members in enumerate(hierarchy.stages[:-1]):
        if not placed.fits(index, tile, counts)[0]:
            names = " and ".join(
                f"{hierarchy.levels[one].name} of {hierarchy.levels[one].capacity_bytes:g} B"
                for one in members
            )
            return (
                f"{hierarchy.name}: memories: {names} cannot hold one tile of the loops that are "
                "unrolled on the array; give more capacity, `double_buffered: false`, or fewer "
                "tensors (`holds`)"
            )
    return f"{hierarchy.name}: memories: no tiling of the nest fits all levels at once"
