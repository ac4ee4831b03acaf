"""Triton functions (CUDA) that round to a grid, bit-identical to `dse.numerics.numba.rounding`.

Most formats are *plain*: rounded to nearest even or at random, symmetric, saturating. Those take
`nearest` and `drawn`, which work on magnitudes in float arithmetic; others the general functions.
"""

# Triton's language has no types for mypy; its kernels take everything by position, and its
# compile-time arguments are written in capitals.
# ruff: noqa: N803, PLR0917
# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, no-any-return"
# mypy: disable-error-code="import-not-found, untyped-decorator, unused-ignore"

from __future__ import annotations

import triton
import triton.language as tl
from triton.language.extra import libdevice

from dse.numerics.grids.grid import Method

MAGIC = tl.constexpr(int(Method.MAGIC))
WIDE = tl.constexpr(int(Method.WIDE))
TABLE = tl.constexpr(int(Method.TABLE))
STOCHASTIC = tl.constexpr(int(Method.STOCHASTIC))
SIGN = tl.constexpr(0x80000000)
MAGNITUDE = tl.constexpr(0x7FFFFFFF)
INFINITY = tl.constexpr(0x7F800000)


@triton.jit
def bits_of(y):
    """The bits of a float32."""
    return y.to(tl.uint32, bitcast=True)


@triton.jit
def float_of(bits):
    """The float32 of 32 bits."""
    return bits.to(tl.float32, bitcast=True)


@triton.jit
def at_most(magnitude, limit):
    """The lesser of the two; NaN if one is."""
    return tl.minimum(magnitude, limit, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def binade_of(magnitude, numbers):
    """The power of two below a magnitude, at least that of the lowest step's binade."""
    return float_of(bits_of(tl.maximum(magnitude, numbers[1])) & INFINITY)


@triton.jit
def nearest(magnitude, numbers):
    """A magnitude of at most `numbers[0]` on a plain grid, ties to even; as `rounding.magic`."""
    # The last place of c is the step: the adder itself rounds, ties to even, subnormals included.
    c = binade_of(magnitude, numbers) * numbers[2]
    return (magnitude + c) - c


@triton.jit
def drawn(magnitude, draw, numbers, BITS: tl.constexpr):
    """A magnitude of at most `numbers[0]` on a plain grid, up or down by 32 random bits.

    The sum with c is cut where the grid's steps end, so that `below` is the grid value below.
    """
    binade = binade_of(magnitude, numbers)
    step = binade * numbers[4]
    c = binade * numbers[3]
    below = libdevice.add_rz(magnitude, c) - c
    rest = magnitude - below
    # For a power of two, the bits of 2^32 / step are 0x8F000000 less those of the step.
    left = (rest * float_of(0x8F000000 - bits_of(step))).to(tl.uint32)
    # Less than 2^-32 of a step still is more than nothing.
    left = tl.maximum(left, tl.minimum(bits_of(rest), 1))
    return tl.where(goes_away(left, draw, BITS), below + step, below)


@triton.jit
def goes_away(left, draw, BITS: tl.constexpr):
    """As `rounding.drawn_away`."""
    if BITS == 0:
        away = left > draw
    elif BITS == 33:
        away = (left != 0) & (draw >= SIGN)
    else:
        kept = left >> (32 - BITS)
        rest = left - (kept << (32 - BITS))
        half = 1 << (31 - BITS)
        kept += ((rest > half) | ((rest == half) & ((kept & 1) == 1))).to(tl.uint32)
        away = (kept + (draw >> (32 - BITS))) >= (1 << BITS)
    return away


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
    sign = bits & SIGN
    magnitude = float_of(bits & MAGNITUDE)
    magnitude = tl.minimum(magnitude, 2.0 * tl.maximum(grid[3], grid[4]))
    exponent = tl.maximum(bits_of(magnitude) & INFINITY, tl.cast(grid[1], tl.uint32) << 23)
    c = float_of((exponent | 0x00400000) + (tl.cast(23 - grid[0], tl.uint32) << 23))
    return finished(y, (magnitude + c) - c, sign, grid)


@triton.jit
def wide(y, grid):
    """As `rounding.wide`."""
    bits = bits_of(y)
    sign = bits & SIGN
    magnitude = bits & MAGNITUDE
    dropped = tl.cast(23 - grid[0], tl.uint32)
    step = tl.full(magnitude.shape, 1, tl.uint32) << dropped
    lowest = (magnitude >> dropped) & 1
    kept = (magnitude + (step >> 1) - 1 + lowest) & (0 - step)
    return finished(y, float_of(kept), sign, grid)


@triton.jit
def general(y, draw, grid, RANDOM: tl.constexpr, BITS: tl.constexpr):
    """As `rounding.general` and `rounding.stochastic`."""
    bits = bits_of(y)
    sign = bits & SIGN
    magnitude = bits & MAGNITUDE
    exponent = tl.maximum((magnitude >> 23).to(tl.int32), 1)
    implicit = tl.where(magnitude >= 0x800000, 0x800000, 0).to(tl.uint32)
    significand = (magnitude & 0x7FFFFF) | implicit
    step = tl.where(exponent >= grid[1], exponent - grid[0], grid[2])
    shift = step - exponent + 23
    steps = significand >> tl.minimum(shift, 31).to(tl.uint32)
    near = significand << tl.minimum(tl.maximum(32 - shift, 1), 31).to(tl.uint32)
    far = significand >> tl.minimum(tl.maximum(shift - 32, 0), 31).to(tl.uint32)
    far = tl.maximum(far, tl.minimum(significand, 1))
    left = tl.where(shift <= 0, 0, tl.where(shift <= 31, near, far)).to(tl.uint32)
    odd = steps & 1
    if RANDOM:
        away = goes_away(left, draw, BITS)
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
def random_bits(index, key):
    """As `drawing.drawn`: 32 random bits of an element; `key` is the mixed seed."""
    x = (index * 0x9E3779B1) ^ key
    x ^= x >> 16
    x *= 0x7FEB352D
    x ^= x >> 15
    x *= 0x846CA68B
    return x ^ (x >> 16)


@triton.jit
def on_grid(y, index, key, grid, tables, METHOD: tl.constexpr, BITS: tl.constexpr):
    """The value on any grid; `index` numbers the elements of the tensor for random draws."""
    if METHOD == MAGIC:
        return magic(y, grid)
    if METHOD == WIDE:
        return wide(y, grid)
    if METHOD == TABLE:
        place = tl.load(tables[0] + (bits_of(y) >> 16))
        above = y >= tl.load(tables[1] + place)
        return tl.load(tables[2] + place + above.to(tl.int32))
    if METHOD == STOCHASTIC:
        return general(y, random_bits(index, key), grid, True, BITS)
    return general(y, bits_of(y), grid, False, 0)
