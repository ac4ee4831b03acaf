"""Numbers of steps that the tiles of a stage may have, loop by loop, compiled."""

# Kernels take everything by position, since numba reads them, not mypy.
# ruff: noqa: PLR0917
# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, no-any-return"

from __future__ import annotations

import math

import numpy as np

from hwmodels.estimators.array.compiled import compiled

MOST_PARTS = 4096
"""Steps of a loop up to which every way to part it counts; beyond, powers of two do."""
MOST_STEPS = 2 * 64 + 8
"""Numbers of steps that there are room for: two times the root of `MOST_PARTS` are useful."""
NEARLY = 1 + 1e-9
"""Two numbers whose mean (of logs) is wanted are equally near: the larger one is taken."""
FIRST_TAP = 6
"""Kernel rows and columns are the loops from here on: all or one of them are in a tile."""


@compiled
def useful_steps(total, low, high, found):
    """Steps of a tile that divide `total` without waste, from `low` to `high`; ascending.

    Into `found`; returns how many.
    """
    size = 0
    parts = total
    if total > MOST_PARTS:
        parts = 1
        while 2 * parts <= total:
            parts *= 2
    while parts >= 1:
        steps = -(-total // parts)
        if low <= steps <= high and (size == 0 or found[size - 1] != steps):
            found[size] = steps
            size += 1
        # The most parts whose tiles have more steps, of powers of two the next one.
        parts = parts // 2 if total > MOST_PARTS else (total - 1) // steps
    return size


@compiled
def with_step(steps, found, size):
    """Takes a number among ascending ones, unless it is there; returns how many there are."""
    place = size
    while place > 0 and found[place - 1] >= steps:
        place -= 1
    if place < size and found[place] == steps:
        return size
    for index in range(size, place, -1):
        found[index] = found[index - 1]
    found[place] = steps
    return size + 1


@compiled
def exact_steps(total, most, pool, useful):
    """Leaves those that `total` is a multiple of, if they are as many as wanted; how many."""
    exact = 0
    for index in range(useful):
        exact += total % pool[index] == 0
    if exact < most:
        return useful
    size = 0
    for index in range(useful):
        if total % pool[index] == 0:
            pool[size] = pool[index]
            size += 1
    return size


@compiled
def spread_steps(low, high, most, pool, useful, found):
    """So many of the useful steps, evenly by their logs, into `found`; returns how many."""
    ratio = (high / low) ** (1 / max(most - 1, 1))
    wanted, index, size = low, 0, 0
    for _ in range(most):
        # The next one is nearer by its log where their product is less than the square.
        while index + 1 < useful and pool[index] * pool[index + 1] < wanted * wanted * NEARLY:
            index += 1
        size = with_step(pool[index], found, size)
        wanted *= ratio
    return size


@compiled
def steps_near(total, around):
    """The fewest and the most steps that are looked at: all, or half to twice of a number."""
    if around > 0:
        return max(around / 2, 1.0), min(around * 2, 1.0 * total)
    return 1.0, 1.0 * total


@compiled
def steps_on_grid(total, most, around, pool, found):
    """At most so many of the useful steps and two, or three around a number; ascending.

    One step and all of them are always among them; the others are spread evenly by their logs,
    over all or, where `around` is not 0, from half to twice of it. Into `found`; returns how many.
    """
    low, high = steps_near(total, around)
    useful = useful_steps(total, low, high, pool)
    if useful > most:
        if around == 0:
            useful = exact_steps(total, most, pool, useful)
        size = spread_steps(low, high, most, pool, useful, found)
    else:
        for index in range(useful):
            found[index] = pool[index]
        size = useful
    if around > 0:
        size = with_step(around, found, size)
    size = with_step(1.0, found, size)
    return with_step(float(total), found, size)


@compiled
def grid_of(shape, stage, most_tiles, around, pool, steps, sizes):
    """Steps of each loop below a stage, into `steps` (8, some) and their numbers `sizes` (8,).

    Multiples of what is unrolled; loops that nothing in the stage or below depends on have one.
    A loop with few useful steps leaves its share of the tiles to the others.
    around: (8,) a tile, or zeros.
    """
    room, others = 1.0 * most_tiles, 0
    useful = np.zeros(8, np.int64)
    for loop in range(8):
        steps[loop, 0] = 1.0
        sizes[loop] = 1
        if shape.free[stage, loop]:
            total = round(shape.whole[loop] / shape.unrolled[loop])
            if loop >= FIRST_TAP:
                sizes[loop] = steps_on_grid(total, 2, 0.0, pool, steps[loop])
                room /= 2
            else:
                low, high = steps_near(total, around[loop] / shape.unrolled[loop])
                useful[loop] = max(useful_steps(total, low, high, pool), 1)
                others += 1
    while others:
        loop = fewest(useful)
        most = min(useful[loop], max(math.floor(room ** (1 / others) * NEARLY), 3))
        total = round(shape.whole[loop] / shape.unrolled[loop])
        near = around[loop] / shape.unrolled[loop]
        sizes[loop] = steps_on_grid(total, most, near, pool, steps[loop])
        room = max(room / most, 1.0)
        useful[loop] = 0
        others -= 1
    for loop in range(8):
        for index in range(sizes[loop]):
            steps[loop, index] *= shape.unrolled[loop]


@compiled
def fewest(useful):
    """The loop with the fewest useful steps of those that have any."""
    found = -1
    for loop in range(8):
        if useful[loop] > 0 and (found < 0 or useful[loop] < useful[found]):
            found = loop
    return found
