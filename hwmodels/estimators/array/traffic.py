"""Bytes that cross from level to level under tilings of a nest, many tilings at once.

A tensor's tile at a level is replaced by the loops above it that it depends on; the innermost
loops that it does not depend on leave it where it is (it is stationary). With S the elements of
the tensor, and counts of the tiles above the cut:

    crossing = S * prod(counts of reuse loops) / (counts of the stationary run)

(the output crosses once more in each direction for each visit after its first). Windows of an
input overlap between tiles and are read again. What the places of an axis share is read once
where one instance of the level serves them, and once a place where there is one a place.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from hwmodels.devices.spatial import LOOPS
from hwmodels.estimators.array.hierarchy import Hierarchy
from hwmodels.estimators.array.nest import RELEVANT, REUSES, Floats, Nest
from hwmodels.estimators.array.unrolling import Unrolling
from hwmodels.tensors import TENSORS, TensorName

Order = tuple[TensorName, ...]
ORDERS: tuple[Order, ...] = tuple(itertools.permutations(TENSORS))
"""Orders of the loops between two levels, innermost first: each tensor stands for the loops that
reuse it. Groups, which nothing reuses, are outermost."""
MULTIPLIER = -1
"""The cut below the innermost level: between the multipliers and the memories."""
_LOOP = {loop: index for index, loop in enumerate(LOOPS)}
REUSE_INDICES = {t: [_LOOP[loop] for loop in LOOPS if loop in REUSES[t]] for t in TENSORS}
RELEVANT_INDICES = {t: [_LOOP[loop] for loop in LOOPS if loop in RELEVANT[t]] for t in TENSORS}


@dataclass(frozen=True, slots=True, kw_only=True)
class Crossing:
    """Bytes that one tensor reads and writes at one level because of one cut, shape (n,)."""

    level: int
    tensor: TensorName
    read: Floats
    written: Floats


@dataclass(frozen=True, kw_only=True)
class Placed:
    """A nest on a hierarchy with its loops unrolled; tilings of it are what is compared."""

    hierarchy: Hierarchy
    nest: Nest
    unrolling: Unrolling
    resident: frozenset[TensorName] = frozenset()
    """Tensors that stay on chip: their home is the outermost level below main memory."""
    throughput: float = 1.0
    """Multiply-accumulates of one place in a cycle: 2 where narrow elements share a multiplier."""

    @cached_property
    def sizes(self) -> Floats:
        """Steps of each loop, rounded up to whole cycles of the array, shape (8,)."""
        tile = self.unrolling.tile
        return np.ceil(np.array(self.nest.sizes) / tile) * tile

    @cached_property
    def spread(self) -> tuple[Floats, ...]:
        """Steps of each loop over the instances of each level, shape (8,) a level."""
        return tuple(
            self.unrolling.over(level.per, self.hierarchy) for level in self.hierarchy.levels
        )

    @cached_property
    def instances(self) -> tuple[float, ...]:
        """Instances of each level that work."""
        return tuple(float(np.prod(spread)) for spread in self.spread)

    @cached_property
    def level_rates(self) -> Floats:
        """Bytes a cycle of each level, over all instances that work, shape (levels,).

        Of reads, where writes have a port of their own.
        """
        rates = np.array([level.bytes_per_cycle for level in self.hierarchy.levels])
        return rates * np.array(self.instances)  # type: ignore[no-any-return]

    def level_cycles(self, level: int, read: Floats, written: Floats) -> Floats:
        """Cycles in which a level moves bytes over all of its instances that work, (n,)."""
        each = self.instances[level]
        return np.asarray(self.hierarchy.levels[level].cycles(read / each, written / each))

    @cached_property
    def elements(self) -> dict[TensorName, float]:
        """Elements of each tensor."""
        whole = np.array(self.nest.sizes, dtype=float)
        return {tensor: float(self.nest.footprint(tensor, whole)) for tensor in TENSORS}

    @cached_property
    def path(self) -> dict[TensorName, dict[int, int]]:
        """Stage -> level that each tensor passes through, nearest to the array first."""
        hierarchy = self.hierarchy
        found = {}
        for tensor in TENSORS:
            levels = {
                stage: index
                for stage, members in enumerate(hierarchy.stages)
                for index in members
                if tensor in hierarchy.levels[index].holds
            }
            if tensor in self.resident and len(levels) > 1:
                levels.pop(max(levels))
            found[tensor] = levels
        return found

    def home(self, tensor: TensorName) -> int:
        """The level where a tensor is as a whole."""
        return max(self.path[tensor].values())

    def waits_for(self, tensor: TensorName, cut: int) -> bool:
        """Whether, of all tiles of main memory, the first or the last one is waited for."""
        below = self.hierarchy.levels[self.path[tensor][cut]]
        return tensor in below.ended - self.resident

    def stored_share(self, tensor: TensorName, level: int) -> float:
        """Bytes of a complete tensor in a level over those of its plain elements."""
        code = self.hierarchy.levels[level].run_lengths
        if code is None or tensor == "weight":
            return 1.0
        zeros = self.nest.input_zeros if tensor == "input" else self.nest.output_zeros
        return code.share(zeros, 8 * self.nest.element_bytes(tensor))

    @cached_property
    def lowest_home_cut(self) -> int:
        """The lowest of the stages from whose cut a tensor goes to its home."""
        below = [sorted(self.path[tensor])[:-1] for tensor in TENSORS]
        return min(stages[-1] if stages else MULTIPLIER for stages in below)

    @cached_property
    def accumulates(self) -> bool:
        """Whether sums are added to in registers: each product reads and writes one.

        Where no register at the places holds outputs, the multipliers sum up what is innermost.
        """
        nearest = min(self.path["output"].values())
        return bool(self.hierarchy.levels[nearest].per)

    @cached_property
    def waits_for_room(self) -> bool:
        """Whether a tile may be waited for because it does not fit twice."""
        return any(level.waits_for_room for level in self.hierarchy.levels)

    def steps(self, tile: Floats, counts: Floats | float = 1.0) -> Floats:
        """Cycles of multiplying what is in tiles (n, 8), so many times, (n,)."""
        steps = (counts * np.ceil(tile / self.unrolling.tile - 1e-9)).prod(axis=1)
        return steps / self.throughput  # type: ignore[no-any-return]

    def upper(self, tensor: TensorName, cut: int) -> int | None:
        """The next level of a tensor above a cut; None where it does not cross there."""
        levels = self.path[tensor]
        if cut != MULTIPLIER and cut not in levels:
            return None
        return next((levels[stage] for stage in sorted(levels) if stage > cut), None)

    def runs(self, segment: Floats, orders: Sequence[Order], outer: Floats) -> Floats:
        """Counts of the stationary run of each tensor at the cut below a segment.

        segment: steps of each loop between two levels, (n, 8); outer: (3,) the runs at the cut
        above, which go on where nothing in the segment ends them. Returns (orders * n, 3), all of
        one order after all of another.
        """
        groups = {t: segment[:, REUSE_INDICES[t]].prod(axis=1) for t in TENSORS}
        single = {t: groups[t] == 1 for t in TENSORS}
        together = segment[:, _LOOP["G"]] == 1
        goes_on = {
            t: together & np.logical_and.reduce([single[one] for one in TENSORS if one != t])
            for t in TENSORS
        }
        found = np.empty((len(orders), len(segment), len(TENSORS)))
        for index, order in enumerate(orders):
            reached = np.ones(len(segment), dtype=bool)
            for tensor in order:
                place = TENSORS.index(tensor)
                run = np.where(reached, groups[tensor], 1.0)
                found[index, :, place] = np.where(goes_on[tensor], run * outer[place], run)
                reached = reached & single[tensor]
        return found.reshape(-1, len(TENSORS))

    def crossings(self, cut: int, tiles: Floats, counts: Floats, runs: Floats) -> list[Crossing]:
        """The bytes that cross a cut, for many tilings.

        Args:
            cut: index of the stage below it, or `MULTIPLIER`.
            tiles: (n, 8) steps of each loop below the cut.
            counts: (n, 8) steps above it.
            runs: (n, 3) counts of the stationary run of each tensor.
        """
        found = []
        for place, tensor in enumerate(TENSORS):
            above = self.upper(tensor, cut)
            if above is None:
                continue
            again = counts[:, REUSE_INDICES[tensor]].prod(axis=1) / runs[:, place]
            crossed = self._elements(tensor, cut, tiles, counts)
            saved = (
                (1 - self.stored_share(tensor, above)) * crossed * self.nest.element_bytes(tensor)
            )
            if tensor == "output":
                up, down = self._of_output(crossed, again, cut, above)
                stored, fetched = up - saved, down
            else:
                up = stored = np.zeros(len(tiles))
                down = crossed * again * self.nest.element_bytes(tensor)
                fetched = down - saved * again
            transfers = counts.prod(axis=1) / runs[:, place]
            outside = self._copies(tensor, above, tiles)
            found.append(
                self._crossing(tensor, above, fetched * outside, stored * outside, transfers)
            )
            if cut != MULTIPLIER:
                here = self.path[tensor][cut]
                inside = self._copies(tensor, here, tiles)
                found.append(self._crossing(tensor, here, up * inside, down * inside, transfers))
        return found

    def _crossing(
        self, tensor: TensorName, level: int, read: Floats, written: Floats, transfers: Floats
    ) -> Crossing:
        """The bytes that so many transfers move at a level, in whole words of its instances."""
        word = self.hierarchy.levels[level].word_bytes
        if word:
            each = transfers * self.instances[level]
            read, written = (
                np.ceil(moved / each / word - 1e-9) * word * each for moved in (read, written)
            )
        return Crossing(level=level, tensor=tensor, read=read, written=written)

    def fits(self, stage: int, tiles: Floats, counts: Floats) -> NDArray[np.bool_]:
        """Whether tiles fit the levels of a stage, shape (n,).

        A tensor that is there as a whole needs no second buffer; one that stays on chip is there
        as a whole at its home.
        """
        found = np.ones(len(tiles), dtype=bool)
        for level in self.hierarchy.stages[stage]:
            memory = self.hierarchy.levels[level]
            used = np.zeros(len(tiles))
            for tensor in memory.holds:
                if stage in self.path[tensor]:
                    used += self._held(tensor, level, tiles, counts)
            found &= used <= memory.capacity_bytes * (1 + 1e-9)
        return found

    def second_halves(
        self, stage: int, tilings: Mapping[TensorName, tuple[Floats, Floats]]
    ) -> dict[TensorName, NDArray[np.bool_]]:
        """Whether tensors that wait for room have it for the next tile, each (n,).

        What the tiles of a level leave is given to one tensor after the other, in the order of
        `TENSORS`.

        tilings: steps of each loop below and above the stage by tensor, (n, 8) each.
        """
        found = {}
        for level in self.hierarchy.stages[stage]:
            memory = self.hierarchy.levels[level]
            there = [one for one in TENSORS if self.path[one].get(stage) == level]
            held = {tensor: self._held(tensor, level, *tilings[tensor]) for tensor in there}
            used = np.sum(list(held.values()), axis=0)
            for tensor in there:
                if tensor in memory.waits_for_room:
                    doubled = used + held[tensor] <= memory.capacity_bytes * (1 + 1e-9)
                    used = np.where(doubled, used + held[tensor], used)
                    found[tensor] = doubled
        return found

    def outer_passes(
        self, segment: Floats, orders: Sequence[Order]
    ) -> tuple[Floats, NDArray[np.bool_]]:
        """Passes of the outermost loops of a segment over each tensor's tile around it.

        Args:
            segment: steps of each loop between two levels, (n, 8).
            orders: of its loops, as in `runs`.

        Returns:
            Passes (orders * n, 3), and whether loops further in go on with them.
        """
        groups = {t: segment[:, REUSE_INDICES[t]].prod(axis=1) for t in TENSORS}
        passes = np.ones((len(orders), len(segment), len(TENSORS)))
        goes_on = np.zeros(passes.shape, dtype=bool)
        for index, order in enumerate(orders):
            for place, tensor in enumerate(TENSORS):
                around = segment[:, _LOOP["G"]] == 1
                for other in reversed(order):
                    if other == tensor:
                        passes[index, :, place] = np.where(around, groups[tensor], 1.0)
                    else:
                        around = around & (groups[other] == 1)
                goes_on[index, :, place] = around
        return passes.reshape(-1, len(TENSORS)), goes_on.reshape(-1, len(TENSORS))

    def can_hold(
        self, tensor: TensorName, cut: int, tiles: Floats, counts: Floats
    ) -> NDArray[np.bool_]:
        """Whether the level below a cut has room for all of a tensor that tiles touch, (n,).

        The multipliers have room for what they work on in one cycle.
        """
        if cut == MULTIPLIER:
            steps = (tiles / self.unrolling.tile)[:, RELEVANT_INDICES[tensor]]
            return steps.prod(axis=1) <= 1 + 1e-9  # type: ignore[no-any-return]
        if cut not in self.path[tensor]:
            return np.ones(len(tiles), dtype=bool)
        level = self.path[tensor][cut]
        capacity = self.hierarchy.levels[level].capacity_bytes
        return self._held(tensor, level, tiles, counts) <= capacity * (1 + 1e-9)

    def _held(self, tensor: TensorName, level: int, tiles: Floats, counts: Floats) -> Floats:
        """Bytes of a tensor in one instance of a level, shape (n,)."""
        if level == self.home(tensor):
            whole = self.elements[tensor] * self.nest.element_bytes(tensor)
            return np.full(len(tiles), whole)
        moves = counts[:, RELEVANT_INDICES[tensor]].prod(axis=1) > 1
        buffered = tensor in self.hierarchy.levels[level].double_buffered
        copies = np.where(moves & buffered, 2.0, 1.0)
        held = self._held_bytes(tensor, level, counts) * copies
        share = np.maximum(tiles / self.spread[level], 1.0)
        return self.nest.footprint(tensor, share) * held

    def _held_bytes(self, tensor: TensorName, level: int, counts: Floats) -> Floats:
        """Bytes of an element in a level, (n,): registers hold elements as they are multiplied.

        Outputs are partial sums until nothing is added to them any more; registers that add up
        hold them until they are complete.
        """
        if tensor == "output":
            partial = counts[:, REUSE_INDICES["output"]].prod(axis=1) > 1
            if self.accumulates and level == min(self.path["output"].values()):
                added = (self.sizes / self.unrolling.tile)[REUSE_INDICES["output"]].prod()
                partial |= added > 1
            return np.where(partial, self.nest.partial_bytes, self.nest.output_bytes)
        in_place = bool(self.hierarchy.levels[level].per)
        held = self.nest.register_bytes if in_place else self.nest.element_bytes(tensor)
        return np.full(len(counts), held)

    def _elements(self, tensor: TensorName, cut: int, tiles: Floats, counts: Floats) -> Floats:
        """Elements of all tiles of a tensor together, overlaps of windows counted again."""
        if tensor != "input":
            return np.full(len(tiles), self.elements[tensor])
        if cut == MULTIPLIER and self.nest.taps > 1:
            return np.full(len(tiles), self.elements[tensor] * self.nest.expansion)
        if self.nest.in_size == (0, 0) and self.nest.taps == 1:
            return np.full(len(tiles), self.elements[tensor])
        moves = counts[:, RELEVANT_INDICES[tensor]].prod(axis=1)
        touched = self.nest.footprint(tensor, tiles) * moves
        # Edge tiles are smaller than the others: the share of the sizes that is padding.
        real = np.array(self.nest.sizes, dtype=float)
        edge = (real / (tiles * counts))[:, RELEVANT_INDICES[tensor]].prod(axis=1)
        read: Floats = np.maximum(touched * np.minimum(edge, 1.0), self.elements[tensor])
        return read

    def _of_output(
        self, crossed: Floats, visits: Floats, cut: int, above: int
    ) -> tuple[Floats, Floats]:
        """Bytes up and down: partial sums come back for every visit but the first."""
        partial = self.nest.partial_bytes
        complete = self.nest.output_bytes
        if cut == MULTIPLIER and above != self.home("output"):
            complete = partial  # rounded further out
        again = crossed * (visits - 1) * partial
        return again + crossed * complete, again

    def _copies(self, tensor: TensorName, level: int, tiles: Floats) -> Floats:
        """Elements over the instances of a level, over those that differ."""
        spread = self.spread[level]
        if tensor != "input" or self.nest.in_size == (0, 0):
            return np.full(len(tiles), spread[REUSE_INDICES[tensor]].prod())
        apart = self.nest.footprint(tensor, np.maximum(tiles / spread, 1.0)) * spread.prod()
        return np.maximum(apart / self.nest.footprint(tensor, tiles), 1.0)  # type: ignore[no-any-return]
