"""A mapping: what is unrolled, the tile at each level, the order of the loops between levels."""

from __future__ import annotations

from collections.abc import Mapping as ByTensor
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from hwmodels.estimators.array.nest import Floats
from hwmodels.estimators.array.traffic import MULTIPLIER, Crossing, Order, Placed
from hwmodels.tensors import TENSORS, TensorName


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
    level_read: Floats
    """(n, levels): read so far."""
    exposed: Floats
    """(n,): cycles of fills that the array waits for."""
    fill: Floats
    """(n, levels): cycles in which a level delivers the first tiles."""
    drain: Floats
    """(n, levels): cycles in which the last tile of the output is written."""
    rounds: Floats
    """(n, levels): tiles that a level delivers one after another; infinite inside of the chip."""
    folds: Floats
    """(n,): times that the places of a systolic array take another element of the tensor that
    stays in them; 0 before the multipliers' order is decided."""
    load: Floats
    """(n, 3): cycles in which a tile of a tensor comes that does not fit twice where it waits for
    room; 0 where nothing is open."""
    again: Floats
    """(n, 3): tiles that come so after the first one."""
    window: Floats
    """(n, 3): cycles of the last pass over such a tile, as far as passes are decided."""
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
            level_read=np.zeros((1, levels)),
            exposed=np.zeros(1),
            fill=np.zeros((1, levels)),
            drain=np.zeros((1, levels)),
            rounds=np.full((1, levels), np.inf),
            folds=np.zeros(1),
            load=np.zeros((1, len(TENSORS))),
            again=np.zeros((1, len(TENSORS))),
            window=np.zeros((1, len(TENSORS))),
        )

    def row(self, index: int) -> Partial:
        """One of the tilings."""
        return self._taken(slice(index, index + 1))

    def repeated(self, count: int) -> Partial:
        """One tiling so many times."""
        return self._taken(np.zeros(count, dtype=int))

    def _taken(self, which: slice | NDArray[np.int_]) -> Partial:
        return Partial(
            tile=self.tile[which], counts=self.counts[which], runs=self.runs[which],
            energy_j=self.energy_j[which], level_bytes=self.level_bytes[which],
            level_read=self.level_read[which],
            exposed=self.exposed[which], fill=self.fill[which], drain=self.drain[which],
            rounds=self.rounds[which], folds=self.folds[which], load=self.load[which],
            again=self.again[which], window=self.window[which],
        )  # fmt: skip

    def passed_over(self, passes: Floats, goes_on: NDArray[np.bool_]) -> Partial:
        """The same where so many more passes over each tensor's tile are decided, (n, 3).

        The next tile can only come in the last pass, beside which it is waited for. goes_on:
        whether there may be more.
        """
        window = self.window / passes
        late = np.where(goes_on, 0.0, self.again * np.maximum(self.load - window, 0.0))
        again = np.where(goes_on, self.again, 0.0)
        return replace(self, exposed=self.exposed + late.sum(axis=1), window=window, again=again)

    def crossed(
        self,
        placed: Placed,
        cut: int,
        found: Sequence[Crossing],
        doubled: ByTensor[TensorName, NDArray[np.bool_]] | None = None,
    ) -> Partial:
        """The same with what crosses a cut: its tile, counts and runs are that cut's.

        doubled: tensors that wait for room, and whether they have it for the next tile, each
        (n,), if it is not by this tile.
        """
        if doubled is None:
            waits = placed.waits_for_room and cut != MULTIPLIER
            tilings = dict.fromkeys(TENSORS, (self.tile, self.counts))
            doubled = placed.second_halves(cut, tilings) if waits else {}
        hierarchy = placed.hierarchy
        energy, level_bytes = self.energy_j.copy(), self.level_bytes.copy()
        level_read = self.level_read.copy()
        exposed, fill, drain = self.exposed.copy(), self.fill.copy(), self.drain.copy()
        rounds = self.rounds.copy()
        load, again, window = self.load.copy(), self.again.copy(), self.window.copy()
        outside = np.zeros(1)
        for one in found:
            index, level = one.level, hierarchy.levels[one.level]
            place = TENSORS.index(one.tensor)
            tiles = self.counts.prod(axis=1) / self.runs[:, place]
            if cut == MULTIPLIER:
                exposed += again[:, place] * np.maximum(load[:, place] - window[:, place], 0.0)
            again[:, place] = 0.0  # a level further in that holds all of a tile leaves its room
            energy += one.read * level.read_j + one.written * level.write_j
            level_bytes[:, index] += one.read + one.written
            level_read[:, index] += one.read
            if cut == MULTIPLIER:
                continue
            rate = placed.level_rates[index]
            moving = placed.level_cycles(index, one.read, one.written)
            if index in hierarchy.stages[cut]:  # behind the same tensor's at the level above
                waited = np.maximum(moving, outside)
                exposed += 0.0 if one.tensor in level.hidden else waited
                if one.tensor in doubled:
                    load[:, place] = waited / tiles
                    again[:, place] = np.where(doubled[one.tensor], 0.0, tiles - 1)
                    window[:, place] = placed.steps(self.tile)
                continue
            outside = moving
            if index == placed.home(one.tensor) and placed.waits_for(one.tensor, cut):
                first, last = self._ends(placed, one.tensor)
                if one.tensor == "output":
                    drain[:, index] += last / rate
                else:
                    fill[:, index] += first / rate
                known = np.where(np.isinf(rounds[:, index]), 1.0, rounds[:, index])
                rounds[:, index] = np.maximum(known, tiles)
        return replace(
            self, energy_j=energy, level_bytes=level_bytes, level_read=level_read,
            exposed=exposed, fill=fill, drain=drain, rounds=rounds, load=load, again=again,
            window=window, crossings=tuple(found),
        )  # fmt: skip

    def _ends(self, placed: Placed, tensor: TensorName) -> tuple[Floats, Floats]:
        """Bytes of a tensor's first tile and of its last one, the rest of it."""
        whole = placed.elements[tensor]
        first = np.minimum(placed.nest.footprint(tensor, self.tile), whole)
        last = whole - (np.ceil(whole / first - 1e-9) - 1) * first
        stored = placed.stored_share(tensor, placed.home(tensor))
        each = placed.nest.element_bytes(tensor) * stored
        return first * each, last * each


