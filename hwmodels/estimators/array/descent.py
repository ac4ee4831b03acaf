"""The best mapping of a nest by branch and bound, compiled: `search` says how it goes."""

# Kernels take everything by position, since numba reads them, not mypy.
# ruff: noqa: PLR0917
# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, no-any-return"

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from hwmodels.estimators.array.bound import EDP, find_holds, find_rest, hope_for_holds, score
from hwmodels.estimators.array.boxes import Boxes, least_goal
from hwmodels.estimators.array.compiled import compiled, inlined
from hwmodels.estimators.array.crossing import (
    ORDERS,
    OUTPUT,
    cross,
    crossing,
    decide,
    fits,
    may_fit,
    moving,
    outermost,
    place_below,
    prepare,
    seen_before,
    start,
    take_costs,
    take_runs,
    wait_for_room,
)
from hwmodels.estimators.array.cycles import computing, elapsed, steps_of
from hwmodels.estimators.array.nest import Floats
from hwmodels.estimators.array.problem import Indices
from hwmodels.estimators.array.steps import MOST_STEPS, grid_of

CLOSE = 1 - 1e-12
"""Share of a goal below which another is better."""


class Children(NamedTuple):
    """The most promising tilings below each partial mapping, best first."""

    bound: Floats
    """(rows, children)"""
    tile: Floats
    """(rows, children, 8)"""
    order: Indices
    size: Indices
    """(rows,)"""
    place: Indices
    """(rows,) the next one to follow."""


@compiled
def keep(children, row, bound, tile, order):
    """Takes a tiling among the most promising ones; of equal ones the first stays in front."""
    most, count = children.bound.shape[1], children.size[row]
    if count == most and bound >= children.bound[row, count - 1]:
        return
    place = min(count, most - 1)
    while place > 0 and children.bound[row, place - 1] > bound:
        children.bound[row, place] = children.bound[row, place - 1]
        children.order[row, place] = children.order[row, place - 1]
        for loop in range(8):
            children.tile[row, place, loop] = children.tile[row, place - 1, loop]
        place -= 1
    children.bound[row, place] = bound
    children.order[row, place] = order
    for loop in range(8):
        children.tile[row, place, loop] = tile[loop]
    children.size[row] = min(count + 1, most)


@inlined
def worst_of(children, row):
    """The bound that a tiling must be below to be kept."""
    last = children.bound.shape[1] - 1
    return children.bound[row, last] if children.size[row] > last else np.inf


@compiled
def compare(shape, costs, rest, cut, states, row, tile, first, children, best, work):
    """Looks at a tile below a row in every order of the loops between; the next row is used.

    Loops before the `first` have steps as in the tile that was looked at before. Returns whether
    a tile with more steps may fit.
    """
    outer, state = states[row], states[row + 1]
    place_below(shape, outer, tile, first, state, work)
    if cut >= 0 and not fits(shape, costs.capacity, cut, state, work.share):
        return may_fit(shape, costs.capacity, cut, tile, work.share)
    prepare(shape, cut, state, work)
    groups, orders = work.groups, 6
    if (groups[0] == 1) + (groups[1] == 1) + (groups[2] == 1) >= 2:
        orders = 1  # all are equal
    elif cut >= 0:
        bound = hoped_for(shape, costs, rest, cut, outer, state, work)
        if bound >= best * CLOSE or bound >= worst_of(children, row):
            return True
    find_holds(shape, costs, cut, state, work)
    known = 0
    for order in range(orders):
        take_runs(outer, ORDERS[order], work)
        if seen_before(known, outermost(shape, ORDERS[order], work), work):
            continue
        known += 1
        cross(shape, costs, cut, outer, state, work)
        if shape.waits_for_room:
            wait_for_room(shape, costs, cut, outer, ORDERS[order], state, work)
        bound = score(shape, costs, rest, cut, cut <= shape.settled, state, work)
        if bound < best * CLOSE:
            keep(children, row, bound, state.tile, order)
    return True


