"""The goal of a mapping, and the least goal of mappings that share their outer levels, compiled.

At each open cut a tensor crosses at least once, and again for each count above of a loop that it
does not depend on, unless those counts are its stationary run and the level holds all that is
below them: open loops can at best be stationary too. At the multipliers an order of loops keeps
one tensor in place while the others pass by: the least of the three bounds is one. There joules,
bytes and folds go together, which the least of each alone would not.
"""

# Kernels take everything by position, since numba reads them, not mypy.
# ruff: noqa: PLR0917
# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, no-any-return"

from __future__ import annotations

import numpy as np

from hwmodels.devices.spatial import LOOPS
from hwmodels.estimators.array.compiled import compiled, inlined
from hwmodels.estimators.array.crossing import (
    INPUT,
    OUTPUT,
    WEIGHT,
    can_hold,
    least_held,
    least_in_words,
    moving,
    place_below,
    plain_crossing,
    prepare,
    relevant,
    reuse,
    start,
)
from hwmodels.estimators.array.cycles import computing, elapsed, steps_of
from hwmodels.estimators.array.nest import RELEVANT
from hwmodels.tensors import TENSORS

LATENCY, ENERGY, EDP = 0, 1, 2
"""Goals."""
NEEDED = np.array([[loop in RELEVANT[tensor] for loop in LOOPS] for tensor in TENSORS])
"""(3, 8) whether each tensor depends on each loop."""
SINGLE = 1e-6
"""Weight of energy where latency is the goal, and the other way round: ties."""


@compiled
def find_rest(shape, costs, states, work, rest):
    """The least that each cut can cost, into `rest`; works in two of the states."""
    outer, state = states[0], states[1]
    for index in range(shape.stages):
        rest.first_j[index] = 0.0
        rest.waits[index] = 0.0
        for level in range(shape.levels):
            rest.first[index, level] = 0.0
    for index in range(shape.stages - 1, -1, -1):
        cut = index - 1
        for loop in range(8):
            state.tile[loop] = shape.unrolled[loop] if cut < 0 else shape.whole[loop]
        for tensor in range(3):
            if shape.upper[index, tensor] >= 0:
                for visits in range(1, 3):
                    cross_alone(shape, costs, tensor, cut, visits, state, work, rest)
    find_multiplier(shape, costs, outer, state, work, rest)
    for index in range(1, shape.stages):
        rest.first_j[index] += rest.first_j[index - 1]
        rest.waits[index] += rest.waits[index - 1]
        for level in range(shape.levels):
            rest.first[index, level] += rest.first[index - 1, level]


@compiled
def find_multiplier(shape, costs, outer, state, work, rest):
    """The least that a tensor takes at the multipliers: kept in place by the order, or passing by.

    An order keeps one tensor in place: the others cross for each product. So they do at the cuts
    above where a level has no room for more steps of one of them than are unrolled.
    """
    start(shape, outer)
    place_below(shape, outer, shape.unrolled, 0, state, work)
    prepare(shape, -1, state, work)
    rest.steps = work.total
    for tensor in range(3):
        above, run = shape.upper[0, tensor], work.groups[tensor]
        rest.keeps[tensor] = run > 1
        if tensor == OUTPUT and shape.sums >= 0:
            run = 1.0
        if above >= 0:
            rest.kept[tensor], rest.kept_j[tensor] = all_crossings(
                shape, costs, tensor, above, run, work
            )
            rest.passed[tensor], rest.passed_j[tensor] = all_crossings(
                shape, costs, tensor, above, 1.0, work
            )
    find_passing(shape, costs, state, work, rest)


@compiled
def find_passing(shape, costs, state, work, rest):
    """Takes what tensors that pass by take at cuts above, and up to which cut all others do.

    state: the multipliers'.
    """
    for tensor in range(3):
        rest.passes[tensor] = 0
    for index in range(1, shape.stages):
        prepare(shape, index - 1, state, work)
        for tensor in range(3):
            if shape.upper[index, tensor] < 0:
                continue
            take_passing(shape, costs, tensor, index, work, rest)
            if is_tight(shape, costs, tensor, index - 1, state, work):
                for kept in range(3):
                    if kept != tensor:
                        rest.passes[kept] = index


@compiled
def take_passing(shape, costs, tensor, index, work, rest):
    """Takes what a tensor that passes by takes at a cut, besides a first crossing."""
    above, here, moved = shape.upper[index, tensor], shape.path[index - 1, tensor], work.moved
    plain_crossing(shape, tensor, index - 1, work.reused[tensor], work)
    for way in range(4):
        level = above if way < 2 else here
        moved[way] = least_in_words(shape, level, moved[way], work.total)
    joules = moved[0] * costs.read_j[above] + moved[1] * costs.write_j[above]
    joules += moved[2] * costs.read_j[here] + moved[3] * costs.write_j[here]
    outside, inside = moved[0] + moved[1], moved[2] + moved[3]
    rest.passes_j[index, tensor] += joules
    rest.passes_above[index, tensor] += outside
    rest.passes_here[index, tensor] += inside
    if not shape.hidden[here, tensor]:
        waits = max(outside / costs.rate[above], inside / costs.rate[here])
        rest.passes_wait[index, tensor] += waits


