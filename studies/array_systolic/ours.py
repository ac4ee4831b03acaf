"""The arrays that SCALE-Sim simulates, as this project's hierarchies and nests."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from hwmodels.devices.spatial import Loop
from hwmodels.estimators.array.hierarchy import Axis, Hierarchy, Level
from hwmodels.estimators.array.nest import Nest
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


def array(row: Row) -> Hierarchy:
    """The array of a table's row, under memories that never stall."""
    stationary = STATIONARY[row["dataflow"]]
    rows, columns = ON_AXES[stationary]
    return Hierarchy(
        name="systolic",
        clock_hz=1e9,
        axes=(
            Axis(name="rows", size=int(row["rows"]), unrolls=(rows,)),
            Axis(name="columns", size=int(row["columns"]), unrolls=(columns,)),
        ),
        levels=(
            level("register", 4, (stationary,), per=("rows", "columns")),
            level("dram", math.inf, TENSORS),
        ),
        movement="systolic",
        stationary=stationary,
        load_hidden=False,
    )


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
        double_buffered=False,
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
