"""Bytes that cross from level to level under one tiling, compiled.

The formulas are those of `traffic`, which has many tilings side by side and serves as the
definition: tests hold both to each other. Loops are G, B, K, C, OY, OX, FY, FX (0 to 7), tensors
input, weight, output (0 to 2).
"""

# Kernels take everything by position, since numba reads them, not mypy.
# ruff: noqa: PLR0917
# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, no-any-return"

from __future__ import annotations

import numpy as np

from hwmodels.estimators.array.compiled import compiled, inlined

INPUT, WEIGHT, OUTPUT = 0, 1, 2
ORDERS = np.array([[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]])
"""`traffic.ORDERS`: tensors whose reuse loops are between two levels, innermost first."""


@inlined
def reuse(tensor, x):
    """Product over loops that a tensor does not depend on, of (8,)."""
    if tensor == INPUT:
        return x[2]
    if tensor == WEIGHT:
        return x[1] * x[4] * x[5]
    return x[3] * x[6] * x[7]


@inlined
def relevant(tensor, x):
    """Product over loops that a tensor depends on, of (8,)."""
    if tensor == INPUT:
        return x[0] * x[1] * x[3] * x[4] * x[5] * x[6] * x[7]
    if tensor == WEIGHT:
        return x[0] * x[2] * x[3] * x[6] * x[7]
    return x[0] * x[1] * x[2] * x[4] * x[5]


@inlined
def window(shape, places, taps, axis):
    """Rows or columns of the input that so many places and taps touch."""
    if shape.in_size[axis] == 0.0:
        return places * taps
    extent = (places - 1) * shape.stride[axis] + (taps - 1) * shape.dilation[axis] + 1
    return min(extent, places * taps, shape.in_size[axis])


@inlined
def footprint(shape, tensor, x):
    """Elements of a tensor that a tile (8,) touches."""
    if tensor == WEIGHT:
        return x[0] * x[2] * x[3] * x[6] * x[7]
    if tensor == OUTPUT:
        return x[0] * x[1] * x[2] * x[4] * x[5]
    windows = window(shape, x[4], x[6], 0) * window(shape, x[5], x[7], 1)
    ins = x[3]
    if shape.taps > 1:
        channels = shape.real[3] / shape.taps
        covered = min(max(ins / channels, 1.0), shape.taps / shape.expansion)
        ins = min(ins, channels) * covered
    return x[0] * x[1] * ins * windows


@inlined
def share_of(shape, tensor, level, tile, share):
    """Elements of a tensor that a tile touches in one instance of a level; `share` is scratch."""
    if shape.instances[level] == 1:
        return footprint(shape, tensor, tile)
    for loop in range(8):
        share[loop] = max(tile[loop] / shape.spread[level, loop], 1.0)
    return footprint(shape, tensor, share)


@inlined
def held(shape, tensor, level, tile, counts, share):
    """Bytes of a tensor in one instance of a level."""
    if level == shape.home[tensor]:
        return shape.elements[tensor] * shape.each[tensor]
    each = shape.register if shape.in_place[level] else shape.each[tensor]
    if tensor == OUTPUT:
        sums = reuse(OUTPUT, counts) > 1 or (level == shape.sums and shape.adds)
        each = shape.partial if sums else shape.each[OUTPUT]
    moves = relevant(tensor, counts) > 1
    copies = 2.0 if moves and shape.buffered[level, tensor] else 1.0
    return share_of(shape, tensor, level, tile, share) * (each * copies)


@inlined
def least_held(shape, tensor, level, tile, share):
    """Bytes of a tensor in one instance of a level, at least: never less for more steps."""
    if level == shape.home[tensor]:
        return shape.elements[tensor] * shape.each[tensor]
    each = shape.register if shape.in_place[level] else shape.each[tensor]
    if tensor == OUTPUT:
        each = min(shape.partial, shape.each[OUTPUT])
    return share_of(shape, tensor, level, tile, share) * each


@inlined
def fits(shape, capacity, stage, state, share):
    """Whether a tile fits the levels of a stage."""
    used = (
        held_there(shape, 0, stage, state, share),
        held_there(shape, 1, stage, state, share),
        held_there(shape, 2, stage, state, share),
    )
    return within(shape, capacity, stage, used)