@compiled
def hoped_for(shape, costs, rest, cut, outer, state, work):
    """A bound for all orders: each tensor's reuse loops innermost, and room for all of it.

    Many tiles are worse even so than what is known.
    """
    hope_for_holds(cut, work)
    for tensor in range(3):
        run = work.groups[tensor]
        work.runs[tensor] = run * outer.runs[tensor] if work.goes_on[tensor] else run
    cross(shape, costs, cut, outer, state, work)
    return score(shape, costs, rest, cut, cut < 0, state, work)


@compiled
def expand(shape, costs, rest, cut, steps, sizes, states, row, children, best, work):
    """Finds the most promising tilings below a row; steps, sizes: the grid of the cut's stage."""
    children.size[row] = 0
    children.place[row] = 0
    inside, at, tile = np.zeros(8, np.int64), np.zeros(8, np.int64), np.empty(8)
    if cut < 0:
        for loop in range(8):
            tile[loop] = shape.unrolled[loop]
        compare(shape, costs, rest, cut, states, row, tile, 0, children, best, work)
        return
    for loop in range(8):
        inside[loop] = steps_inside(steps[loop], sizes[loop], states[row].tile[loop])
        tile[loop] = steps[loop, 0]
        if inside[loop] == 0:
            return
    loop = 0
    while loop >= 0:
        if compare(shape, costs, rest, cut, states, row, tile, loop, children, best, work):
            loop = 7
        else:
            at[loop] = inside[loop]  # loops behind it have their fewest steps
        loop = next_tile(steps, inside, at, tile, loop)


@inlined
def steps_inside(steps, size, most):
    """Numbers of steps that are at most that of the tile around: how many."""
    count = 0
    for index in range(size):
        count += steps[index] <= most + 1e-9
    return count


@inlined
def next_tile(steps, inside, at, tile, loop):
    """Takes the next of the steps of a loop, or of one before; returns which, or -1 at the end."""
    while loop >= 0:
        at[loop] += 1
        if at[loop] < inside[loop]:
            tile[loop] = steps[loop, at[loop]]
            return loop
        at[loop] = 0
        tile[loop] = steps[loop, 0]
        loop -= 1
    return loop


@compiled
def descend(
    shape, costs, rest, effort, most_looks, steps, sizes, states, children, best, tiles, orders,
    work,
):  # fmt: skip
    """Looks through one grid; returns the best goal.

    most_looks: at partial mappings; best: that of the grids before; tiles (stages - 1, 8), orders
    (stages,): of the best mapping, which are replaced by a better one's.
    """
    top = shape.stages - 2
    start(shape, states[0])
    looks, row, opened = 0, np.int64(0), False  # no literal, for which all were compiled again
    while row >= 0:
        cut = top - row
        if not opened:
            looks += 1
            stage = max(cut, 0)  # the multipliers have one tile
            expand(
                shape, costs, rest, cut, steps[stage], sizes[stage], states, row, children, best,
                work,
            )  # fmt: skip
            opened = True
        place = children.place[row]
        if place >= children.size[row] or children.bound[row, place] >= best * CLOSE:
            row -= 1
            continue
        bound = children.bound[row, place]
        if cut < 0:
            best = bound
            for index in range(row):
                chosen = children.place[index] - 1
                for loop in range(8):
                    tiles[top - index, loop] = children.tile[index, chosen, loop]
                orders[top + 1 - index] = children.order[index, chosen]
            orders[0] = children.order[row, place]
            row -= 1
            continue
        if place >= effort.most_children or (looks >= most_looks and np.isfinite(best)):
            row -= 1
            continue
        children.place[row] += 1
        decide(
            shape, costs, cut, states[row], children.tile[row, place],
            children.order[row, place], states[row + 1], work,
        )  # fmt: skip
        row += 1
        opened = False
    return best


