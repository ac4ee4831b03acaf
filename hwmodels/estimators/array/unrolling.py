"""The loops of a nest that the places of an array work on at once."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from hwmodels.devices.spatial import LOOPS
from hwmodels.estimators.array.hierarchy import Axis, Hierarchy
from hwmodels.estimators.array.nest import Floats, Nest

MOST_CANDIDATES = 32
"""Orders of filling the axes that are compared."""
MOST_SEARCHED = 2
"""Unrollings whose mappings are searched: what moves less may take a few cycles more."""
SLOWER = 1.3
"""Cycles of those over the fewest, at most."""


@dataclass(frozen=True, kw_only=True)
class Unrolling:
    """Places that each loop takes on each axis."""

    factors: tuple[tuple[int, ...], ...]
    """Axis x loop, in the order of `Hierarchy.axes` and `LOOPS`."""

    @cached_property
    def tile(self) -> Floats:
        """Steps of each loop in one cycle, shape (8,)."""
        found = np.array([math.prod(steps) for steps in zip(*self.factors, strict=True)], float)
        found.setflags(write=False)
        return found

    def over(self, axes: frozenset[str], hierarchy: Hierarchy) -> Floats:
        """Steps of each loop that are spread over the places of some axes, shape (8,)."""
        kept = [
            factors
            for axis, factors in zip(hierarchy.axes, self.factors, strict=True)
            if axis.name in axes
        ]
        return np.prod(np.array([[1] * len(LOOPS), *kept], dtype=float), axis=0)  # type: ignore[no-any-return]

    def cycles(self, nest: Nest) -> float:
        """Cycles of the nest if nothing waits: edge tiles take a whole one."""
        return float(np.ceil(np.array(nest.sizes) / self.tile).prod())


def unrolling_of(hierarchy: Hierarchy, nest: Nest) -> Unrolling:
    """The unrolling with the fewest cycles, of equal ones the first in the order of the file."""
    return unrollings(hierarchy, nest)[0]


def unrollings(hierarchy: Hierarchy, nest: Nest) -> tuple[Unrolling, ...]:
    """Unrollings that are not much slower than the fastest, fewest cycles first.

    The loops of an axis fill it one after another; each of them may be the first.
    """
    orders = itertools.islice(itertools.product(*map(_rotations, hierarchy.axes)), MOST_CANDIDATES)
    found = dict.fromkeys(_filled(axes, nest) for axes in orders)
    ranked = sorted(found, key=lambda one: one.cycles(nest))
    slowest = SLOWER * ranked[0].cycles(nest)
    return tuple(one for one in ranked if one.cycles(nest) <= slowest)[:MOST_SEARCHED]


def _rotations(axis: Axis) -> list[Axis]:
    unrolls = axis.unrolls
    return [
        Axis(
            name=axis.name,
            size=axis.size,
            unrolls=(first, *(loop for loop in unrolls if loop != first)),
        )
        for first in unrolls
    ]


def _filled(axes: tuple[Axis, ...], nest: Nest) -> Unrolling:
    left = list(nest.sizes)
    factors = []
    for axis in axes:
        taken = [1] * len(LOOPS)
        free = axis.size
        for loop in axis.unrolls:
            index = LOOPS.index(loop)
            taken[index] = max(min(free, left[index]), 1)
            free //= taken[index]
            left[index] = math.ceil(left[index] / taken[index])
        factors.append(tuple(taken))
    return Unrolling(factors=tuple(factors))