@inlined
def may_fit(shape, capacity, stage, tile, share):
    """Whether a tile of the same or of more steps may fit the levels of a stage."""
    used = (
        least_there(shape, 0, stage, tile, share),
        least_there(shape, 1, stage, tile, share),
        least_there(shape, 2, stage, tile, share),
    )
    return within(shape, capacity, stage, used)


@inlined
def held_there(shape, tensor, stage, state, share):
    """Bytes of a tensor in one instance of its level of a stage, if it has one."""
    level = shape.path[stage, tensor]
    return 0.0 if level < 0 else held(shape, tensor, level, state.tile, state.counts, share)


@inlined
def least_there(shape, tensor, stage, tile, share):
    """The same, at least."""
    level = shape.path[stage, tensor]
    return 0.0 if level < 0 else least_held(shape, tensor, level, tile, share)


@inlined
def within(shape, capacity, stage, used):
    """Whether the tensors of each level of a stage have room there together; used: by tensor."""
    for tensor in range(3):
        level = shape.path[stage, tensor]
        if level < 0:
            continue
        together = 0.0
        for other in range(3):
            if shape.path[stage, other] == level:
                together += used[other]
        if together > capacity[level] * (1 + 1e-9):
            return False
    return True


@inlined
def can_hold(shape, capacity, tensor, cut, state, share):
    """Whether the level below a cut has room for all of a tensor that a tile touches."""
    if cut < 0:
        return relevant(tensor, state.steps) <= 1
    level = shape.path[cut, tensor]
    if level < 0:
        return True
    used = held(shape, tensor, level, state.tile, state.counts, share)
    return used <= capacity[level] * (1 + 1e-9)


@inlined
def crossing_elements(shape, tensor, cut, tile, counts):
    """Elements of all tiles of a tensor together, overlaps of windows counted again."""
    windows = shape.in_size[0] != 0.0 or shape.in_size[1] != 0.0
    if tensor != INPUT:
        return shape.elements[tensor]
    if cut < 0 and shape.taps > 1:
        return shape.elements[tensor] * shape.expansion
    if not windows and shape.taps == 1:
        return shape.elements[tensor]
    moves = relevant(INPUT, counts)
    touched = footprint(shape, INPUT, tile) * moves
    edge = relevant(INPUT, shape.real) / (relevant(INPUT, tile) * moves)
    return max(touched * min(edge, 1.0), shape.elements[tensor])


@inlined
def copies_of(shape, tensor, level, tile, share):
    """Elements over the instances of a level, over those that differ."""
    if tensor != INPUT or (shape.in_size[0] == 0.0 and shape.in_size[1] == 0.0):
        return shape.copies[level, tensor]
    if shape.instances[level] == 1:
        return 1.0
    apart = share_of(shape, INPUT, level, tile, share) * shape.instances[level]
    return max(apart / footprint(shape, INPUT, tile), 1.0)


@inlined
def in_words(shape, level, moved, transfers):
    """The bytes that so many transfers move at a level, in whole words of its instances."""
    word = shape.word[level]
    if word == 0.0:
        return moved
    each = transfers * shape.instances[level]
    return np.ceil(moved / each / word - 1e-9) * word * each


@inlined
def least_in_words(shape, level, moved, transfers):
    """The bytes that at least so many transfers move at a level, at least."""
    if moved <= 0.0:
        return 0.0
    return max(moved, transfers * shape.instances[level] * shape.word[level])


@inlined
def start(shape, state):
    """The nest in main memory: nothing is decided."""
    for loop in range(8):
        state.tile[loop] = shape.whole[loop]
        state.counts[loop] = 1.0
    for tensor in range(3):
        state.runs[tensor] = 1.0
        state.again[tensor] = 0.0
    state.energy = 0.0
    state.exposed = 0.0
    state.folds = 0.0
    for level in range(shape.levels):
        state.moved[level] = 0.0
        state.read[level] = 0.0
        state.fill[level] = 0.0
        state.drain[level] = 0.0
        state.rounds[level] = np.inf