@compiled
def best_mappings(shapes, figures, goal, effort, room, goals, gaps, tiles, orders):
    """The best mapping of a nest on each of n devices.

    Writes goals (n,), infinite where no mapping fits; gaps (n,), tiles (n, stages - 1, 8) and
    orders (n, stages), which index `ORDERS`.
    """
    shape = shapes[0]
    stages, most = shape.stages, effort.most_children + 1
    states, work, rest, costs = room.states, room.work[0], room.rest[0], room.costs[0]
    children = Children(
        np.empty((stages, most)), np.empty((stages, most, 8)),
        np.empty((stages, most), np.int64), np.zeros(stages, np.int64), np.zeros(stages, np.int64),
    )  # fmt: skip
    steps, sizes = np.ones((stages - 1, 8, MOST_STEPS)), np.ones((stages - 1, 8), np.int64)
    boxes = Boxes(
        np.empty((effort.most_boxes, 8)), np.empty((effort.most_boxes, 8)),
        np.empty(effort.most_boxes),
    )  # fmt: skip
    pool, nowhere = np.zeros(MOST_STEPS), np.zeros(8)
    for device in range(len(goals)):
        take_costs(shape, figures, device, goal, costs)
        find_rest(shape, costs, states, work, rest)
        best = np.inf
        for wide, most_tiles in enumerate(effort.tiles):
            if most_tiles == 0:
                break
            for zoom in range(effort.zooms + 1):
                if zoom and np.isinf(best):
                    break
                before = best
                for stage in range(stages - 1):
                    around = tiles[device, stage] if zoom else nowhere
                    grid_of(shape, stage, most_tiles, around, pool, steps[stage], sizes[stage])
                looks = effort.wide_looks if wide and not zoom else effort.most_looks
                best = descend(
                    shape, costs, rest, effort, looks, steps, sizes, states, children, best,
                    tiles[device], orders[device], work,
                )  # fmt: skip
                if zoom and best >= before * (1 - effort.enough):
                    break
        goals[device], gaps[device] = best, np.inf
        if np.isfinite(best):
            least = best
            if stages > 1:
                least = least_goal(
                    shape, costs, rest, best, states, boxes, work
                )  # fmt: skip
            gaps[device] = max(best / least - 1.0, 0.0)


@compiled
def priced_mappings(shapes, figures, room, tiles, orders, read, written, cycles):
    """The costs of mappings, one on each of n devices.

    Writes read and written (n, levels, 3), bytes by level and tensor, and cycles (n, 3): all,
    those without stalls, those of the level that moves longest.
    """
    shape = shapes[0]
    stages = shape.stages
    states, work, costs = room.states, room.work[0], room.costs[0]
    moved, tile = work.moved, np.empty(8)
    for device in range(len(cycles)):
        take_costs(shape, figures, device, EDP, costs)
        start(shape, states[0])
        for row in range(stages):
            cut, outer, state = stages - 2 - row, states[row], states[row + 1]
            for loop in range(8):
                tile[loop] = shape.unrolled[loop] if cut < 0 else tiles[device, cut, loop]
            decide(shape, costs, cut, outer, tile, orders[device, cut + 1], state, work)
            for tensor in range(3):
                above, run = shape.upper[cut + 1, tensor], state.runs[tensor]
                if above < 0:
                    continue
                if cut < 0 and tensor == OUTPUT and shape.sums >= 0:
                    run = 1.0
                crossing(shape, tensor, cut, work.reused[tensor] / run, work.total / run, work)
                read[device, above, tensor] += moved[0]
                written[device, above, tensor] += moved[1]
                if cut >= 0:
                    here = shape.path[cut, tensor]
                    read[device, here, tensor] += moved[2]
                    written[device, here, tensor] += moved[3]
        state, slowest = states[stages], 0.0
        steps = steps_of(shape, state)
        compute = computing(shape, state.folds, steps)
        for level in range(shape.levels):
            got = state.read[level]
            work.cycles[level] = moving(costs, level, got, state.moved[level] - got)
            slowest = max(slowest, work.cycles[level])
        busy = compute + state.exposed
        cycles[device, 0] = elapsed(shape, state, steps, state.folds, busy, work.cycles, True)
        cycles[device, 1] = compute
        cycles[device, 2] = slowest
