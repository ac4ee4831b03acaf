"""The goal of a mapping, and the least goal of mappings that share their outer levels, compiled.

At each open cut a tensor crosses at least once, and again for each count above of a loop that it
does not depend on, unless those counts are its stationary run and the level holds all that is
below them: open loops can at best be stationary too. At the multipliers, whose order of loops
reuses one tensor only, the best single order is a second bound; the larger of the two holds.
"""

# Kernels take everything by position, since numba reads them, not mypy.
# ruff: noqa: PLR0917
# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, no-any-return"

from __future__ import annotations

import numpy as np

from hwmodels.estimators.array.compiled import compiled, inlined
from hwmodels.estimators.array.crossing import (
    INPUT,
    ORDERS,
    OUTPUT,
    WEIGHT,
    can_hold,
    cross,
    crossing,
    place_below,
    prepare,
    relevant,
    reuse,
    start,
    take_runs,
)
from hwmodels.estimators.array.cycles import computing, elapsed, steps_of

LATENCY, ENERGY, EDP = 0, 1, 2
"""Goals."""
SINGLE = 1e-6
"""Weight of energy where latency is the goal, and the other way round: ties."""


@compiled
def find_rest(shape, costs, states, work, rest):
    """The least that each cut can cost, into `rest`; works in two of the states."""
    outer, state = states[0], states[1]
    clear(shape, rest)
    for index in range(shape.stages - 1, -1, -1):
        cut = index - 1
        for loop in range(8):
            state.tile[loop] = shape.unrolled[loop] if cut < 0 else shape.whole[loop]
        for tensor in range(3):
            if shape.upper[index, tensor] >= 0:
                for visits in range(1, 3):
                    cross_alone(shape, costs, tensor, cut, visits, state, work, rest)
    find_multiplier(shape, costs, cut, outer, state, work, rest)
    for index in range(1, shape.stages):
        rest.first_j[index] += rest.first_j[index - 1]
        for level in range(shape.levels):
            rest.first[index, level] += rest.first[index - 1, level]


@inlined
def clear(shape, rest):
    """No first crossings."""
    rest.last_j = 0.0
    for level in range(shape.levels):
        rest.last[level] = 0.0
    for index in range(shape.stages):
        rest.first_j[index] = 0.0
        for level in range(shape.levels):
            rest.first[index, level] = 0.0


@compiled
def find_multiplier(shape, costs, cut, outer, state, work, rest):
    """The least that the best single order at the multipliers, which are the cut, takes."""
    start(shape, outer)
    place_below(shape, outer, shape.unrolled, 0, state, work)
    prepare(shape, cut, state, work)
    rest.multiplier_j = np.inf
    for order in range(6):
        take_runs(outer, ORDERS[order], work)
        cross(shape, costs, cut, outer, state, work)
        rest.multiplier_j = min(rest.multiplier_j, state.energy)
        for level in range(shape.levels):
            least = rest.multiplier[level] if order else np.inf
            rest.multiplier[level] = min(least, state.moved[level])


@compiled
def cross_alone(shape, costs, tensor, cut, visits, state, work, rest):
    """Takes the first crossing of a tensor, or by how much a second one is more, into `rest`."""
    for loop in range(8):
        state.counts[loop] = 1.0
    state.counts[2 if tensor == INPUT else (1 if tensor == WEIGHT else 3)] = visits
    prepare(shape, cut, state, work)
    crossing(shape, tensor, cut, 1.0 * visits, 1.0 * visits, work)
    index, above, moved = cut + 1, shape.upper[cut + 1, tensor], work.moved
    outside, inside = moved[0] + moved[1], 0.0
    joules = moved[0] * costs.read_j[above] + moved[1] * costs.write_j[above]
    here = 0
    if cut >= 0:
        here, inside = shape.path[cut, tensor], moved[2] + moved[3]
        joules += moved[2] * costs.read_j[here] + moved[3] * costs.write_j[here]
    if visits == 2:
        rest.again_j[index, tensor] += joules
        rest.above[index, tensor] += outside
        rest.here[index, tensor] += inside
        return
    rest.again_j[index, tensor] = -joules
    rest.above[index, tensor] = -outside
    rest.here[index, tensor] = -inside
    if cut < 0:
        rest.last_j += joules
        rest.last[above] += outside
    else:
        rest.first_j[index] += joules
        rest.first[index, above] += outside
        rest.first[index, here] += inside


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
    """Joules that open cuts take at least; takes all bytes into `work.level`."""
    level, last = work.level, work.cycles
    if cut < 0:
        for index in range(shape.levels):
            level[index] = state.moved[index]
        return 0.0
    joules, last_j = rest.first_j[cut], rest.last_j
    for index in range(shape.levels):
        level[index] = state.moved[index] + rest.first[cut, index]
        last[index] = rest.last[index]
    for index in range(cut + 1):
        for tensor in range(3):
            above = shape.upper[index, tensor]
            if above < 0:
                continue
            more = crossings_again(shape, index, tensor, state, work)
            if index == 0:
                last_j += rest.again_j[0, tensor] * more
                last[above] += rest.above[0, tensor] * more
            else:
                joules += rest.again_j[index, tensor] * more
                level[above] += rest.above[index, tensor] * more
                level[shape.path[index - 1, tensor]] += rest.here[index, tensor] * more
    for index in range(shape.levels):
        level[index] += max(last[index], rest.multiplier[index])
    return joules + max(last_j, rest.multiplier_j)


@compiled
def score(shape, costs, rest, cut, settled, state, work):
    """The goal of a mapping, or its bound where inner cuts are open.

    settled: whether the tiles of main memory are known for all tensors; without, it is a bound.
    """
    energy = state.energy + add_rest(shape, rest, cut, state, work)
    folds = state.folds
    if shape.stationary >= 0 and folds == 0:
        folds = work.total * relevant(shape.stationary, state.steps)
        if work.holds[0, shape.stationary]:
            folds /= state.runs[shape.stationary]
        folds = max(folds, 1.0)
    steps = steps_of(shape, state)
    busy = computing(shape, folds, steps) + state.exposed
    for level in range(shape.levels):
        work.cycles[level] = work.level[level] / costs.rate[level]
    cycles = elapsed(shape, state, steps, folds, busy, work.cycles, settled)
    energy += costs.base_j + costs.idle_j * cycles
    if costs.goal == LATENCY:
        return cycles * (1 + SINGLE * energy / (1 + energy))
    if costs.goal == ENERGY:
        return energy * (1 + SINGLE * cycles / (1 + cycles))
    return energy * cycles if costs.has_energy else cycles