@inlined
def place_below(shape, outer, tile, first, state, work):
    """Takes a tile (8,) into a state, below the tiling of another one.

    Loops before the `first` are as the state and `work` have them.
    """
    segment, groups, goes_on = work.segment, work.groups, work.goes_on
    for loop in range(first, 8):
        segment[loop] = np.ceil(outer.tile[loop] / tile[loop] - 1e-9)
        state.tile[loop] = tile[loop]
        state.steps[loop] = np.ceil(tile[loop] / shape.unrolled[loop] - 1e-9)
        state.counts[loop] = outer.counts[loop] * segment[loop]
    for tensor in range(3):
        groups[tensor] = reuse(tensor, segment)
    for tensor in range(3):
        goes_on[tensor] = segment[0] == 1
        for other in range(3):
            if other != tensor and groups[other] != 1:
                goes_on[tensor] = False


@compiled
def prepare(shape, cut, state, work):
    """All that crosses a cut whatever the order of the loops above it."""
    tile, counts = state.tile, state.counts
    total = 1.0
    for loop in range(8):
        total *= counts[loop]
    work.total = total
    for tensor in range(3):
        work.reused[tensor] = reuse(tensor, counts)
        above = shape.upper[cut + 1, tensor]
        if above < 0:
            continue
        work.crossed[tensor] = crossing_elements(shape, tensor, cut, tile, counts)
        work.outside[tensor] = copies_of(shape, tensor, above, tile, work.share)
        if cut < 0:
            continue
        work.inside[tensor] = copies_of(shape, tensor, shape.path[cut, tensor], tile, work.share)
        work.ends[tensor] = 0.0
        waits = shape.ended[shape.path[cut, tensor], tensor] and not shape.resident[tensor]
        if waits and above == shape.home[tensor]:
            whole = shape.elements[tensor]
            end = min(footprint(shape, tensor, tile), whole)
            if tensor == OUTPUT:
                end = whole - (np.ceil(whole / end - 1e-9) - 1) * end
            work.ends[tensor] = end * (shape.each[tensor] * (1 - shape.saved[above, tensor]))


@inlined
def take_runs(outer, order, work):
    """Counts of the stationary run of each tensor below a segment.

    order: (3,) tensors whose reuse loops are in the segment, innermost first.
    """
    reached = True
    for place in range(3):
        tensor = order[place]
        run = work.groups[tensor] if reached else 1.0
        work.runs[tensor] = run * outer.runs[tensor] if work.goes_on[tensor] else run
        reached = reached and work.groups[tensor] == 1


@inlined
def outermost(shape, order, work):
    """The tensor whose reuse loops are outermost in a segment, if it counts; else 0."""
    if shape.waits_for_room:
        for place in range(2, 0, -1):
            if work.groups[order[place]] != 1:
                return order[place]
    return 0


@inlined
def seen_before(known, last, work):
    """Whether an order before had the same runs; of the `known` ones the next is taken down.

    last: the tensor whose loops are outermost, which must be the same.
    """
    seen, runs = work.seen, work.runs
    for other in range(known):
        same = seen[other, 0] == runs[0] and seen[other, 1] == runs[1]
        if same and seen[other, 2] == runs[2] and seen[other, 3] == last:
            return True
    for tensor in range(3):
        seen[known, tensor] = runs[tensor]
    seen[known, 3] = last
    return False


@inlined
def crossing(shape, tensor, cut, again, transfers, work):
    """Bytes of a tensor that cross a cut, into `work.moved`, in whole words.

    Read and written above it, read and written below it. `again` is how often each element
    crosses, `transfers` how many tiles do.
    """
    plain_crossing(shape, tensor, cut, again, work)
    above, moved = shape.upper[cut + 1, tensor], work.moved
    moved[0] = in_words(shape, above, moved[0], transfers)
    moved[1] = in_words(shape, above, moved[1], transfers)
    if cut >= 0:
        here = shape.path[cut, tensor]
        moved[2] = in_words(shape, here, moved[2], transfers)
        moved[3] = in_words(shape, here, moved[3], transfers)


