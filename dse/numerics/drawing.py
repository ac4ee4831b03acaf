"""Compiled rows with stochastic rounding; apart, so that who needs none compiles none."""

# Kernels take everything by position, since numba reads them, not mypy.
# ruff: noqa: PLR0917
# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, no-any-return"

from __future__ import annotations

import numpy as np

from dse.numerics.bits import exclusive, multiply
from dse.numerics.compiled import compiled, row_factors, shifted, u64
from dse.numerics.grid import Method
from dse.numerics.rounding import f32, inlined, mixed, stochastic, table_stochastic, u32

STOCHASTIC = int(Method.STOCHASTIC)


@inlined
def drawn(index, key):
    """32 random bits of an element: a hash of its index in the tensor and of the mixed seed."""
    return mixed(exclusive(multiply(u32(index), u32(0x9E3779B1)), key))


@compiled
def _random_row(x, out, start, depth, group, factors, grid, seed, origin, stride):
    key = mixed(seed)
    for g in range(-(-depth // group)):
        first = start + g * group
        last = min(first + group, start + depth)
        multiplier, divisor, total = factors[0, g], factors[1, g], factors[2, g]
        limited = shifted(grid, factors[3, g])
        for i in range(u64(first), u64(last)):
            y = f32(f32(x[i] * multiplier) / divisor)
            draw = drawn(u64(origin) + (i - u64(start)) * u64(stride), key)
            out[i] = stochastic(y, limited, draw) * total


@compiled
def _random_table_row(x, out, start, depth, group, factors, grid, table, seed, origin, stride):
    key = mixed(seed)
    for g in range(-(-depth // group)):
        first = start + g * group
        last = min(first + group, start + depth)
        multiplier, divisor, total = factors[0, g], factors[1, g], factors[2, g]
        for i in range(u64(first), u64(last)):
            y = f32(f32(x[i] * multiplier) / divisor)
            draw = drawn(u64(origin) + (i - u64(start)) * u64(stride), key)
            out[i] = table_stochastic(y, grid, table, draw) * total


@compiled
def draw_rows(
    x, out, first, last, depth, grid, table, scaling, scales, zero_points, inner, seed, offset
):
    """As `compiled.quantize_rows`, with random bits.

    Row (o, i) of `inner` columns holds elements ((o * depth + d) * inner + i) + offset of the
    whole tensor: these numbers and the seed make the draws.
    """
    group = min(scaling.group, max(depth, 1))
    factors = np.empty((4, -(-depth // group)), np.float32)
    for row in range(first, last):
        start = row * depth
        given = scales[min(row, scales.shape[0] - 1)]
        points = zero_points[min(row, zero_points.shape[0] - 1)]
        row_factors(x, start, depth, group, scaling, given, points, factors)
        origin = (row // inner) * depth * inner + row % inner + offset
        if grid.method == STOCHASTIC:
            _random_row(x, out, start, depth, group, factors, grid, seed, origin, inner)
        else:
            _random_table_row(
                x, out, start, depth, group, factors, grid, table, seed, origin, inner
            )
