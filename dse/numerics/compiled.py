"""Compiled kernels (numba, CPU): one or two passes over memory, exact, without fastmath.

All work on rows of one contraction: row r of `x` is `x[r * depth : (r + 1) * depth]`, cut into
groups of `scaling.group`, the last one possibly shorter. They release the GIL, so that threads
share rows.
"""

# Kernels take everything by position, since numba reads them, not mypy.
# ruff: noqa: PLR0917
# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, no-any-return"

from __future__ import annotations

import numba
import numpy as np

from dse.numerics.bits import bits_of, conjunction, float_of
from dse.numerics.grid import Grid, Method
from dse.numerics.kernel_cache import kernel_cache
from dse.numerics.rounding import (
    MAGNITUDE,
    f32,
    general,
    inlined,
    looked_up,
    magic,
    searched,
    u32,
    wide,
)
from dse.numerics.scaling import Rule

MAGIC, WIDE = int(Method.MAGIC), int(Method.WIDE)
TABLE, SEARCH = int(Method.TABLE), int(Method.SEARCH)
GIVEN, ROUNDED = int(Rule.GIVEN), int(Rule.ROUNDED)
FLOOR, CEIL, EVEN, RCEIL = int(Rule.FLOOR), int(Rule.CEIL), int(Rule.EVEN), int(Rule.RCEIL)

u64 = np.uint64
"""Loop counters without a sign spare the kernels numba's test for indices from the end."""


def compiled(function):
    """Compiles on first use; machine code is kept between processes."""
    with kernel_cache():
        return numba.njit(nogil=True, cache=True, error_model="numpy")(function)


@compiled
def absmax(x, start, stop):
    """The largest magnitude; NaN if there is a NaN. Compares bits, where NaN is above Inf."""
    largest = u32(0)
    for i in range(u64(start), u64(stop)):
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
        exponent = np.int64((bits >> 23) - 127 + (1 if bits & 0x7FFFFF else 0))
        if subnormal:
            exponent = np.int64(-127 if bits <= 0x00400000 else -126)
        return power_of_two(min(max(exponent, -127), 127))
    bits = np.int64(bits_of(largest))
    if scaling.rule == EVEN:
        bits += 1 << (22 - scaling.element_mantissa)
    exponent = np.int64((bits >> 23) - 127)
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
def shifted(grid, zero_point):
    """An integer grid seen from its zero point; 0 changes nothing."""
    return Grid(
        grid.method, grid.mantissa_bits, grid.lowest_exponent, grid.lowest_step,
        grid.positive_max - zero_point, grid.negative_max + zero_point,
        grid.positive_overflow - zero_point, grid.negative_overflow + zero_point,
        grid.positive_infinity - zero_point, grid.negative_infinity + zero_point,
        grid.zero, grid.threshold, grid.threshold_if_even, grid.away_if_positive,
        grid.away_if_negative, grid.away_if_odd, grid.random_bits,
    )  # fmt: skip


def _closed(round_one):
    """A row kernel for a rounding that needs nothing but the grid."""

    @numba.njit(nogil=True, error_model="numpy")
    def run(x, out, start, depth, group, factors, grid):
        for g in range(-(-depth // group)):
            first = start + g * group
            last = min(first + group, start + depth)
            multiplier, divisor, total = factors[0, g], factors[1, g], factors[2, g]
            limited = shifted(grid, factors[3, g])
            for i in range(u64(first), u64(last)):
                out[i] = round_one(f32(f32(x[i] * multiplier) / divisor), limited) * total

    return run


def _tabled(round_one):
    """A row kernel for a rounding that looks up."""

    @numba.njit(nogil=True, error_model="numpy")
    def run(x, out, start, depth, group, factors, grid, table):
        for g in range(-(-depth // group)):
            first = start + g * group
            last = min(first + group, start + depth)
            multiplier, divisor, total = factors[0, g], factors[1, g], factors[2, g]
            for i in range(u64(first), u64(last)):
                out[i] = round_one(f32(f32(x[i] * multiplier) / divisor), grid, table) * total

    return run


_magic_row = _closed(magic)
_wide_row = _closed(wide)
_general_row = _closed(general)
_table_row = _tabled(looked_up)
_search_row = _tabled(searched)


@compiled
def apply_row(x, out, start, depth, group, factors, grid, table):
    """Out = grid(x * multiplier / divisor) * total for each group of a row, deterministic.

    `factors` is (4, groups): multiplier, divisor, total, zero point.
    """
    method = grid.method
    if method == MAGIC:
        _magic_row(x, out, start, depth, group, factors, grid)
    elif method == WIDE:
        _wide_row(x, out, start, depth, group, factors, grid)
    elif method == TABLE:
        _table_row(x, out, start, depth, group, factors, grid, table)
    elif method == SEARCH:
        _search_row(x, out, start, depth, group, factors, grid, table)
    else:
        _general_row(x, out, start, depth, group, factors, grid)


@inlined
def set_factors(factors, g, scale, zero_point, scaling):
    """Multiplier, divisor, total scale and zero point of a group.

    A scale of zero multiplies by zero, which leaves zeros of the sign of x.
    """
    total = f32(scaling.tensor_scale * scale)
    reciprocal = f32(f32(f32(1) / scaling.tensor_scale) / scale)
    multiplier = reciprocal if scaling.two_level else f32(1)
    divisor = f32(1) if scaling.two_level else scale
    empty = total == f32(0)
    factors[0, g] = f32(0) if empty else multiplier
    factors[1, g] = f32(1) if empty else divisor
    factors[2, g] = total
    factors[3, g] = zero_point


@compiled
def row_factors(x, start, depth, group, scaling, scales, zero_points, factors):
    """Fills `factors` for a row: from the given scales, or from each group's largest magnitude."""
    groups = -(-depth // group)
    if scaling.rule == GIVEN:
        for g in range(groups):
            scale = scales[min(g, scales.size - 1)]
            set_factors(factors, g, scale, zero_points[min(g, zero_points.size - 1)], scaling)
        return
    for g in range(groups):
        first = start + g * group
        factors[2, g] = absmax(x, first, min(first + group, start + depth))
    if scaling.rule == ROUNDED and scaling.grid.method == MAGIC:
        for g in range(groups):
            set_factors(factors, g, rounded_scale(factors[2, g], scaling), f32(0), scaling)
    else:
        for g in range(groups):
            set_factors(factors, g, scale_of(factors[2, g], scaling), f32(0), scaling)


@inlined
def rounded_scale(largest, scaling):
    """`scale_of` for nearest-even scales of few bits, without a branch, so that it vectorises."""
    wanted = f32(f32(largest / scaling.element_max) / scaling.tensor_scale)
    scale = max(magic(max(wanted, scaling.minimum), scaling.grid), scaling.minimum)
    return scale if largest < f32(np.inf) else f32(np.nan)


@compiled
def quantize_rows(x, out, first, last, depth, grid, table, scaling, scales, zero_points):
    """Rows first..last of a matrix; `scales` and `zero_points`: (rows or 1, groups or 1)."""
    group = min(scaling.group, max(depth, 1))
    factors = np.empty((4, -(-depth // group)), np.float32)
    for row in range(first, last):
        start = row * depth
        given = scales[min(row, scales.shape[0] - 1)]
        points = zero_points[min(row, zero_points.shape[0] - 1)]
        row_factors(x, start, depth, group, scaling, given, points, factors)
        apply_row(x, out, start, depth, group, factors, grid, table)