@inlined
def plain_crossing(shape, tensor, cut, again, work):
    """The same, not in words."""
    above, crossed, moved = shape.upper[cut + 1, tensor], work.crossed[tensor], work.moved
    saved = shape.saved[above, tensor] * crossed * shape.each[tensor]
    if tensor == OUTPUT:
        complete = shape.each[OUTPUT]
        if cut < 0 and above != shape.home[OUTPUT]:
            complete = shape.partial  # rounded further out
        down = crossed * (again - 1) * shape.partial
        up = down + crossed * complete
        fetched, stored = down, up - saved
    else:
        down, up = crossed * again * shape.each[tensor], 0.0
        fetched, stored = down - saved * again, 0.0
    moved[0] = fetched * work.outside[tensor]
    moved[1] = stored * work.outside[tensor]
    if cut >= 0:
        moved[2] = up * work.inside[tensor]
        moved[3] = down * work.inside[tensor]


@inlined
def moving(costs, level, read, written):
    """Cycles in which a level moves bytes, over all instances."""
    if costs.write_rate[level] == 0.0:
        return (read + written) / costs.rate[level]
    return max(read / costs.read_rate[level], written / costs.write_rate[level])


@compiled
def cross(shape, costs, cut, outer, state, work):
    """A state with what crosses its cut, besides what crossed above it.

    It has its tile and counts; `work` is prepared for the cut and has the runs.
    """
    moved, energy, exposed = work.moved, outer.energy, outer.exposed
    for level in range(shape.levels):
        state.moved[level] = outer.moved[level]
        state.read[level] = outer.read[level]
        state.fill[level] = outer.fill[level]
        state.drain[level] = outer.drain[level]
        state.rounds[level] = outer.rounds[level]
    for tensor in range(3):
        run = work.runs[tensor]
        state.runs[tensor] = run
        above = shape.upper[cut + 1, tensor]
        if above < 0:
            continue
        if cut < 0 and tensor == OUTPUT and shape.sums >= 0:
            run = 1.0  # registers add up: each product reads and writes one
        transfers = work.total / run
        crossing(shape, tensor, cut, work.reused[tensor] / run, transfers, work)
        energy += moved[0] * costs.read_j[above] + moved[1] * costs.write_j[above]
        state.moved[above] += moved[0] + moved[1]
        state.read[above] += moved[0]
        if cut < 0:
            continue
        here = shape.path[cut, tensor]
        energy += moved[2] * costs.read_j[here] + moved[3] * costs.write_j[here]
        state.moved[here] += moved[2] + moved[3]
        state.read[here] += moved[2]
        outside = moving(costs, above, moved[0], moved[1])
        work.coming[tensor] = max(moving(costs, here, moved[2], moved[3]), outside)
        if not shape.hidden[here, tensor]:
            exposed += work.coming[tensor]
        if work.ends[tensor] > 0:
            if tensor == OUTPUT:
                state.drain[above] += work.ends[tensor] / costs.rate[above]
            else:
                state.fill[above] += work.ends[tensor] / costs.rate[above]
            known = 1.0 if np.isinf(state.rounds[above]) else state.rounds[above]
            state.rounds[above] = max(known, transfers)
    state.energy, state.exposed, state.folds = energy, exposed, 0.0
    if cut < 0 and shape.stationary >= 0:
        state.folds = work.total / work.runs[shape.stationary]


@compiled
def wait_for_room(shape, costs, cut, outer, order, state, work):
    """Takes the cycles into a state in which tiles are waited for that do not fit twice.

    After `cross`. order: (3,) of the loops of the segment, innermost first. What is certain is
    taken at once: a level further in that holds all of a tile leaves its room.
    """
    for tensor in range(3):
        state.again[tensor] = 0.0
        if outer.again[tensor] > 0:
            pass_over(shape, cut, tensor, outer, order, state, work)
    if cut < 0:
        return
    for tensor in range(3):
        if shape.path[cut, tensor] >= 0 and shape.upper[cut + 1, tensor] >= 0:
            come_in(shape, costs, cut, tensor, state, work)


