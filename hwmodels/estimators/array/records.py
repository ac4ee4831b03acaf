"""Records that compiled functions read and write: a nest's shape, partial mappings, costs.

Loops are in the order of `LOOPS`, tensors in that of `TENSORS`, levels nearest to the array first.
A record does not keep the memory that it is in: whoever calls a compiled function does (`Room`).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

MOST_LEVELS = 16
"""Levels, and stages, that there is room for."""
NOWHERE = -1
"""In place of a level that a tensor does not pass."""

SHAPE = np.dtype(
    [
        ("levels", np.int64),
        ("stages", np.int64),
        # Steps of the nest's loops, the same in whole cycles of the array, those of one cycle.
        ("real", np.float64, (8,)),
        ("whole", np.float64, (8,)),
        ("unrolled", np.float64, (8,)),
        # Height and width of the input; 0 where windows do not overlap.
        ("in_size", np.float64, (2,)),
        ("stride", np.float64, (2,)),
        ("dilation", np.float64, (2,)),
        ("taps", np.float64),
        ("expansion", np.float64),
        # Bytes of an element of each tensor, of a partial sum, of an element at the places.
        ("each", np.float64, (3,)),
        ("partial", np.float64),
        ("register", np.float64),
        ("elements", np.float64, (3,)),
        # Level of each tensor by stage; the next one above cut i - 1; that of the whole tensor.
        ("path", np.int64, (MOST_LEVELS, 3)),
        ("upper", np.int64, (MOST_LEVELS, 3)),
        ("home", np.int64, (3,)),
        ("resident", np.int64, (3,)),
        # Steps over the instances of a level, instances, the same over those that differ.
        ("spread", np.float64, (MOST_LEVELS, 8)),
        ("instances", np.float64, (MOST_LEVELS,)),
        ("copies", np.float64, (MOST_LEVELS, 3)),
        # Share of a complete tensor's bytes that a code of the level saves.
        ("saved", np.float64, (MOST_LEVELS, 3)),
        # Whether a level is at the places; what has two tiles there; what is moved while the array
        # works, and of that, whose first or last tile is waited for; bytes an access.
        ("in_place", np.int64, (MOST_LEVELS,)),
        ("buffered", np.int64, (MOST_LEVELS, 3)),
        ("hidden", np.int64, (MOST_LEVELS, 3)),
        ("ended", np.int64, (MOST_LEVELS, 3)),
        # What waits for room where a tile does not fit twice; whether anything does anywhere; the
        # next level further in of what is at a level, or NOWHERE.
        ("roomed", np.int64, (MOST_LEVELS, 3)),
        ("waits_for_room", np.int64),
        ("lower", np.int64, (MOST_LEVELS, 3)),
        ("word", np.float64, (MOST_LEVELS,)),
        # Loops that have steps in a stage.
        ("free", np.int64, (MOST_LEVELS, 8)),
        # Level whose registers add up, or NOWHERE; whether several products make one output.
        ("sums", np.int64),
        ("adds", np.int64),
        # The highest cut from which no tensor's home is open any more.
        ("settled", np.int64),
        # The tensor in the places of a systolic array, or NOWHERE.
        ("stationary", np.int64),
        ("load_hidden", np.int64),
        ("rows", np.float64),
        ("columns", np.float64),
        ("throughput", np.float64),
    ]
)
"""A nest on axes and levels, without what the levels hold, deliver and take."""
Shape = NDArray[np.void]
"""One record of `SHAPE`, (1,)."""
STATE = np.dtype(
    [
        # Steps of the loops below the last cut that is decided and above it.
        ("tile", np.float64, (8,)),
        ("counts", np.float64, (8,)),
        # The tile in what is unrolled.
        ("steps", np.float64, (8,)),
        # Stationary run of each tensor at it.
        ("runs", np.float64, (3,)),
        # Joules and bytes of what crossed so far, over all instances.
        ("energy", np.float64),
        ("moved", np.float64, (MOST_LEVELS,)),
        # Of these, bytes that were read.
        ("read", np.float64, (MOST_LEVELS,)),
        # Cycles of fills that the array waits for.
        ("exposed", np.float64),
        # Cycles in which a level delivers the first tiles and takes the last one of the output.
        ("fill", np.float64, (MOST_LEVELS,)),
        ("drain", np.float64, (MOST_LEVELS,)),
        # Tiles that a level delivers one after another; infinite inside of the chip.
        ("rounds", np.float64, (MOST_LEVELS,)),
        # Folds of a systolic array; 0 before the multipliers' order is decided.
        ("folds", np.float64),
        # Of a tile that does not fit twice where it waits for room: cycles in which it comes, how
        # many come so after the first one, cycles of the last pass over it, cycles waited so far.
        ("load", np.float64, (3,)),
        ("again", np.float64, (3,)),
        ("window", np.float64, (3,)),
        ("late", np.float64, (3,)),
    ]
)
"""A partial mapping."""
REST = np.dtype(
    [
        # Joules and bytes by level of the first crossings of all tensors at cuts 0 to i - 1.
        ("first_j", np.float64, (MOST_LEVELS,)),
        ("first", np.float64, (MOST_LEVELS, MOST_LEVELS)),
        # Cycles of these for which the array waits, and of each more crossing at cut i - 1.
        ("waits", np.float64, (MOST_LEVELS,)),
        ("waits_again", np.float64, (MOST_LEVELS, 3)),
        # Of each more crossing of a tensor at cut i - 1: joules, bytes above and below it.
        ("again_j", np.float64, (MOST_LEVELS, 3)),
        ("above", np.float64, (MOST_LEVELS, 3)),
        ("here", np.float64, (MOST_LEVELS, 3)),
        # The first crossing of a tensor at the multipliers; all of them where it is what the order
        # of the loops keeps in place, and where it is not: joules, bytes above.
        ("last_j", np.float64, (3,)),
        ("last", np.float64, (3,)),
        ("kept_j", np.float64, (3,)),
        ("kept", np.float64, (3,)),
        ("passed_j", np.float64, (3,)),
        ("passed", np.float64, (3,)),
        # Crossings of a tensor that passes by at cut i - 1, besides the first one: joules, bytes
        # above and below, cycles for which the array waits; up to which of these cuts all others
        # pass by where a tensor is kept.
        ("passes_j", np.float64, (MOST_LEVELS, 3)),
        ("passes_above", np.float64, (MOST_LEVELS, 3)),
        ("passes_here", np.float64, (MOST_LEVELS, 3)),
        ("passes_wait", np.float64, (MOST_LEVELS, 3)),
        ("passes", np.int64, (3,)),
        # Whether keeping a tensor in place is of use; cycles of multiplying, without throughput.
        ("keeps", np.int64, (3,)),
        ("steps", np.float64),
    ]
)
"""The least that open cuts cost."""
COSTS = np.dtype(
    [
        ("capacity", np.float64, (MOST_LEVELS,)),
        # Bytes a cycle over all instances that work.
        ("rate", np.float64, (MOST_LEVELS,)),
        # Of a port for reads and one for writes; 0 where they share one.
        ("read_rate", np.float64, (MOST_LEVELS,)),
        ("write_rate", np.float64, (MOST_LEVELS,)),
        ("read_j", np.float64, (MOST_LEVELS,)),
        ("write_j", np.float64, (MOST_LEVELS,)),
        ("base_j", np.float64),
        ("idle_j", np.float64),
        ("goal", np.int64),
        ("has_energy", np.int64),
    ]
)
"""Figures of the levels of one device."""
WORK = np.dtype(
    [
        # Steps between two tilings; their reuse by tensor, and whether a run goes on above them.
        ("segment", np.float64, (8,)),
        ("groups", np.float64, (3,)),
        ("goes_on", np.int64, (3,)),
        # Reuse of the counts by tensor, and their product.
        ("reused", np.float64, (3,)),
        ("total", np.float64),
        # Elements that cross, and how often each stands beside itself above and below.
        ("crossed", np.float64, (3,)),
        ("outside", np.float64, (3,)),
        ("inside", np.float64, (3,)),
        # Bytes of the first tile, of the output's last one, from or to main memory; else 0.
        ("ends", np.float64, (3,)),
        # Whether the level below cut i - 1 can hold what a tensor has above it.
        ("holds", np.int64, (MOST_LEVELS, 3)),
        # Of one order: runs, bytes that are read and written above and below the cut.
        ("runs", np.float64, (3,)),
        ("moved", np.float64, (4,)),
        # Cycles in which all tiles of a tensor come to the level below the cut.
        ("coming", np.float64, (3,)),
        # Runs of the orders before, and the tensor whose loops are outermost.
        ("seen", np.float64, (6, 4)),
        # By level: bytes, cycles.
        ("level", np.float64, (MOST_LEVELS,)),
        ("cycles", np.float64, (MOST_LEVELS,)),
        ("share", np.float64, (8,)),
    ]
)
"""The tiling that is looked at, and scratch."""


class Room(NamedTuple):
    """Memory to work in."""

    states: NDArray[np.void]
    work: NDArray[np.void]
    rest: NDArray[np.void]
    costs: NDArray[np.void]

    @classmethod
    def of(cls, stages: int) -> Room:
        """Room for a nest on so many stages."""
        return cls(
            states=np.zeros(stages + 1, STATE),
            work=np.zeros(1, WORK),
            rest=np.zeros(1, REST),
            costs=np.zeros(1, COSTS),
        )


class Effort(NamedTuple):
    """Limits of a search."""

    tiles: tuple[int, int, int] = (64, 360, 2048)
    """Tiles of one level that are compared at once: in a first search, which soon finds a good
    mapping, and in further ones, of which that rules most out; 0: no further one."""
    most_looks: int = 48
    """Partial mappings whose inner levels are looked at."""
    wide_looks: int = 12
    """The same on whole grids of further searches, where each look is long."""
    most_children: int = 24
    """Tilings of one level that are followed, the most promising ones."""
    most_boxes: int = 256
    """Ranges of tilings that are looked at for the gap, at most."""
    zooms: int = 3
    """Finer grids around the best mapping so far, at most."""
    enough: float = 0.01
    """Share that a finer grid must gain to be followed by another."""


EFFORT = Effort()
QUICK = Effort(tiles=(512, 0, 0))
"""One search, for thousands of chips: half of the time or less, and mappings that are as good but
for rare exceptions (`studies/hardware_points`)."""