@compiled
def is_tight(shape, costs, tensor, stage, state, work):
    """Whether a level has no room for more of a tensor than what is unrolled.

    state: has the tile that is unrolled, which is left as it is.
    """
    level, tile, counts = shape.path[stage, tensor], state.tile, work.segment
    shared = shape.in_size[0] != 0.0 or shape.in_size[1] != 0.0 or shape.taps > 1
    whole = least_held(shape, tensor, level, shape.whole, work.share)
    for loop in range(8):
        steps = np.ceil(shape.whole[loop] / shape.unrolled[loop] - 1e-9)
        if steps < 2 or not NEEDED[tensor, loop]:
            continue
        for other in range(8):
            counts[other] = np.ceil(shape.whole[other] / shape.unrolled[other] - 1e-9)
        tile[loop] = 2 * shape.unrolled[loop]
        counts[loop] = np.ceil(steps / 2)
        held = least_held(shape, tensor, level, tile, work.share)
        moves = relevant(tensor, counts) > 1
        tile[loop] = shape.unrolled[loop]
        if moves and shape.buffered[level, tensor] and not (tensor == INPUT and shared):
            held = min(2 * held, whole)  # all of it has no second half
        if held <= costs.capacity[level] * (1 + 1e-9):
            return False
    return True


@inlined
def all_crossings(shape, costs, tensor, above, run, work):
    """Bytes and joules above the multipliers of a tensor that stays for so many products."""
    moved, transfers = work.moved, work.total / run
    plain_crossing(shape, tensor, -1, work.reused[tensor] / run, work)
    read = least_in_words(shape, above, moved[0], transfers)
    written = least_in_words(shape, above, moved[1], transfers)
    return read + written, read * costs.read_j[above] + written * costs.write_j[above]


@compiled
def cross_alone(shape, costs, tensor, cut, visits, state, work, rest):
    """Takes the first crossing of a tensor, or by how much a second one is more, into `rest`."""
    for loop in range(8):
        state.counts[loop] = 1.0
    state.counts[2 if tensor == INPUT else (1 if tensor == WEIGHT else 3)] = visits
    prepare(shape, cut, state, work)
    plain_crossing(shape, tensor, cut, 1.0 * visits, work)
    index, above, moved = cut + 1, shape.upper[cut + 1, tensor], work.moved
    moved[0] = least_in_words(shape, above, moved[0], visits)
    moved[1] = least_in_words(shape, above, moved[1], visits)
    outside, inside, waits = moved[0] + moved[1], 0.0, 0.0
    joules = moved[0] * costs.read_j[above] + moved[1] * costs.write_j[above]
    here = 0
    if cut >= 0:
        here = shape.path[cut, tensor]
        moved[2] = least_in_words(shape, here, moved[2], visits)
        moved[3] = least_in_words(shape, here, moved[3], visits)
        inside = moved[2] + moved[3]
        joules += moved[2] * costs.read_j[here] + moved[3] * costs.write_j[here]
        if not shape.hidden[here, tensor]:
            waits = max(outside / costs.rate[above], inside / costs.rate[here])
    if visits == 2:
        rest.again_j[index, tensor] += joules
        rest.above[index, tensor] += outside
        rest.here[index, tensor] += inside
        rest.waits_again[index, tensor] += waits
        return
    rest.passes_j[index, tensor] = -joules
    rest.passes_above[index, tensor] = -outside
    rest.passes_here[index, tensor] = -inside
    rest.passes_wait[index, tensor] = -waits
    rest.again_j[index, tensor] = -joules
    rest.above[index, tensor] = -outside
    rest.here[index, tensor] = -inside
    rest.waits_again[index, tensor] = -waits
    if cut < 0:
        rest.last_j[tensor] = joules
        rest.last[tensor] = outside
    else:
        rest.first_j[index] += joules
        rest.first[index, above] += outside
        rest.first[index, here] += inside
        rest.waits[index] += waits


@compiled
def hope_for_holds(cut, work):
    """As if levels below open cuts could hold whatever a tensor has above them."""
    for index in range(cut + 1):
        for tensor in range(3):
            work.holds[index, tensor] = True


@compiled
def find_holds(shape, costs, cut, state, work):
    """Whether levels below open cuts can hold what a tensor has above them."""
    for index in range(cut + 1):
        for tensor in range(3):
            work.holds[index, tensor] = can_hold(
                shape, costs.capacity, tensor, index - 1, state, work.share
            )


@inlined
def crossings_again(shape, index, tensor, state, work):
    """Crossings of a tensor after its first one at cut `index` - 1, at least."""
    more = work.reused[tensor]
    if index == 0 and tensor == OUTPUT and shape.sums >= 0:
        more *= reuse(OUTPUT, state.steps)
    elif work.holds[index, tensor]:
        more /= state.runs[tensor]
    return more - 1


