"""Compiled rows with stochastic rounding; apart, so that who needs none compiles none."""

# Kernels take everything by position, since numba reads them, not mypy.
# ruff: noqa: PLR0917
# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, no-any-return"

from __future__ import annotations

import numpy as np

from dse.numerics.numba.bits import add, exclusive, multiply, prefer_wide_vectors, subtract
from dse.numerics.numba.factors import row_factors, shifted, u64
from dse.numerics.numba.kernel_cache import compiled
from dse.numerics.numba.rounding import (
    f32,
    inlined,
    mixed,
    plain_stochastic,
    stochastic,
    table_stochastic,
    u32,
)


@inlined
def drawn(index, key):
    """32 random bits of an element: a hash of its index in the tensor and of the mixed seed."""
    return mixed(exclusive(multiply(index, u32(0x9E3779B1)), key))


def _closed(round_one):
    """A row of a rounding that needs nothing but the grid and random bits."""

    @inlined
    def run(x, out, start, depth, group, factors, grid, table, key, before, stride):
        for g in range(-(-depth // group)):
            first = start + g * group
            last = min(first + group, start + depth)
            multiplier, divisor, total = factors[0, g], factors[1, g], factors[2, g]
            limited = shifted(grid, factors[3, g])
            for i in range(u64(first), u64(last)):
                y = f32(f32(x[i] * multiplier) / divisor)
                draw = drawn(add(before, multiply(u32(i), stride)), key)
                out[i] = round_one(y, limited, draw) * total

    return run


@inlined
def _table_row(x, out, start, depth, group, factors, grid, table, key, before, stride):
    for g in range(-(-depth // group)):
        first = start + g * group
        last = min(first + group, start + depth)
        multiplier, divisor, total = factors[0, g], factors[1, g], factors[2, g]
        for i in range(u64(first), u64(last)):
            y = f32(f32(x[i] * multiplier) / divisor)
            draw = drawn(add(before, multiply(u32(i), stride)), key)
            out[i] = table_stochastic(y, grid, table, draw) * total


def _rows(row):
    """All rows from first to last, as the kernels of `by_method`.

    Row (o, i) of `inner` columns holds elements ((o * depth + d) * inner + i) + offset of the
    whole tensor: these numbers, modulo 2^32, and the seed make the draws.
    """

    @inlined
    def run(
        x, out, first, last, depth, grid, table, scaling, scales, zero_points, inner, seed, offset
    ):
        group = min(scaling.group, max(depth, 1))
        factors = np.empty((4, -(-depth // group)), np.float32)
        key, stride = mixed(seed), u32(inner)
        for r in range(first, last):
            given = scales[min(r, scales.shape[0] - 1)]
            points = zero_points[min(r, zero_points.shape[0] - 1)]
            row_factors(x, r * depth, depth, group, scaling, given, points, factors)
            origin = (r // inner) * depth * inner + r % inner + offset
            before = subtract(u32(origin), multiply(u32(r * depth), stride))
            row(x, out, r * depth, depth, group, factors, grid, table, key, before, stride)

    return run


_plain_rows, _general_rows = _rows(_closed(plain_stochastic)), _rows(_closed(stochastic))
_table_rows = _rows(_table_row)


@compiled
def draw_plain(
    x, out, first, last, depth, grid, table, scaling, scales, zero_points, inner, seed, offset
):
    """Grids of `plain.is_plain`, with 32 random bits."""
    prefer_wide_vectors()
    _plain_rows(
        x, out, first, last, depth, grid, table, scaling, scales, zero_points, inner, seed, offset
    )


@compiled
def draw_general(
    x, out, first, last, depth, grid, table, scaling, scales, zero_points, inner, seed, offset
):
    """Method STOCHASTIC."""
    prefer_wide_vectors()
    _general_rows(
        x, out, first, last, depth, grid, table, scaling, scales, zero_points, inner, seed, offset
    )


@compiled
def draw_table(
    x, out, first, last, depth, grid, table, scaling, scales, zero_points, inner, seed, offset
):
    """Method TABLE_STOCHASTIC."""
    _table_rows(
        x, out, first, last, depth, grid, table, scaling, scales, zero_points, inner, seed, offset
    )