@inlined
def come_in(shape, costs, cut, tensor, state, work):
    """Takes the tiles of a tensor that come to the level below a cut, if they wait for room."""
    here = shape.path[cut, tensor]
    state.again[tensor], state.late[tensor] = 0.0, 0.0
    transfers = work.total / state.runs[tensor]
    if not shape.roomed[here, tensor] or transfers <= 1:
        return
    if fits_twice(shape, costs, cut, tensor, state, work):
        return
    state.load[tensor] = work.coming[tensor] / transfers
    state.again[tensor] = transfers - 1
    window = 1.0
    for loop in range(8):
        window *= state.steps[loop]
    state.window[tensor] = window / shape.throughput
    further_in = shape.lower[here, tensor]
    certain = further_in < 0
    if not certain:
        least = least_held(shape, tensor, further_in, state.tile, work.share)
        certain = least > costs.capacity[further_in] * (1 + 1e-9)
    if certain:
        take_late(tensor, state)


@inlined
def take_late(tensor, state):
    """Takes the cycles of waiting for a tensor's tiles that are not taken yet."""
    late = state.again[tensor] * max(state.load[tensor] - state.window[tensor], 0.0)
    state.exposed += late - state.late[tensor]
    state.late[tensor] = late


@inlined
def pass_over(shape, cut, tensor, outer, order, state, work):
    """Counts the passes of a segment's outermost loops over the tile of a tensor around it."""
    state.load[tensor], state.again[tensor] = outer.load[tensor], outer.again[tensor]
    state.window[tensor], state.late[tensor] = outer.window[tensor], outer.late[tensor]
    around = work.segment[0] == 1
    for place in range(2, -1, -1):
        other = order[place]
        if other != tensor:
            around = around and work.groups[other] == 1
        elif around:
            state.window[tensor] /= work.groups[tensor]
    if cut < 0 or not around:
        take_late(tensor, state)
        state.again[tensor] = 0.0
    elif state.late[tensor] > 0:
        take_late(tensor, state)


@inlined
def fits_twice(shape, costs, cut, tensor, state, work):
    """Whether a tensor has room for its next tile, after those before it in the order of tensors.

    Of those in the same level, the first ones have what is left first.
    """
    level, used = shape.path[cut, tensor], 0.0
    for other in range(3):
        if shape.path[cut, other] == level:
            used += held(shape, other, level, state.tile, state.counts, work.share)
    room = costs.capacity[level] * (1 + 1e-9)
    for other in range(3):
        if shape.path[cut, other] != level or not shape.roomed[level, other]:
            continue
        own = held(shape, other, level, state.tile, state.counts, work.share)
        if other == tensor:
            return used + own <= room
        if used + own <= room:
            used += own
    return False


@compiled
def decide(shape, costs, cut, outer, tile, order, state, work):
    """A state below another one: a tile, and the order of the loops between."""
    place_below(shape, outer, tile, 0, state, work)
    prepare(shape, cut, state, work)
    take_runs(outer, ORDERS[order], work)
    cross(shape, costs, cut, outer, state, work)
    if shape.waits_for_room:
        wait_for_room(shape, costs, cut, outer, ORDERS[order], state, work)


@compiled
def take_costs(shape, figures, device, goal, costs):
    """The figures of one of the devices, into `costs`."""
    costs.goal = goal
    costs.base_j = figures.base_j[device]
    costs.idle_j = figures.idle_j[device]
    has_energy = costs.base_j > 0 or costs.idle_j > 0
    for level in range(shape.levels):
        costs.capacity[level] = figures.capacity[device, level]
        costs.rate[level] = figures.rate[device, level] * shape.instances[level]
        costs.write_rate[level] = figures.write_rate[device, level] * shape.instances[level]
        costs.read_rate[level] = costs.rate[level] - costs.write_rate[level]
        costs.read_j[level] = figures.read_j[device, level]
        costs.write_j[level] = figures.write_j[device, level]
        has_energy = has_energy or costs.read_j[level] > 0 or costs.write_j[level] > 0
    costs.has_energy = has_energy
