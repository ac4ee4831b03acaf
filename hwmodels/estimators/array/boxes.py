"""The least goal of all tilings, not of those on a grid, compiled: branch and bound over boxes.

A box is a range of the steps of every loop in the outermost tile. Its largest tile crosses least
often, its smallest one needs the least room, and all that is inside is open: so its bound holds
for every tile in it. The box of the least bound is split until it has one tile, until nothing is
below the mapping that was found, or until enough were looked at.
"""

# Kernels take everything by position, since numba reads them, not mypy.
# ruff: noqa: PLR0917
# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, no-any-return"

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from hwmodels.estimators.array.bound import find_holds, score
from hwmodels.estimators.array.compiled import compiled, inlined
from hwmodels.estimators.array.crossing import (
    ORDERS,
    OUTPUT,
    cross,
    footprint,
    held,
    place_below,
    prepare,
    seen_before,
    start,
    take_runs,
    within,
)
from hwmodels.estimators.array.nest import Floats

CLOSE = 1 - 1e-9
"""Share of the goal found from which on a box holds nothing better."""


class Boxes(NamedTuple):
    """Boxes that no other one is part of."""

    low: Floats
    """(boxes, 8) fewest steps, in what is unrolled."""
    high: Floats
    """(boxes, 8) most steps."""
    bound: Floats
    """(boxes,)"""


@compiled
def least_goal(shape, costs, rest, best, states, boxes, work):
    """The least goal of any tiling of one unrolling, or a bound of it that is at most `best`."""
    cut, size = shape.stages - 2, 1
    low, high, bound = boxes.low, boxes.high, boxes.bound
    start(shape, states[0])
    for loop in range(8):
        low[0, loop], high[0, loop] = 1.0, 1.0
        if shape.free[cut, loop]:
            high[0, loop] = np.ceil(shape.whole[loop] / shape.unrolled[loop] - 1e-9)
    bound[0] = bound_of(shape, costs, rest, cut, low[0], high[0], states, work)
    while True:
        least = 0
        for index in range(1, size):
            if bound[index] < bound[least]:
                least = index
        if bound[least] >= best * CLOSE:
            return best
        loop = widest(low[least], high[least])
        if loop < 0 or size == len(bound):
            return bound[least]
        middle = np.floor(np.sqrt(low[least, loop] * high[least, loop]))
        for other in range(8):
            low[size, other], high[size, other] = low[least, other], high[least, other]
        high[least, loop], low[size, loop] = middle, middle + 1
        before = bound[least]
        for part in (least, size):
            found = bound_of(shape, costs, rest, cut, low[part], high[part], states, work)
            bound[part] = max(found, before)
        size += 1


@inlined
def widest(low, high):
    """The loop whose steps differ by the largest factor in a box; -1 where none do."""
    found, most = -1, 1.0
    for loop in range(8):
        ratio = high[loop] / low[loop]
        if ratio > most:
            found, most = loop, ratio
    return found


@compiled
def bound_of(shape, costs, rest, cut, low, high, states, work):
    """The least goal of tiles of a box; infinite where none fits."""
    outer, state, first = states[0], states[1], np.empty(8)
    tile = np.empty(8)
    for loop in range(8):
        first[loop] = low[loop] * shape.unrolled[loop]
        tile[loop] = high[loop] * shape.unrolled[loop]
    place_below(shape, outer, tile, 0, state, work)
    if not has_room(shape, costs, cut, first, state, work):
        return np.inf
    prepare(shape, cut, state, work)
    for tensor in range(3):
        if work.ends[tensor] > 0:
            whole, end = shape.elements[tensor], 0.0
            if tensor != OUTPUT:  # the last tile of the output may be small
                end = min(footprint(shape, tensor, first), whole)
            above = shape.upper[cut + 1, tensor]
            work.ends[tensor] = end * (shape.each[tensor] * (1 - shape.saved[above, tensor]))
    for loop in range(8):
        state.tile[loop] = first[loop]
        steps = np.ceil(shape.whole[loop] / shape.unrolled[loop] - 1e-9)
        state.steps[loop] = min(steps / state.counts[loop], low[loop])
    find_holds(shape, costs, cut, state, work)
    for loop in range(8):
        steps = np.ceil(shape.whole[loop] / shape.unrolled[loop] - 1e-9)
        state.steps[loop] = steps / state.counts[loop]
    least, known = np.inf, 0
    for order in range(6):
        take_runs(outer, ORDERS[order], work)
        if seen_before(known, 0, work):
            continue
        known += 1
        cross(shape, costs, cut, outer, state, work)
        least = min(least, score(shape, costs, rest, cut, False, state, work))
    return least


@inlined
def has_room(shape, costs, stage, tile, state, work):
    """Whether the smallest tile fits the levels of a stage, by the counts of the largest."""
    used = (
        needed(shape, 0, stage, tile, state, work),
        needed(shape, 1, stage, tile, state, work),
        needed(shape, 2, stage, tile, state, work),
    )
    return within(shape, costs.capacity, stage, used)


@inlined
def needed(shape, tensor, stage, tile, state, work):
    """Bytes of a tensor in its level of a stage, at least."""
    level = shape.path[stage, tensor]
    if level < 0:
        return 0.0
    found = held(shape, tensor, level, tile, state.counts, work.share)
    if tensor == OUTPUT and level != shape.home[OUTPUT]:
        found *= min(shape.partial / shape.each[OUTPUT], 1.0)
    return found
