"""Compiled groups that lie apart in memory, as along the channels of an NCHW feature map.

A tile of neighbouring columns is read row by row into a small buffer, one column a vector lane:
memory is read and written once, in whole lines, and nothing is transposed. Results may be written
over their inputs.
"""

# Kernels take everything by position, since numba reads them, not mypy.
# ruff: noqa: PLR0917
# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, no-any-return"

from __future__ import annotations

import numpy as np

from dse.numerics.numba.bits import bits_of, conjunction
from dse.numerics.numba.factors import derive, divides, u64
from dse.numerics.numba.kernel_cache import compiled
from dse.numerics.numba.rounding import MAGNITUDE, f32, inlined, magic, u32

TILE = 16384
"""Elements of a tile: with 4 bytes each they stay in a core's second-level cache."""

MIN_COLUMNS, MAX_COLUMNS = 16, 256
"""One vector of 512 bits at least; at most what leaves enough tiles to share."""


def columns_of(group: int, inner: int) -> int:
    """Columns of a tile for groups of that length."""
    return max(1, min(inner, max(MIN_COLUMNS, min(MAX_COLUMNS, TILE // group))))


@inlined
def _gather(x, start, inner, rows, width, tile, largest):
    """Copies a group's rows into the tile; `largest` gets the bits of each column's maximum."""
    for j in range(u64(width)):
        largest[j] = u32(0)
    for row in range(rows):
        source, target = u64(start + row * inner), u64(row * width)
        for j in range(u64(width)):
            value = x[source + j]
            tile[target + j] = value
            largest[j] = max(largest[j], conjunction(bits_of(value), MAGNITUDE))


@inlined
def _round(tile, rows, width, factors, grid, out, start, inner, scaling):
    """Writes the rounded tile."""
    divided = divides(scaling)
    for row in range(rows):
        source, target = u64(row * width), u64(start + row * inner)
        if divided:
            for j in range(u64(width)):
                y = f32(f32(tile[source + j] * factors[0, j]) / factors[1, j])
                out[target + j] = magic(y, grid) * factors[2, j]
        else:
            for j in range(u64(width)):
                y = f32(tile[source + j] * factors[0, j])
                out[target + j] = magic(y, grid) * factors[2, j]


@compiled
def quantize_columns(x, out, first, last, depth, inner, columns, grid, scaling):
    """Tiles first..last of a tensor (outer, depth, inner), `columns` wide, with dynamic scales.

    For grids of method MAGIC. Tile t covers columns (t % tiles) * columns of outer index
    t // tiles, where `tiles` cover `inner`.
    """
    group = min(scaling.group, depth)
    tiles = -(-inner // columns)
    tile = np.empty(group * columns, np.float32)
    largest = np.empty(columns, np.uint32)
    factors = np.empty((4, columns), np.float32)
    for t in range(first, last):
        column = (t % tiles) * columns
        width = min(columns, inner - column)
        for top in range(0, depth, group):
            rows = min(group, depth - top)
            start = ((t // tiles) * depth + top) * inner + column
            _gather(x, start, inner, rows, width, tile, largest)
            derive(largest, width, scaling, factors)
            _round(tile, rows, width, factors, grid, out, start, inner, scaling)