def decided(placed: Placed, mapping: Mapping) -> tuple[Partial, list[Crossing]]:
    """A mapping's cost, and what crosses all of its cuts."""
    found = Partial.start(placed)
    crossings: list[Crossing] = []
    cuts = [*range(len(mapping.tiles)), MULTIPLIER]
    for cut in sorted(cuts, reverse=True):
        tile = placed.unrolling.tile if cut == MULTIPLIER else np.array(mapping.tiles[cut])
        found = below(placed, found, cut, tile[None, :], (mapping.orders[cut + 1],))
        crossings += found.crossings
    return found, crossings


def below(
    placed: Placed, outer: Partial, cut: int, tiles: Floats, orders: Sequence[Order]
) -> Partial:
    """Tilings under one partial tiling: tiles (n, 8) below the next cut, in each of some orders.

    outer: one tiling, decided down to the cut above. Returns orders * n tilings, all of one order
    after all of another.
    """
    segment = np.ceil(outer.tile / tiles - 1e-9)
    runs = placed.runs(segment, orders, outer.runs[0])
    counts = np.tile(outer.counts * segment, (len(orders), 1))
    tiles = np.tile(tiles, (len(orders), 1))
    partial = replace(outer.repeated(len(tiles)), tile=tiles, counts=counts, runs=runs)
    if placed.waits_for_room:
        partial = partial.passed_over(*placed.outer_passes(segment, orders))
    if cut == MULTIPLIER:
        stationary = placed.hierarchy.stationary
        if stationary is not None:
            folds = counts.prod(axis=1) / runs[:, TENSORS.index(stationary)]
            partial = replace(partial, folds=folds)
        if placed.accumulates:
            runs = runs.copy()
            runs[:, TENSORS.index("output")] = 1.0
    return partial.crossed(placed, cut, placed.crossings(cut, tiles, counts, runs))
