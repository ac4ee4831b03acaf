"""A mapping: what is unrolled, the tile at each level, the order of the loops between levels."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from hwmodels.estimators.array.nest import Floats
from hwmodels.estimators.array.timing import fold_cycles
from hwmodels.estimators.array.traffic import MULTIPLIER, Crossing, Placed
from hwmodels.tensors import TENSORS, TensorName

Order = tuple[TensorName, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mapping:
    """Tiles and orders of a placed nest, nearest to the array first."""

    tiles: tuple[tuple[float, ...], ...]
    """Steps of each loop below each stage but main memory, in the order of `LOOPS`."""
    orders: tuple[Order, ...]
    """Of the loops below each stage, main memory's last: tensors whose reuse loops are there,
    innermost first (`traffic.ORDERS`)."""


@dataclass(frozen=True, kw_only=True)
class Partial:
    """Tilings whose outer levels are decided; n of them side by side."""

    tile: Floats
    """(n, 8): below the last cut that is decided."""
    counts: Floats
    """(n, 8): above it."""
    runs: Floats
    """(n, 3): stationary runs at it."""
    energy_j: Floats
    """(n,): of what crossed so far."""
    level_bytes: Floats
    """(n, levels): read and written so far, over all instances."""
    exposed: Floats
    """(n,): cycles of fills that the array waits for."""
    ramp: Floats
    """(n,): cycles of the first and last tiles."""
    folds: Floats
    """(n,): times that the places of a systolic array take another element of the tensor that
    stays in them; 0 before the multipliers' order is decided."""
    crossings: tuple[Crossing, ...] = field(default=(), repr=False)

    @classmethod
    def start(cls, placed: Placed) -> Partial:
        """The nest in main memory: nothing is decided."""
        levels = len(placed.hierarchy.levels)
        return cls(
            tile=placed.sizes[None, :],
            counts=np.ones((1, len(placed.sizes))),
            runs=np.ones((1, len(TENSORS))),
            energy_j=np.zeros(1),
            level_bytes=np.zeros((1, levels)),
            exposed=np.zeros(1),
            ramp=np.zeros(1),
            folds=np.zeros(1),
        )

    def row(self, index: int) -> Partial:
        """One of the tilings."""
        one = slice(index, index + 1)
        return Partial(
            tile=self.tile[one], counts=self.counts[one], runs=self.runs[one],
            energy_j=self.energy_j[one], level_bytes=self.level_bytes[one],
            exposed=self.exposed[one], ramp=self.ramp[one], folds=self.folds[one],
        )  # fmt: skip


def decided(placed: Placed, mapping: Mapping) -> tuple[Partial, list[Crossing]]:
    """A mapping's cost, and what crosses all of its cuts."""
    found = Partial.start(placed)
    crossings: list[Crossing] = []
    cuts = [*range(len(mapping.tiles)), MULTIPLIER]
    for cut in sorted(cuts, reverse=True):
        tile = placed.unrolling.tile if cut == MULTIPLIER else np.array(mapping.tiles[cut])
        found = below(placed, found, cut, tile[None, :], mapping.orders[cut + 1])
        crossings += found.crossings
    return found, crossings


def below(placed: Placed, outer: Partial, cut: int, tiles: Floats, order: Order) -> Partial:
    """Tilings under one partial tiling: tiles (n, 8) below the next cut, in one order.

    outer: one tiling, decided down to the cut above.
    """
    hierarchy = placed.hierarchy
    segment = np.ceil(outer.tile / tiles - 1e-9)
    counts = outer.counts * segment
    runs = placed.runs(segment, order, outer.runs[0])
    found = placed.crossings(cut, tiles, counts, runs)
    energy = np.repeat(outer.energy_j, len(tiles))
    level_bytes = np.repeat(outer.level_bytes, len(tiles), axis=0)
    exposed = np.repeat(outer.exposed, len(tiles))
    ramp = np.repeat(outer.ramp, len(tiles))
    for one in found:
        level = hierarchy.levels[one.level]
        energy = energy + one.read * level.read_j + one.written * level.write_j
        level_bytes[:, one.level] += one.read + one.written
        if cut != MULTIPLIER and one.level in hierarchy.stages[cut]:
            moved = (one.read + one.written) / placed.instances[one.level] / level.bytes_per_cycle
            exposed = exposed + (0.0 if level.double_buffered else moved)
        elif cut != MULTIPLIER and one.level == len(hierarchy.levels) - 1:
            ramp = ramp + _first(placed, one, tiles, counts)
    folds = np.repeat(outer.folds, len(tiles))
    if hierarchy.stationary is not None and cut == MULTIPLIER:
        place = TENSORS.index(hierarchy.stationary)
        folds = counts.prod(axis=1) / runs[:, place]
    return Partial(
        tile=tiles, counts=counts, runs=runs, energy_j=energy, level_bytes=level_bytes,
        exposed=exposed, ramp=ramp, folds=folds, crossings=tuple(found),
    )  # fmt: skip


def _first(placed: Placed, crossing: Crossing, tiles: Floats, counts: Floats) -> Floats:
    """Cycles of a tensor's first tile (the output's last one) between main memory and the chip."""
    nest, main = placed.nest, placed.hierarchy.levels[-1]
    tile = nest.footprint(crossing.tensor, tiles) * nest.element_bytes(crossing.tensor)
    tile = np.minimum(tile, crossing.read + crossing.written)
    return tile / main.bytes_per_cycle


def cycles_of(placed: Placed, found: Partial) -> tuple[Floats, Floats]:
    """Cycles of tilings that are decided down to the array: (all, those without stalls)."""
    compute = multiplying(placed, found)
    slowest = moving(placed, found.level_bytes)
    return np.maximum(compute + found.exposed, slowest) + found.ramp, compute


def multiplying(placed: Placed, found: Partial) -> Floats:
    """Cycles of computing as far as tilings are decided, filling and draining with it."""
    steps = (found.counts * np.ceil(found.tile / placed.unrolling.tile - 1e-9)).prod(axis=1)
    cycles = steps / placed.throughput
    known = found.folds > 0
    filling = fold_cycles(placed.hierarchy, np.where(known, found.folds, 1.0), cycles)
    return cycles + np.where(known, filling, 0.0)  # type: ignore[no-any-return]


def moving(placed: Placed, level_bytes: Floats) -> Floats:
    """Cycles of the level that takes longest to move its bytes: (n, levels) to (n,)."""
    rates = np.array([level.bytes_per_cycle for level in placed.hierarchy.levels])
    cycles = level_bytes / (rates * np.array(placed.instances))
    return cycles.max(axis=1)  # type: ignore[no-any-return]
