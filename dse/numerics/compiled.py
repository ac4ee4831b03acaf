"""Compiled kernels (numba, CPU): one or two passes over memory, exact, without fastmath.

All work on rows of one contraction: row r of `x` is `x[r * depth : (r + 1) * depth]`, cut into
groups of `scaling.group`, the last one possibly shorter. `quantize_columns` gathers tiles of
columns into rows first. They release the GIL, so that threads share rows.
"""

# Read by numba, not by mypy.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, no-any-return"

from __future__ import annotations

import numba
import numpy as np

from dse.numerics.bits import add, bits_of, conjunction, exclusive, float_of, multiply
from dse.numerics.grid import Grid, Method
from dse.numerics.rounding import (
    EXPONENT,
    MAGNITUDE,
    SIGN,
    f32,
    general,
    looked_up,
    magic,
    mixed,
    searched,
    stochastic,
    table_stochastic,
    u32,
    wide,
)
from dse.numerics.scaling import Rule

MAGIC, WIDE, GENERAL = int(Method.MAGIC), int(Method.WIDE), int(Method.GENERAL)
TABLE, SEARCH, STOCHASTIC = int(Method.TABLE), int(Method.SEARCH), int(Method.STOCHASTIC)
TABLE_STOCHASTIC = int(Method.TABLE_STOCHASTIC)
GIVEN, EXACT, ROUNDED = int(Rule.GIVEN), int(Rule.EXACT), int(Rule.ROUNDED)
FLOOR, CEIL, EVEN, RCEIL = int(Rule.FLOOR), int(Rule.CEIL), int(Rule.EVEN), int(Rule.RCEIL)
COLUMNS = 16
"""Columns gathered at a time: one cache line of float32."""

compiled = numba.njit(nogil=True, cache=True, error_model="numpy")


@compiled
def absmax(x, start, stop):
    """The largest magnitude; NaN if there is a NaN. Compares bits, where NaN is above Inf."""
    largest = u32(0)
    for i in range(start, stop):
        largest = max(largest, conjunction(bits_of(x[i]), MAGNITUDE))
    return float_of(largest)


@compiled
def power_of_two(exponent):
    """2^exponent as float32, for -149 <= exponent <= 127."""
    if exponent >= -126:
        return float_of(u32((exponent + 127) << 23))
    return float_of(u32(1 << (exponent + 149)))


@compiled
def exponent_scale(largest, scaling):
    """The power of two that an MX rule chooses, within E8M0's range."""
    if scaling.rule == RCEIL:
        bits = np.int64(bits_of(f32(largest / scaling.element_max)))
        subnormal = bits < 0x00800000
        exponent = (bits >> 23) - 127 + (1 if bits & 0x7FFFFF else 0)
        if subnormal:
            exponent = -127 if bits <= 0x00400000 else -126
        return power_of_two(min(max(exponent, -127), 127))
    bits = np.int64(bits_of(largest))
    if scaling.rule == EVEN:
        bits += 1 << (22 - scaling.element_mantissa)
    exponent = (bits >> 23) - 127
    if scaling.rule == CEIL and bits & 0x7FFFFF:
        exponent += 1
    exponent -= scaling.element_exponent
    return power_of_two(min(max(exponent, -127), 127))


@compiled
def scale_of(largest, scaling):
    """Scale of a group (without the tensor's) whose largest magnitude is `largest`."""
    if not largest < f32(np.inf):
        return f32(np.nan)
    if scaling.rule >= FLOOR:
        return max(exponent_scale(largest, scaling), scaling.minimum)
    wanted = f32(largest / scaling.element_max)
    if scaling.two_level:
        wanted = f32(wanted / scaling.tensor_scale)
    if scaling.rule == ROUNDED:
        wanted = general(max(wanted, scaling.minimum), scaling.grid)
    return max(wanted, scaling.minimum)


@compiled
def apply(x, out, start, stop, multiplier, divisor, scale, grid, seed, position, stride):
    """out = grid(x * multiplier / divisor) * scale; one of multiplier and divisor is 1.

    A scale of zero leaves zeros of the sign of x. `position` is the index of the first element
    in the whole tensor, `stride` the distance of the next: they number the random draws.
    """
    if scale == f32(0):
        for i in range(start, stop):
            out[i] = float_of(conjunction(bits_of(x[i]), SIGN)) if x[i] == x[i] else x[i]
    elif grid.method == MAGIC:
        for i in range(start, stop):
            out[i] = magic(f32(f32(x[i] * multiplier) / divisor), grid) * scale
    elif grid.method == WIDE:
        for i in range(start, stop):
            out[i] = wide(f32(f32(x[i] * multiplier) / divisor), grid) * scale
    elif grid.method == GENERAL:
        for i in range(start, stop):
            out[i] = general(f32(f32(x[i] * multiplier) / divisor), grid) * scale
    elif grid.method == TABLE:
        for i in range(start, stop):
            out[i] = looked_up(f32(f32(x[i] * multiplier) / divisor), grid) * scale
    elif grid.method == SEARCH:
        for i in range(start, stop):
            out[i] = searched(f32(f32(x[i] * multiplier) / divisor), grid) * scale
    elif grid.method >= STOCHASTIC:
        draw_and_apply(
            x, out, start, stop, multiplier, divisor, scale, grid, seed, position, stride
        )
    else:
        for i in range(start, stop):
            out[i] = f32(f32(x[i] * multiplier) / divisor) * scale


