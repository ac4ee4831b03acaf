"""Compiled rows on any grid without random bits: a kernel for each rounding method.

All work on rows of one contraction: row r of `x` is `x[r * depth : (r + 1) * depth]`, cut into
groups of `scaling.group`, the last one possibly shorter. Each kernel is compiled when it is first
needed. Those named `over` write results over their inputs: with one array the compiler knows that
an element is read before it is written, and vectorises.
"""

# Kernels take everything by position, since numba reads them, not mypy.
# ruff: noqa: PLR0917
# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, no-any-return"

from __future__ import annotations

import numpy as np

from dse.numerics.grids.grid import Method
from dse.numerics.numba.bits import prefer_wide_vectors
from dse.numerics.numba.factors import row_factors, shifted, u64
from dse.numerics.numba.kernel_cache import compiled
from dse.numerics.numba.rounding import f32, general, inlined, looked_up, magic, searched, wide

MAGIC, WIDE = int(Method.MAGIC), int(Method.WIDE)
TABLE, SEARCH = int(Method.TABLE), int(Method.SEARCH)


def _closed(round_one):
    """A row of a rounding that needs nothing but the grid."""

    @inlined
    def run(x, out, start, depth, group, factors, grid, table):
        for g in range(-(-depth // group)):
            first = start + g * group
            last = min(first + group, start + depth)
            multiplier, divisor, total = factors[0, g], factors[1, g], factors[2, g]
            limited = shifted(grid, factors[3, g])
            if divisor == f32(1):
                for i in range(u64(first), u64(last)):
                    out[i] = round_one(f32(x[i] * multiplier), limited) * total
            else:
                for i in range(u64(first), u64(last)):
                    out[i] = round_one(f32(f32(x[i] * multiplier) / divisor), limited) * total

    return run


def _tabled(round_one):
    """A row of a rounding that looks up."""

    @inlined
    def run(x, out, start, depth, group, factors, grid, table):
        for g in range(-(-depth // group)):
            first = start + g * group
            last = min(first + group, start + depth)
            multiplier, divisor, total = factors[0, g], factors[1, g], factors[2, g]
            for i in range(u64(first), u64(last)):
                out[i] = round_one(f32(f32(x[i] * multiplier) / divisor), grid, table) * total

    return run


_magic_row, _wide_row, _general_row = _closed(magic), _closed(wide), _closed(general)
_table_row, _search_row = _tabled(looked_up), _tabled(searched)


@compiled
def apply_row(x, out, start, depth, group, factors, grid, table):
    """Out = grid(x * multiplier / divisor) * total for each group of a row.

    `factors` is (4, groups): multiplier, divisor, total, zero point.
    """
    method = grid.method
    if method == MAGIC:
        _magic_row(x, out, start, depth, group, factors, grid, table)
    elif method == WIDE:
        _wide_row(x, out, start, depth, group, factors, grid, table)
    elif method == TABLE:
        _table_row(x, out, start, depth, group, factors, grid, table)
    elif method == SEARCH:
        _search_row(x, out, start, depth, group, factors, grid, table)
    else:
        _general_row(x, out, start, depth, group, factors, grid, table)


def _rows(row):
    """All rows from first to last; `scales` and `zero_points`: (rows or 1, groups or 1)."""

    @inlined
    def run(x, out, first, last, depth, grid, table, scaling, scales, zero_points):
        group = min(scaling.group, max(depth, 1))
        factors = np.empty((4, -(-depth // group)), np.float32)
        for r in range(first, last):
            given = scales[min(r, scales.shape[0] - 1)]
            points = zero_points[min(r, zero_points.shape[0] - 1)]
            row_factors(x, r * depth, depth, group, scaling, given, points, factors)
            row(x, out, r * depth, depth, group, factors, grid, table)

    return run


_magic_rows, _wide_rows, _general_rows = _rows(_magic_row), _rows(_wide_row), _rows(_general_row)
_table_rows, _search_rows = _rows(_table_row), _rows(_search_row)


# Ten definitions and no factory of them: numba finds machine code on disk by the function and the
# pickled values of its closure, and a pickled kernel has a random number in it. What a factory
# makes would be compiled again in every process, which takes seconds; module globals are not
# pickled.


@compiled
def _magic(x, out, first, last, depth, grid, table, scaling, scales, zero_points):
    _magic_rows(x, out, first, last, depth, grid, table, scaling, scales, zero_points)


@compiled
def _wide(x, out, first, last, depth, grid, table, scaling, scales, zero_points):
    _wide_rows(x, out, first, last, depth, grid, table, scaling, scales, zero_points)


@compiled
def _general(x, out, first, last, depth, grid, table, scaling, scales, zero_points):
    prefer_wide_vectors()
    _general_rows(x, out, first, last, depth, grid, table, scaling, scales, zero_points)


@compiled
def _table(x, out, first, last, depth, grid, table, scaling, scales, zero_points):
    _table_rows(x, out, first, last, depth, grid, table, scaling, scales, zero_points)


@compiled
def _search(x, out, first, last, depth, grid, table, scaling, scales, zero_points):
    _search_rows(x, out, first, last, depth, grid, table, scaling, scales, zero_points)


@compiled
def _over_magic(x, first, last, depth, grid, table, scaling, scales, zero_points):
    _magic_rows(x, x, first, last, depth, grid, table, scaling, scales, zero_points)


@compiled
def _over_wide(x, first, last, depth, grid, table, scaling, scales, zero_points):
    _wide_rows(x, x, first, last, depth, grid, table, scaling, scales, zero_points)


@compiled
def _over_general(x, first, last, depth, grid, table, scaling, scales, zero_points):
    prefer_wide_vectors()
    _general_rows(x, x, first, last, depth, grid, table, scaling, scales, zero_points)


@compiled
def _over_table(x, first, last, depth, grid, table, scaling, scales, zero_points):
    _table_rows(x, x, first, last, depth, grid, table, scaling, scales, zero_points)


@compiled
def _over_search(x, first, last, depth, grid, table, scaling, scales, zero_points):
    _search_rows(x, x, first, last, depth, grid, table, scaling, scales, zero_points)


APART = {
    Method.MAGIC: _magic, Method.WIDE: _wide, Method.GENERAL: _general,
    Method.TABLE: _table, Method.SEARCH: _search, Method.IDENTITY: _general,
}  # fmt: skip
"""Kernels (x, out, first row, last row, depth, grid, table, scaling, scales, zero points)."""

OVER = {
    Method.MAGIC: _over_magic, Method.WIDE: _over_wide, Method.GENERAL: _over_general,
    Method.TABLE: _over_table, Method.SEARCH: _over_search, Method.IDENTITY: _over_general,
}  # fmt: skip
"""The same in place, without `out`."""
