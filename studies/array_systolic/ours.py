"""The arrays that SCALE-Sim simulates, as this project's hierarchies and nests."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from hwmodels.devices.spatial import LOOPS, Loop
from hwmodels.estimators.array.hierarchy import Axis, Hierarchy, Level
from hwmodels.estimators.array.nest import RELEVANT, Nest
from hwmodels.estimators.array.traffic import Placed
from hwmodels.estimators.array.uneven import UnevenMapping
from hwmodels.tensors import TENSORS, TensorName

Row = Mapping[Any, Any]
"""Of a table of `oracle.py`."""
STATIONARY: dict[str, TensorName] = {"ws": "weight", "os": "output", "is": "input"}
ON_AXES: dict[TensorName, tuple[Loop, Loop]] = {
    "weight": ("C", "K"),
    "input": ("C", "OX"),
    "output": ("OX", "K"),
}
"""Loops on rows and columns, of the product that a convolution amounts to."""


def array(row: Row, memories: tuple[Level, ...]) -> Hierarchy:
    """The array of a table's row; a place's register holds the tensor that stays."""
    stationary = STATIONARY[row["dataflow"]]
    rows, columns = ON_AXES[stationary]
    return Hierarchy(
        name="systolic",
        clock_hz=1e9,
        axes=(
            Axis(name="rows", size=int(row["rows"]), unrolls=(rows,)),
            Axis(name="columns", size=int(row["columns"]), unrolls=(columns,)),
        ),
        levels=(level("register", 4, (stationary,), per=("rows", "columns")), *memories),
        movement="systolic",
        stationary=stationary,
        load_hidden=False,
    )


def never_stalling(row: Row) -> Hierarchy:
    """An array under one memory that delivers whatever is asked."""
    return array(row, (level("dram", math.inf, TENSORS),))


def buffered(row: Row) -> Hierarchy:
    """An array with a double buffer a tensor, each behind a port of its own."""
    words = {"input": row["words"], "weight": row["words"], "output": row["output_words"]}
    sram = float(row["sram"])
    return array(
        row,
        (
            *(
                replace(level(f"{t}_sram", sram, (t,)), double_buffered=frozenset({t}))
                for t in TENSORS
            ),
            *(
                replace(level(f"{t}_dram", math.inf, (t,)), bytes_per_cycle=words[t])
                for t in TENSORS
            ),
        ),
    )


def scale_sim_loops(row: Row, placed: Placed) -> UnevenMapping:
    """SCALE-Sim's order: a fold's stream, folds of rows, folds of columns; a half holds what is
    next."""
    rows, columns = ON_AXES[STATIONARY[row["dataflow"]]]
    free: tuple[Loop, ...] = ("OX", "K", "C")
    stream = next(loop for loop in free if loop not in (rows, columns))
    steps = placed.sizes / placed.unrolling.tile
    order: tuple[Loop, ...] = (stream, rows, columns)
    loops = [(loop, float(steps[LOOPS.index(loop)])) for loop in order]
    half = row["sram"] / 2
    cuts = {tensor: _held(placed, loops, tensor, half) for tensor in TENSORS}
    # Loops are cut where some tensor's half ends.
    edges = sorted({(index, part) for index, part in cuts.values()} | {(n, 1.0) for n in range(4)})
    pieces: list[tuple[Loop, float]] = []
    for (index, part), (after, more) in itertools.pairwise(edges):
        whole = loops[index][1] if after > index else more
        pieces.append((loops[index][0], whole / part))
    inside = {tensor: edges.index(cuts[tensor]) for tensor in TENSORS}
    stationary = STATIONARY[row["dataflow"]]
    return UnevenMapping(
        loops=tuple(pieces),
        inside={t: (0, inside[t]) if t == stationary else (inside[t],) for t in TENSORS},
    )


def _held(
    placed: Placed, loops: list[tuple[Loop, float]], tensor: TensorName, words: float
) -> tuple[int, float]:
    """Whole loops whose part of a tensor fits into so many words, and steps of the next one."""
    tile = placed.unrolling.tile.copy()
    for index, (loop, count) in enumerate(loops):
        held = float(placed.nest.footprint(tensor, tile))
        tile[LOOPS.index(loop)] *= count
        if loop in RELEVANT[tensor] and placed.nest.footprint(tensor, tile) > words:
            return index, max(words / held, 1.0)
    return len(loops), 1.0


def level(
    name: str, capacity: float, holds: tuple[TensorName, ...], per: tuple[str, ...] = ()
) -> Level:
    return Level(
        name=name,
        holds=holds,
        per=frozenset(per),
        capacity_bytes=capacity,
        bytes_per_cycle=math.inf,
        read_j=0.0,
        write_j=0.0,
        double_buffered=frozenset(),
    )


def nest(row: Row) -> Nest:
    """The loops of a table's row."""

    def size(name: str) -> int:
        return int(row[name])

    height, width, stride = size("height"), size("width"), size("stride")
    taps = size("taps_y"), size("taps_x")
    places = tuple(
        (whole - tap) // stride + 1 for whole, tap in zip((height, width), taps, strict=True)
    )
    product = taps == (1, 1) and width == 1 and stride == 1
    return Nest(
        sizes=(size("groups"), 1, size("filters"), size("channels"), *places, *taps),
        in_size=(0, 0) if product else (height, width),
        stride=(stride, stride),
    )
