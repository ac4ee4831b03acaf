"""A mapping whose tensors have tiles of their own at a level, as loops in one order.

Loops stand above what is unrolled, innermost first; each level of each tensor holds what so many
of the inner ones touch (uneven mapping: Mei et al., "ZigZag: Enlarging Joint Architecture-Mapping
Design Space Exploration for DNN Accelerators", IEEE Transactions on Computers 70, 2021).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hwmodels.devices.spatial import LOOPS, Loop
from hwmodels.estimators.array.mapping import Partial
from hwmodels.estimators.array.nest import RELEVANT, Floats
from hwmodels.estimators.array.traffic import MULTIPLIER, Crossing, Placed
from hwmodels.tensors import TENSORS, TensorName


@dataclass(frozen=True, kw_only=True)
class UnevenMapping:
    """Loops in one order, and what each level of each tensor holds of them."""

    loops: tuple[tuple[Loop, float], ...]
    """Loops and their steps, innermost first; a loop may come several times."""
    inside: Mapping[TensorName, tuple[int, ...]]
    """Loops inside of a tensor's tile at each level that it passes, nearest to the array first;
    its home, which has all of them, is left out."""

    def steps(self, first: int, last: int) -> Floats:
        """Steps of each loop that some of the loops have together, (8,)."""
        found = np.ones(len(LOOPS))
        for loop, count in self.loops[first:last]:
            found[LOOPS.index(loop)] *= count
        return found

    def passes(self, tensor: TensorName, first: int, last: int) -> tuple[float, bool]:
        """Steps of the outermost of some loops that a tensor does not depend on.

        And whether it depends on none of these loops.
        """
        found = 1.0
        for loop, count in reversed(self.loops[first:last]):
            if loop in RELEVANT[tensor] and count > 1:
                return found, False
            found *= count if loop not in RELEVANT[tensor] else 1.0
        return found, True

    def run(self, tensor: TensorName, first: int) -> float:
        """Steps for which a tensor's tile stays where it is: loops that it does not depend on."""
        found = 1.0
        for loop, count in self.loops[first:]:
            if loop in RELEVANT[tensor] and count > 1:
                break
            found *= count if loop not in RELEVANT[tensor] else 1.0
        return found


def _second_halves(
    placed: Placed, mapping: UnevenMapping
) -> dict[int, dict[TensorName, NDArray[np.bool_]]]:
    """Whether tensors that wait for room have it for the next tile, by stage."""
    unrolled, last = placed.unrolling.tile, len(mapping.loops)
    tilings: dict[int, dict[TensorName, tuple[Floats, Floats]]] = {}
    for tensor in TENSORS:
        inside = (*mapping.inside[tensor], last)  # its home has all
        for stage, first in zip(sorted(placed.path[tensor]), inside, strict=True):
            tile, counts = unrolled * mapping.steps(0, first), mapping.steps(first, last)
            tilings.setdefault(stage, {})[tensor] = tile[None, :], counts[None, :]
    return {stage: placed.second_halves(stage, found) for stage, found in tilings.items()}


def decided_unevenly(placed: Placed, mapping: UnevenMapping) -> tuple[Partial, list[Crossing]]:
    """An uneven mapping's cost, and what crosses all of its cuts.

    Raises:
        ValueError: Loops that do not cover the nest, or tiles that do not grow outwards or are
            not one for each level of a tensor below its home.
    """
    unrolled, whole = placed.unrolling.tile, mapping.steps(0, len(mapping.loops))
    if (unrolled * whole < np.array(placed.nest.sizes) - 1e-9).any():
        raise ValueError(f"loops cover {unrolled * whole} of {placed.nest.sizes}")
    for tensor in TENSORS:
        inside, count = mapping.inside[tensor], len(placed.path[tensor]) - 1
        if count != len(inside) or list(inside) != sorted(inside):
            raise ValueError(f"{tensor}: {count} tiles that grow outwards, not {inside}")
    found = Partial.start(placed)
    crossings: list[Crossing] = []
    doubled = _second_halves(placed, mapping)
    for place, tensor in enumerate(TENSORS):
        levels = sorted(placed.path[tensor])[:-1]
        inside = (0, *mapping.inside[tensor])
        further_in = 0
        for cut, first in zip((MULTIPLIER, *levels), inside, strict=True):
            runs = np.ones((1, len(TENSORS)))
            added = tensor == "output" and cut == MULTIPLIER and placed.accumulates
            runs[0, place] = 1.0 if added else mapping.run(tensor, first)
            tile = (unrolled * mapping.steps(0, first))[None, :]
            counts = mapping.steps(first, len(mapping.loops))[None, :]
            crossed = [
                one for one in placed.crossings(cut, tile, counts, runs) if one.tensor == tensor
            ]
            found = replace(found, tile=tile, counts=counts, runs=runs)
            found = found.crossed(placed, cut, crossed, doubled.get(cut, {}))
            if cut != MULTIPLIER:
                passes = np.ones((1, len(TENSORS)))
                goes_on = np.ones(passes.shape, dtype=bool)
                passes[0, place], goes_on[0, place] = mapping.passes(tensor, further_in, first)
                if cut == levels[0]:
                    goes_on[0, place] = False
                found = found.passed_over(passes, goes_on)
            further_in = first
            crossings += crossed
    found = replace(found, tile=unrolled[None, :], counts=whole[None, :])
    stationary = placed.hierarchy.stationary
    if stationary is not None:
        folds = math.prod(whole) / mapping.run(stationary, 0)
        found = replace(found, folds=np.array([folds]))
    return found, crossings
