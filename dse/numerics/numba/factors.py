"""Common parts of the compiled kernels (numba, CPU): largest magnitudes, scales, factors.

Kernels are exact, without fastmath, and take one or two passes over memory. They release the GIL,
so that threads share the work.
"""

# Kernels take everything by position, since numba reads them, not mypy.
# ruff: noqa: PLR0917
# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, no-any-return"

from __future__ import annotations

import numpy as np

from dse.numerics.grids.grid import Grid, Method
from dse.numerics.grids.scaling import Rule
from dse.numerics.numba.bits import (
    add,
    add_signed,
    bits_of,
    conjunction,
    float_of,
    shift_left,
    shift_right,
    subtract_signed,
)
from dse.numerics.numba.kernel_cache import compiled
from dse.numerics.numba.rounding import (
    FRACTION,
    HALF_FRACTION,
    MAGNITUDE,
    f32,
    general,
    i32,
    inlined,
    magic,
    u32,
)

MAGIC = int(Method.MAGIC)
GIVEN, ROUNDED = int(Rule.GIVEN), int(Rule.ROUNDED)
FLOOR, CEIL, EVEN, RCEIL = int(Rule.FLOOR), int(Rule.CEIL), int(Rule.EVEN), int(Rule.RCEIL)
LARGEST_EXPONENT = i32(254)
"""Biased, of finite float32."""

u64 = np.uint64
"""Loop counters without a sign spare the kernels numba's test for indices from the end."""


@compiled
def absmax(x, start, stop):
    """The largest magnitude; NaN if there is a NaN. Compares bits, where NaN is above Inf."""
    largest = u32(0)
    for i in range(u64(start), u64(stop)):
        largest = max(largest, conjunction(bits_of(x[i]), MAGNITUDE))
    return float_of(largest)


@inlined
def power_scale(largest, scaling):
    """The power of two that an MX rule chooses, within E8M0's range; without a branch."""
    bits = bits_of(f32(largest / scaling.element_max) if scaling.rule == RCEIL else largest)
    offset = i32(0) if scaling.rule == RCEIL else scaling.element_exponent
    if scaling.rule == EVEN:
        nearly = u32(subtract_signed(i32(22), scaling.element_mantissa))
        bits = add(bits, shift_left(u32(1), nearly))
    exponent = i32(shift_right(bits, u32(23)))
    if scaling.rule in (CEIL, RCEIL):
        exponent = add_signed(exponent, i32(min(conjunction(bits, FRACTION), u32(1))))
    if scaling.rule == RCEIL and bits <= HALF_FRACTION:
        exponent = i32(0)  # 2^-127 is enough
    biased = u32(min(max(subtract_signed(exponent, offset), i32(0)), LARGEST_EXPONENT))
    # The one bit of 2^-127 stands where that of a half would.
    scale = float_of(max(shift_left(biased, u32(23)), HALF_FRACTION))
    return max(scale, scaling.minimum) if largest < f32(np.inf) else f32(np.nan)


@inlined
def rounded_scale(largest, scaling):
    """`scale_of` for nearest-even scales of few bits; without a branch."""
    wanted = f32(f32(largest / scaling.element_max) / scaling.tensor_scale)
    scale = max(magic(max(wanted, scaling.minimum), scaling.grid), scaling.minimum)
    return scale if largest < f32(np.inf) else f32(np.nan)


@compiled
def scale_of(largest, scaling):
    """Scale of a group (without the tensor's) whose largest magnitude is `largest`."""
    if scaling.rule >= FLOOR:
        return power_scale(largest, scaling)
    if not largest < f32(np.inf):
        return f32(np.nan)
    wanted = f32(largest / scaling.element_max)
    if scaling.two_level:
        wanted = f32(wanted / scaling.tensor_scale)
    if scaling.rule == ROUNDED:
        wanted = general(max(wanted, scaling.minimum), scaling.grid)
    return max(wanted, scaling.minimum)


@compiled
def scales_of(largest, scaling, scales):
    """Fills `scales` with those of groups (without the tensor's), float32 vectors."""
    for g in range(u64(largest.size)):
        scales[g] = scale_of(largest[g], scaling)


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


@inlined
def divides(scaling):
    """Whether elements are divided by their scale; others are multiplied by its reciprocal.

    That of a power of two is exact, and two-level formats are defined so.
    """
    return not scaling.two_level and scaling.rule < FLOOR


@inlined
def set_factors(factors, g, scale, zero_point, scaling):
    """Multiplier, divisor, total scale and zero point of a group.

    A scale of zero multiplies by zero, which leaves zeros of the sign of x.
    """
    total = f32(scaling.tensor_scale * scale)
    reciprocal = f32(f32(f32(1) / scaling.tensor_scale) / scale)
    multiplier = f32(1) if divides(scaling) else reciprocal
    divisor = scale if divides(scaling) else f32(1)
    empty = total == f32(0)
    factors[0, g] = f32(0) if empty else multiplier
    factors[1, g] = f32(1) if empty else divisor
    factors[2, g] = total
    factors[3, g] = zero_point


@compiled
def derive(largest, count, scaling, factors):
    """Factors of groups from the bits of their largest magnitudes, in vector lanes if possible."""
    if scaling.rule >= FLOOR:
        for g in range(u64(count)):
            set_factors(factors, g, power_scale(float_of(largest[g]), scaling), f32(0), scaling)
    elif scaling.rule == ROUNDED and scaling.grid.method == MAGIC:
        for g in range(u64(count)):
            set_factors(factors, g, rounded_scale(float_of(largest[g]), scaling), f32(0), scaling)
    else:
        for g in range(u64(count)):
            set_factors(factors, g, scale_of(float_of(largest[g]), scaling), f32(0), scaling)


@compiled
def row_factors(x, start, depth, group, scaling, scales, zero_points, factors):
    """Fills `factors` for a row: from the given scales, or from each group's largest magnitude."""
    groups = -(-depth // group)
    if scaling.rule == GIVEN:
        for g in range(groups):
            scale = scales[min(g, scales.size - 1)]
            set_factors(factors, g, scale, zero_points[min(g, zero_points.size - 1)], scaling)
        return
    largest = np.empty(groups, np.uint32)
    for g in range(groups):
        first = start + g * group
        largest[g] = bits_of(absmax(x, first, min(first + group, start + depth)))
    derive(largest, groups, scaling, factors)
