"""Compiled rounding of one float32 to a grid; bit-identical to `dse.numerics.eager`.

Exponents are biased as in float32. NaN stays NaN everywhere.
"""

# The intrinsics of `bits` carry no types for mypy, and kernels are read by numba, not by it.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, no-any-return"

from __future__ import annotations

import numba
import numpy as np

from dse.numerics.numba.bits import (
    add,
    add_signed,
    bits_of,
    conjunction,
    disjunction,
    exclusive,
    float_of,
    multiply,
    shift_left,
    shift_right,
    subtract,
    subtract_signed,
    to_float,
)

u32, i32, f32 = np.uint32, np.int32, np.float32
SIGN = u32(0x80000000)
MAGNITUDE = u32(0x7FFFFFFF)
EXPONENT = u32(0x7F800000)
FRACTION = u32(0x007FFFFF)
IMPLICIT = u32(0x00800000)
HALF_FRACTION = u32(0x00400000)
FRACTION_RANGE = u32(23 << 23)
"""Added to the bits of a power of two: 2^23 times as much."""
TWO_TO_32 = u32(0x8F000000)
"""Less the bits of a power of two p: those of 2^32 / p."""
TWO = f32(2.0)

inlined = numba.njit(inline="always", error_model="numpy")


@inlined
def magic(y, grid):
    """Nearest-even by the float adder itself: (|y| + c) - c with c = 1.5 * 2^(exponent + 23 - m).

    The unit in the last place of c is the grid's step at y, so the addition rounds to it.
    """
    bits = bits_of(y)
    sign = conjunction(bits, SIGN)
    magnitude = float_of(conjunction(bits, MAGNITUDE))
    # Beyond the grid only "too large" matters, and c must not overflow.
    magnitude = min(magnitude, TWO * max(grid.positive_max, grid.negative_max))
    exponent = max(
        conjunction(bits_of(magnitude), EXPONENT), shift_left(u32(grid.lowest_exponent), u32(23))
    )
    distance = shift_left(u32(subtract_signed(i32(23), grid.mantissa_bits)), u32(23))
    c = float_of(add(disjunction(exponent, HALF_FRACTION), distance))
    return finished(y, (magnitude + c) - c, sign, grid)


@inlined
def wide(y, grid):
    """Nearest-even in the bits, for formats that share float32's exponent range."""
    bits = bits_of(y)
    sign = conjunction(bits, SIGN)
    magnitude = conjunction(bits, MAGNITUDE)
    dropped = u32(subtract_signed(i32(23), grid.mantissa_bits))
    # Half a step less one, plus the lowest kept bit, carries into it from just above half on, and
    # at half itself if that bit is odd: ties to even without a branch, exponents included, since a
    # carry out of the fraction is the next binade.
    step = shift_left(u32(1), dropped)
    lowest_bit = conjunction(shift_right(magnitude, dropped), u32(1))
    nearly_half = add(shift_right(step, u32(1)), u32(0xFFFFFFFF))
    carried = add(magnitude, add(nearly_half, lowest_bit))
    kept = conjunction(carried, exclusive(add(step, u32(0xFFFFFFFF)), u32(0xFFFFFFFF)))
    return finished(y, float_of(kept), sign, grid)


@inlined
def finished(y, rounded, sign, grid):
    """Overflow, sign and NaN of a rounded magnitude."""
    positive = sign == u32(0)
    limit = grid.positive_max if positive else grid.negative_max
    overflow = grid.positive_overflow if positive else grid.negative_overflow
    bounded = overflow if rounded > limit else rounded
    # Adding +0 strips the sign of zero where the format has one zero only; -0 changes nothing.
    signed = float_of(disjunction(bits_of(bounded), sign)) + grid.zero
    return y if np.isnan(y) else signed


@inlined
def split(y, grid):
    """Steps below |y|, what is left as a fraction of a step in 2^-32, and the step's exponent."""
    magnitude = conjunction(bits_of(y), MAGNITUDE)
    exponent = max(i32(shift_right(magnitude, u32(23))), i32(1))
    implicit = IMPLICIT if magnitude >= IMPLICIT else u32(0)
    significand = disjunction(conjunction(magnitude, FRACTION), implicit)
    step = (
        subtract_signed(exponent, grid.mantissa_bits)
        if exponent >= grid.lowest_exponent
        else grid.lowest_step
    )
    shift = add_signed(subtract_signed(step, exponent), i32(23))
    low = u32(min(shift, i32(31)))
    steps = shift_right(significand, low)
    if shift <= i32(0):
        left = u32(0)
    elif shift <= i32(31):
        left = shift_left(significand, u32(subtract_signed(i32(32), shift)))
    else:
        # Less than 2^-8 of a step: only "not zero" and a little probability are left of it.
        beyond = u32(min(subtract_signed(shift, i32(32)), i32(31)))
        left = max(shift_right(significand, beyond), u32(min(significand, u32(1))))
    return steps, left, step


