"""Triton kernels (CUDA): one read and one write, bit-identical to the compiled CPU kernels.

Only what runs on whole groups along contiguous rows is here; everything else takes
`dse.numerics.on_device`. Division is `div_rn`, since Triton's own may be off by an ulp.
"""

# Triton's language has no types for mypy; its kernels take everything by position, and its
# compile-time arguments are written in capitals.
# ruff: noqa: N803, PLR0917
# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, no-any-return"
# mypy: disable-error-code="import-not-found, untyped-decorator, unused-ignore"

from __future__ import annotations

import numpy as np
import triton
import triton.language as tl

from dse.numerics.grid import Grid, Method
from dse.numerics.scaling import Rule, Scaling

MAGIC = tl.constexpr(int(Method.MAGIC))
WIDE = tl.constexpr(int(Method.WIDE))
TABLE = tl.constexpr(int(Method.TABLE))
STOCHASTIC = tl.constexpr(int(Method.STOCHASTIC))
ROUNDED = tl.constexpr(int(Rule.ROUNDED))
FLOOR = tl.constexpr(int(Rule.FLOOR))
CEIL = tl.constexpr(int(Rule.CEIL))
EVEN = tl.constexpr(int(Rule.EVEN))
RCEIL = tl.constexpr(int(Rule.RCEIL))
INFINITY = tl.constexpr(0x7F800000)
SPAN = 4096
"""Elements that one program of the elementwise kernel handles."""


@triton.jit
def bits_of(y):
    """The bits of a float32."""
    return y.to(tl.uint32, bitcast=True)


@triton.jit
def float_of(bits):
    """The float32 of 32 bits."""
    return bits.to(tl.float32, bitcast=True)


@triton.jit
def finished(y, rounded, sign, grid):
    """As `rounding.finished`."""
    positive = sign == 0
    limit = tl.where(positive, grid[3], grid[4])
    overflow = tl.where(positive, grid[5], grid[6])
    bounded = tl.where(rounded > limit, overflow, rounded)
    return tl.where(y == y, with_sign(bounded, sign, grid), y)  # noqa: PLR0124


@triton.jit
def with_sign(magnitude, sign, grid):
    """A signed magnitude; zero is positive where the format has no negative zero."""
    kept = tl.where((magnitude == 0) & (grid[9] == 0), 0, sign).to(tl.uint32)
    return float_of(bits_of(magnitude) | kept)


@triton.jit
def magic(y, grid):
    """As `rounding.magic`."""
    bits = bits_of(y)
    sign = bits & 0x80000000
    magnitude = float_of(bits & 0x7FFFFFFF)
    magnitude = tl.minimum(magnitude, 2.0 * tl.maximum(grid[3], grid[4]))
    exponent = tl.maximum(bits_of(magnitude) & 0x7F800000, tl.cast(grid[1], tl.uint32) << 23)
    c = float_of((exponent | 0x00400000) + (tl.cast(23 - grid[0], tl.uint32) << 23))
    return finished(y, (magnitude + c) - c, sign, grid)


@triton.jit
def wide(y, grid):
    """As `rounding.wide`."""
    bits = bits_of(y)
    sign = bits & 0x80000000
    magnitude = bits & 0x7FFFFFFF
    dropped = tl.cast(23 - grid[0], tl.uint32)
    step = tl.full(magnitude.shape, 1, tl.uint32) << dropped
    lowest = (magnitude >> dropped) & 1
    kept = (magnitude + (step >> 1) - 1 + lowest) & (0 - step)
    return finished(y, float_of(kept), sign, grid)


