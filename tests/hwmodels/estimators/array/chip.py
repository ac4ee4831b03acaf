"""Small arrays that tests map on."""

from __future__ import annotations

from hwmodels.devices.spatial import Movement
from hwmodels.estimators.array.hierarchy import Axis, Hierarchy, Level
from hwmodels.tensors import TensorName

ALL: tuple[TensorName, ...] = ("input", "weight", "output")


def level(
    name: str,
    capacity: float,
    *,
    holds: tuple[TensorName, ...] = ALL,
    per: tuple[str, ...] = (),
    width: float = 1e9,
    read_j: float = 1.0,
    write_j: float | None = None,
    double_buffered: bool = False,
) -> Level:
    """A level; by default one that never stalls and takes a joule a byte."""
    return Level(
        name=name,
        holds=holds,
        per=frozenset(per),
        capacity_bytes=capacity,
        bytes_per_cycle=width,
        read_j=read_j,
        write_j=read_j if write_j is None else write_j,
        double_buffered=frozenset(holds if double_buffered else ()),
    )


def systolic(
    stationary: TensorName, rows: int, columns: int, *, hidden: bool = False, width: float = 1e9
) -> Hierarchy:
    """A systolic array whose places hold one element of the stationary tensor.

    Weights: rows are input channels, columns output channels; inputs: rows are input channels,
    columns output places; outputs: rows are output places, columns output channels.
    """
    loops = {"weight": ("C", "K"), "input": ("C", "OX"), "output": ("OX", "K")}[stationary]
    return Hierarchy(
        name="systolic",
        clock_hz=1e9,
        axes=(
            Axis(name="rows", size=rows, unrolls=(loops[0],)),  # type: ignore[arg-type]
            Axis(name="columns", size=columns, unrolls=(loops[1],)),  # type: ignore[arg-type]
        ),
        levels=(
            level("register", 4, holds=(stationary,), per=("rows", "columns"), read_j=0.0),
            level("sram", 1e7, width=width),
            level("dram", 1e12, width=width, read_j=100.0),
        ),
        movement="systolic",
        stationary=stationary,
        load_hidden=hidden,
    )


def plain(levels: tuple[Level, ...], *axes: Axis, movement: Movement = "broadcast") -> Hierarchy:
    """An array whose operands are everywhere in one cycle."""
    return Hierarchy(
        name="plain",
        clock_hz=1e9,
        axes=axes,
        levels=levels,
        movement=movement,
        stationary=None,
        load_hidden=False,
    )