@inlined
def joined(y, steps, step, grid):
    """Steps times the step, with overflow, sign and specials."""
    bits = bits_of(y)
    sign = conjunction(bits, SIGN)
    positive = sign == u32(0)
    if step > i32(0):
        unit = float_of(shift_left(u32(step), u32(23)))
    else:
        unit = float_of(shift_left(u32(1), u32(max(add_signed(step, i32(22)), i32(0)))))
    rounded = to_float(i32(steps)) * unit
    if conjunction(bits, MAGNITUDE) == EXPONENT:
        infinite = grid.positive_infinity if positive else grid.negative_infinity
        return float_of(disjunction(bits_of(infinite), sign)) + grid.zero
    return finished(y, rounded, sign, grid)


@inlined
def general(y, grid):
    """Any deterministic rounding: `grid.threshold` and its companions say when to go away."""
    steps, left, step = split(y, grid)
    odd = conjunction(steps, u32(1))
    away = (
        grid.away_if_positive if conjunction(bits_of(y), SIGN) == u32(0) else grid.away_if_negative
    )
    threshold = add(grid.threshold, conjunction(grid.threshold_if_even, exclusive(odd, u32(1))))
    if left >= threshold and away != u32(0) and (odd == u32(0) or grid.away_if_odd != u32(0)):
        steps = add(steps, u32(1))
    return joined(y, steps, step, grid)


@inlined
def mixed(x):
    """A 32-bit hash that changes half of its bits when one bit of `x` changes.

    Source: Wellons, "hash-prospector" (lowbias32), 2018.
    """
    x = exclusive(x, shift_right(x, u32(16)))
    x = multiply(x, u32(0x7FEB352D))
    x = exclusive(x, shift_right(x, u32(15)))
    x = multiply(x, u32(0x846CA68B))
    return exclusive(x, shift_right(x, u32(16)))


@inlined
def drawn_away(left, draw, random_bits):
    """Whether a fraction of a step goes away from zero, given 32 random bits."""
    if random_bits == u32(0):
        return left > draw
    if random_bits == u32(33):
        return left != u32(0) and draw >= SIGN
    unused = u32(32) - random_bits
    kept = shift_right(left, u32(unused))
    rest = u32(left - shift_left(kept, u32(unused)))
    half = shift_left(u32(1), u32(unused - 1))
    if rest > half or (rest == half and conjunction(kept, u32(1)) == u32(1)):
        kept = add(kept, u32(1))
    return add(kept, shift_right(draw, u32(unused))) >= shift_left(u32(1), random_bits)


@inlined
def stochastic(y, grid, draw):
    """Stochastic rounding with the 32 random bits `draw`."""
    steps, left, step = split(y, grid)
    if drawn_away(left, draw, grid.random_bits):
        steps = add(steps, u32(1))
    return joined(y, steps, step, grid)


@inlined
def plain_stochastic(y, grid, draw):
    """`stochastic` with all of 32 random bits, on grids that `plain.is_plain` describes."""
    bits = bits_of(y)
    magnitude = min(float_of(conjunction(bits, MAGNITUDE)), grid.positive_max)
    lowest = shift_left(u32(grid.lowest_exponent), u32(23))
    binade = max(conjunction(bits_of(magnitude), EXPONENT), lowest)
    mantissa = shift_left(u32(grid.mantissa_bits), u32(23))
    step = float_of(subtract(binade, mantissa))
    # The unit in the last place of c is a step.
    c = float_of(add(subtract(binade, mantissa), FRACTION_RANGE))
    near = (magnitude + c) - c
    below = near - step if near > magnitude else near
    rest = magnitude - below
    left = u32(rest * float_of(subtract(TWO_TO_32, bits_of(step))))
    # Less than 2^-32 of a step still is more than nothing.
    left = max(left, min(bits_of(rest), u32(1)))
    rounded = below + step if left > draw else below
    signed = float_of(disjunction(bits_of(rounded), conjunction(bits, SIGN))) + grid.zero
    return y if np.isnan(y) else signed


@inlined
def looked_up(y, grid, table):
    """Table look-up with one comparison."""
    # Without a sign, numba tests no index for counting from the end.
    index = u32(table.lower[shift_right(bits_of(y), u32(16))])
    above = u32(1) if y >= table.thresholds[index] else u32(0)
    return table.values[add(index, above)]


@inlined
def position(y, table):
    """Index of the table value that `y` has reached, by bisection within its cell."""
    cell = shift_right(bits_of(y), u32(16))
    low, high = np.int64(table.lower[cell]), np.int64(table.upper[cell])
    while low < high:
        middle = (low + high) >> 1
        if y >= table.thresholds[middle]:
            low = middle + 1
        else:
            high = middle
    return low


@inlined
def searched(y, grid, table):
    """Table look-up for grids that are finer than the cells."""
    return table.values[position(y, table)]


@inlined
def table_stochastic(y, grid, table, draw):
    """Stochastic rounding between two table values."""
    index = position(y, table)
    low, high = table.values[index], table.values[index + 1]
    if not (y > low and y < high):
        return low
    # The quotient is below one, and the product with 2^32 is exact.
    left = np.uint32(min(np.float64((y - low) / (high - low)) * 4294967296.0, 4294967295.0))
    return high if drawn_away(left, draw, grid.random_bits) else low