@compiled
def add_rest(shape, rest, cut, state, work):
    """Joules and waiting cycles of open cuts above the multipliers, at least.

    Takes all bytes so far into `work.level`.
    """
    level = work.level
    if cut < 0:
        for index in range(shape.levels):
            level[index] = state.moved[index]
        return 0.0, 0.0
    joules, waits = rest.first_j[cut], rest.waits[cut]
    for index in range(shape.levels):
        level[index] = state.moved[index] + rest.first[cut, index]
    for index in range(1, cut + 1):
        for tensor in range(3):
            above = shape.upper[index, tensor]
            if above < 0:
                continue
            more = crossings_again(shape, index, tensor, state, work)
            joules += rest.again_j[index, tensor] * more
            waits += rest.waits_again[index, tensor] * more
            level[above] += rest.above[index, tensor] * more
            level[shape.path[index - 1, tensor]] += rest.here[index, tensor] * more
    return joules, waits


@compiled
def add_inner(shape, costs, rest, cut, kept, state, work):
    """More joules and waiting cycles, at least, of an order of loops that keeps a tensor in place.

    At the multipliers, and at open cuts where the others pass by. Takes cycles of all bytes by
    level into `work.cycles`.
    """
    joules, waits, last = 0.0, 0.0, work.cycles
    for level in range(shape.levels):
        last[level] = work.level[level]
    for tensor in range(3):
        above = shape.upper[0, tensor]
        if above < 0:
            continue
        more = crossings_again(shape, 0, tensor, state, work)
        moved = rest.last[tensor] + rest.above[0, tensor] * more
        energy = rest.last_j[tensor] + rest.again_j[0, tensor] * more
        if tensor == kept:
            last[above] += max(moved, rest.kept[tensor])
            joules += max(energy, rest.kept_j[tensor])
        else:
            last[above] += max(moved, rest.passed[tensor])
            joules += max(energy, rest.passed_j[tensor])
    for index in range(1, min(cut, rest.passes[kept]) + 1):
        for tensor in range(3):
            above = shape.upper[index, tensor]
            if above < 0 or tensor == kept:
                continue
            here = shape.path[index - 1, tensor]
            more = crossings_again(shape, index, tensor, state, work)
            again = rest.passes_j[index, tensor] - rest.again_j[index, tensor] * more
            joules += max(again, 0.0)
            again = rest.passes_wait[index, tensor] - rest.waits_again[index, tensor] * more
            waits += max(again, 0.0)
            again = rest.passes_above[index, tensor] - rest.above[index, tensor] * more
            last[above] += max(again, 0.0)
            again = rest.passes_here[index, tensor] - rest.here[index, tensor] * more
            last[here] += max(again, 0.0)
    for level in range(shape.levels):
        last[level] /= costs.rate[level]
        if costs.write_rate[level] > 0.0:
            written = state.moved[level] - state.read[level]
            last[level] = max(last[level], moving(costs, level, state.read[level], written))
    return joules, waits


@inlined
def folds_of(shape, rest, kept, state, work):
    """Folds of a systolic array, at least, whose order of loops keeps a tensor in place."""
    if kept != shape.stationary:
        return max(rest.steps, 1.0)  # the next product has another element
    folds = work.total * relevant(shape.stationary, state.steps)
    if work.holds[0, shape.stationary]:
        folds /= state.runs[shape.stationary]
    return max(folds, 1.0)


@compiled
def score(shape, costs, rest, cut, settled, state, work):
    """The goal of a mapping, or its bound where inner cuts are open.

    settled: whether the tiles of main memory are known for all tensors; without, it is a bound.
    """
    joules, waits = add_rest(shape, rest, cut, state, work)
    energy, exposed = state.energy + joules, state.exposed + waits
    if cut < 0:
        for level in range(shape.levels):
            written = state.moved[level] - state.read[level]
            work.cycles[level] = moving(costs, level, state.read[level], written)
        return goal_of(shape, costs, energy, state.folds, exposed, settled, state, work)
    best, any_kept = np.inf, rest.keeps[0] or rest.keeps[1] or rest.keeps[2]
    for kept in range(3):
        if any_kept and not rest.keeps[kept]:
            continue  # no better than another
        inner_j, inner_waits = add_inner(shape, costs, rest, cut, kept, state, work)
        folds = 0.0
        if shape.stationary >= 0:
            folds = folds_of(shape, rest, kept, state, work)
        found = goal_of(
            shape, costs, energy + inner_j, folds, exposed + inner_waits, settled, state, work
        )  # fmt: skip
        best = min(best, found)
    return best


@inlined
def goal_of(shape, costs, energy, folds, exposed, settled, state, work):
    """The goal of joules and of cycles by level, which are in `work.cycles`."""
    steps = steps_of(shape, state)
    busy = computing(shape, folds, steps) + exposed
    cycles = elapsed(shape, state, steps, folds, busy, work.cycles, settled)
    energy += costs.base_j + costs.idle_j * cycles
    if costs.goal == LATENCY:
        return cycles * (1 + SINGLE * energy / (1 + energy))
    if costs.goal == ENERGY:
        return energy * (1 + SINGLE * cycles / (1 + cycles))
    return energy * cycles if costs.has_energy else cycles