@triton.jit
def general(y, draw, grid, RANDOM: tl.constexpr, BITS: tl.constexpr):
    """As `rounding.general` and `rounding.stochastic`."""
    bits = bits_of(y)
    sign = bits & 0x80000000
    magnitude = bits & 0x7FFFFFFF
    exponent = tl.maximum((magnitude >> 23).to(tl.int32), 1)
    significand = (magnitude & 0x7FFFFF) | tl.where(magnitude >= 0x800000, 0x800000, 0).to(
        tl.uint32
    )
    step = tl.where(exponent >= grid[1], exponent - grid[0], grid[2])
    shift = step - exponent + 23
    steps = significand >> tl.minimum(shift, 31).to(tl.uint32)
    near = significand << tl.minimum(tl.maximum(32 - shift, 1), 31).to(tl.uint32)
    far = significand >> tl.minimum(tl.maximum(shift - 32, 0), 31).to(tl.uint32)
    far = tl.maximum(far, tl.minimum(significand, 1))
    left = tl.where(shift <= 0, 0, tl.where(shift <= 31, near, far)).to(tl.uint32)
    odd = steps & 1
    if RANDOM:
        if BITS == 0:
            away = left > draw
        elif BITS == 33:
            away = (left != 0) & (draw >= 0x80000000)
        else:
            kept = left >> (32 - BITS)
            rest = left - (kept << (32 - BITS))
            half = 1 << (31 - BITS)
            kept += ((rest > half) | ((rest == half) & ((kept & 1) == 1))).to(tl.uint32)
            away = (kept + (draw >> (32 - BITS))) >= (1 << BITS)
    else:
        threshold = grid[10] + tl.where(odd == 0, grid[11], 0).to(tl.uint32)
        by_sign = tl.where(sign == 0, grid[12], grid[13])
        away = (left >= threshold) & (by_sign != 0) & ((odd == 0) | (grid[14] != 0))
    steps += away.to(tl.uint32)
    small = tl.full(steps.shape, 1, tl.uint32) << tl.maximum(step + 22, 0).to(tl.uint32)
    unit = tl.where(step > 0, (tl.maximum(step, 0) << 23).to(tl.uint32), small)
    rounded = finished(y, steps.to(tl.int32).to(tl.float32) * float_of(unit), sign, grid)
    infinite = tl.where(sign == 0, grid[7], grid[8])
    return tl.where(magnitude == INFINITY, with_sign(infinite, sign, grid), rounded)


@triton.jit
def mixed(x):
    """As `rounding.mixed`."""
    x ^= x >> 16
    x *= 0x7FEB352D
    x ^= x >> 15
    x *= 0x846CA68B
    return x ^ (x >> 16)


@triton.jit
def on_grid(y, index, key, grid, tables, METHOD: tl.constexpr, BITS: tl.constexpr):
    """The value on the grid; `index` numbers the elements of the tensor for random draws."""
    if METHOD == MAGIC:
        return magic(y, grid)
    if METHOD == WIDE:
        return wide(y, grid)
    if METHOD == TABLE:
        place = tl.load(tables[0] + (bits_of(y) >> 16))
        above = y >= tl.load(tables[1] + place)
        return tl.load(tables[2] + place + above.to(tl.int32))
    if METHOD == STOCHASTIC:
        draw = mixed((index.to(tl.uint32) * 0x9E3779B1) ^ tl.cast(key, tl.uint32))
        return general(y, draw, grid, True, BITS)
    return general(y, bits_of(y), grid, False, 0)


@triton.jit
def power_of_two(exponent):
    """As `compiled.power_of_two`."""
    normal = (tl.maximum(exponent + 127, 0) << 23).to(tl.uint32)
    subnormal = tl.full(exponent.shape, 1, tl.uint32) << tl.minimum(
        tl.maximum(exponent + 149, 0), 31
    ).to(tl.uint32)
    return float_of(tl.where(exponent >= -126, normal, subnormal))


@triton.jit
def exponent_scale(largest, scaling, RULE: tl.constexpr):
    """As `compiled.exponent_scale`."""
    if RULE == RCEIL:
        bits = bits_of(tl.div_rn(largest, tl.full(largest.shape, 1, tl.float32) * scaling[0]))
        bits = bits.to(tl.int32)
        exponent = (bits >> 23) - 127 + ((bits & 0x7FFFFF) != 0).to(tl.int32)
        small = tl.where(bits <= 0x00400000, -127, -126)
        exponent = tl.where(bits < 0x00800000, small, exponent)
    else:
        bits = bits_of(largest).to(tl.int32)
        if RULE == EVEN:
            bits += tl.full(bits.shape, 1, tl.int32) << tl.cast(22 - scaling[2], tl.int32)
        exponent = (bits >> 23) - 127
        if RULE == CEIL:
            exponent += ((bits & 0x7FFFFF) != 0).to(tl.int32)
        exponent -= scaling[1]
    return power_of_two(tl.minimum(tl.maximum(exponent, -127), 127))