@compiled
def draw_and_apply(x, out, start, stop, multiplier, divisor, scale, grid, seed, position, stride):
    """`apply` with random bits: a hash of the seed and of each element's index in the tensor."""
    for i in range(start, stop):
        index = position + (i - start) * stride
        high = mixed(add(u32(index >> 32), seed))
        draw = mixed(exclusive(multiply(u32(index), u32(0x9E3779B1)), high))
        y = f32(f32(x[i] * multiplier) / divisor)
        if grid.method == STOCHASTIC:
            out[i] = stochastic(y, grid, draw) * scale
        else:
            out[i] = table_stochastic(y, grid, draw) * scale


@compiled
def quantize_row(x, out, start, depth, grid, scaling, scales, zero_points, seed, position, stride):
    """One row: `scales` and `zero_points` have one entry a group; with a rule they are ignored."""
    for group in range(-(-depth // scaling.group)):
        first = start + group * scaling.group
        last = min(first + scaling.group, start + depth)
        if scaling.rule == GIVEN:
            scale = scales[min(group, scales.size - 1)]
        else:
            scale = scale_of(absmax(x, first, last), scaling)
        here = position + (first - start) * stride
        limited = grid
        if zero_points.size > 0:
            limited = shifted(grid, zero_points[min(group, zero_points.size - 1)])
        if scaling.two_level:
            multiplier = f32(f32(f32(1) / scaling.tensor_scale) / scale)
            total = f32(scaling.tensor_scale * scale)
            apply(x, out, first, last, multiplier, f32(1), total, limited, seed, here, stride)
        else:
            apply(x, out, first, last, f32(1), scale, scale, limited, seed, here, stride)


@numba.njit(inline="always")
def shifted(grid, zero_point):
    """An integer grid seen from its zero point."""
    above = f32(grid.positive_max - zero_point)
    below = f32(grid.negative_max + zero_point)
    return Grid(
        grid.method, grid.mantissa_bits, grid.lowest_exponent, grid.lowest_step,
        above, below, above, below, above, below, grid.zero,
        grid.threshold, grid.threshold_if_even, grid.away_if_positive, grid.away_if_negative,
        grid.away_if_odd, grid.random_bits, grid.lower, grid.upper, grid.thresholds, grid.values,
    )  # fmt: skip


@compiled
def quantize_span(x, out, first, last, scale, zero_point, grid, seed):
    """Elements first..last under one scale."""
    limited = shifted(grid, zero_point) if zero_point != f32(0) else grid
    apply(x, out, first, last, f32(1), scale, scale, limited, seed, first, 1)


@compiled
def quantize_rows(x, out, first, last, depth, grid, scaling, scales, zero_points, seed):
    """Rows first..last of a contiguous tensor; `scales`: (rows or 1, groups or 1)."""
    for row in range(first, last):
        quantize_row(
            x, out, row * depth, depth, grid, scaling,
            scales[min(row, scales.shape[0] - 1)],
            zero_points[min(row, zero_points.shape[0] - 1)],
            seed, row * depth, 1,
        )  # fmt: skip


@compiled
def quantize_columns(x, out, first, last, depth, inner, grid, scaling, scales, zero_points, seed):
    """Column tiles first..last of a tensor (outer, depth, inner) whose rows are its columns."""
    tiles = -(-inner // COLUMNS)
    buffer = np.empty(COLUMNS * depth, np.float32)
    for tile in range(first, last):
        outer, left = tile // tiles, (tile % tiles) * COLUMNS
        width = min(COLUMNS, inner - left)
        origin = outer * depth * inner + left
        for d in range(depth):
            for column in range(width):
                buffer[column * depth + d] = x[origin + d * inner + column]
        for column in range(width):
            row = outer * inner + left + column
            quantize_row(
                buffer, buffer, column * depth, depth, grid, scaling,
                scales[min(row, scales.shape[0] - 1)],
                zero_points[min(row, zero_points.shape[0] - 1)],
                seed, origin + column, inner,
            )  # fmt: skip
        for d in range(depth):
            for column in range(width):
                out[origin + d * inner + column] = buffer[column * depth + d]