@triton.jit
def scale_of(largest, scaling, scale_grid, RULE: tl.constexpr):
    """As `compiled.scale_of`."""
    # 2^-127 arrives as float64: Triton's launcher has no subnormal float32.
    smallest = tl.cast(scaling[3], tl.float32)
    if RULE >= FLOOR:
        scale = tl.maximum(exponent_scale(largest, scaling, RULE), smallest)
    else:
        ones = tl.full(largest.shape, 1, tl.float32)
        wanted = tl.div_rn(largest, ones * scaling[0])
        wanted = tl.div_rn(wanted, ones * scaling[4])
        if RULE == ROUNDED:
            wanted = magic(tl.maximum(wanted, smallest), scale_grid)
        scale = tl.maximum(wanted, smallest)
    return tl.where(largest < float("inf"), scale, float("nan"))


@triton.jit
def span_kernel(
    x_ptr, out_ptr, scale_ptr, count, key, grid, tables,
    METHOD: tl.constexpr, BITS: tl.constexpr, SCALED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Elements under one scale, which is read from the device."""
    index = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = index < count
    x = tl.load(x_ptr + index, mask=inside, other=0.0).to(tl.float32)
    if SCALED:
        scale = tl.load(scale_ptr)
        y = tl.div_rn(x, tl.full(x.shape, 1, tl.float32) * scale)
        y = tl.where(scale == 0, x * 0.0, y)
        values = on_grid(y, index, key, grid, tables, METHOD, BITS) * scale
    else:
        values = on_grid(x, index, key, grid, tables, METHOD, BITS)
    tl.store(out_ptr + index, values.to(out_ptr.dtype.element_ty), mask=inside)


@triton.jit
def group_kernel(
    x_ptr, out_ptr, groups, key, grid, tables, scaling, scale_grid,
    METHOD: tl.constexpr, BITS: tl.constexpr, RULE: tl.constexpr, TWO_LEVEL: tl.constexpr,
    GROUP: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """Whole groups of contiguous elements: statistic, scale and rounding in registers."""
    group = tl.program_id(0).to(tl.int64) * TILE + tl.arange(0, TILE)
    index = group[:, None] * GROUP + tl.arange(0, GROUP)[None, :]
    inside = group[:, None] < groups
    x = tl.load(x_ptr + index, mask=inside, other=0.0).to(tl.float32)
    # Bits compare as magnitudes do, with NaN above Inf.
    largest = float_of(tl.max((bits_of(x) & 0x7FFFFFFF).to(tl.int32), axis=1).to(tl.uint32))
    scale = scale_of(largest, scaling, scale_grid, RULE)
    ones = tl.full(scale.shape, 1, tl.float32)
    total = scaling[4] * scale
    if TWO_LEVEL:
        multiplier = tl.div_rn(tl.div_rn(ones, ones * scaling[4]), scale)
        y = x * multiplier[:, None]
    elif RULE >= FLOOR:
        # The reciprocal of a power of two is exact, and so is this multiplication as a division.
        y = x * tl.div_rn(ones, scale)[:, None]
    else:
        y = tl.div_rn(x, tl.full(x.shape, 1, tl.float32) * scale[:, None])
    y = tl.where(total[:, None] == 0, x * 0.0, y)
    values = on_grid(y, index, key, grid, tables, METHOD, BITS) * total[:, None]
    tl.store(out_ptr + index, values.to(out_ptr.dtype.element_ty), mask=inside)


def grid_numbers(grid: Grid) -> tuple[int | float, ...]:
    """The grid as kernel arguments, in the order in which the kernels index them."""
    return (
        int(grid.mantissa_bits), int(grid.lowest_exponent), int(grid.lowest_step),
        float(grid.positive_max), float(grid.negative_max),
        float(grid.positive_overflow), float(grid.negative_overflow),
        float(grid.positive_infinity), float(grid.negative_infinity),
        int(np.signbit(grid.zero)),
        int(grid.threshold), int(grid.threshold_if_even), int(grid.away_if_positive),
        int(grid.away_if_negative), int(grid.away_if_odd),
    )  # fmt: skip


def scaling_numbers(scaling: Scaling) -> tuple[int | float, ...]:
    """The scaling as kernel arguments, likewise."""
    return (
        float(scaling.element_max), int(scaling.element_exponent), int(scaling.element_mantissa),
        float(scaling.minimum), float(scaling.tensor_scale),
    )  # fmt: skip
