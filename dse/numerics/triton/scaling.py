"""Triton functions (CUDA) that derive scales and divide by them, as `numba.factors` does.

Triton's own division may be off by an ulp: it is `div_rn` here, or `quotient`, which rounds as
correctly and costs a third where many elements share a divisor.
"""

# As in `dse.numerics.triton.rounding`.
# ruff: noqa: N803
# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, no-any-return"
# mypy: disable-error-code="import-not-found, untyped-decorator, unused-ignore"

from __future__ import annotations

import triton
import triton.language as tl

from dse.numerics.grids.scaling import Rule
from dse.numerics.triton.rounding import at_most, bits_of, float_of, nearest

GIVEN = tl.constexpr(int(Rule.GIVEN))
ROUNDED = tl.constexpr(int(Rule.ROUNDED))
FLOOR = tl.constexpr(int(Rule.FLOOR))
CEIL = tl.constexpr(int(Rule.CEIL))
EVEN = tl.constexpr(int(Rule.EVEN))
RCEIL = tl.constexpr(int(Rule.RCEIL))


@triton.jit
def divided(x, divisor):
    """A tensor over a scalar or a tensor of its shape, rounded once."""
    return tl.div_rn(x, tl.full(x.shape, 1, tl.float32) * divisor)


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
        bits = bits_of(divided(largest, scaling[0])).to(tl.int32)
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
def scale_of(largest, scaling, scale_numbers, RULE: tl.constexpr, TWO_LEVEL: tl.constexpr):
    """As `compiled.scale_of`."""
    # 2^-127 arrives as float64: Triton's launcher has no subnormal float32.
    smallest = tl.cast(scaling[3], tl.float32)
    if RULE >= FLOOR:
        scale = tl.maximum(exponent_scale(largest, scaling, RULE), smallest)
    else:
        scale = divided(largest, scaling[0])
        if TWO_LEVEL:
            scale = divided(scale, scaling[4])
        scale = tl.maximum(scale, smallest)
        if RULE == ROUNDED:
            scale = tl.maximum(rounded_scale(scale, scale_numbers), smallest)
    return tl.where(largest < float("inf"), scale, float("nan"))


@triton.jit
def rounded_scale(scale, numbers):
    """The nearest value for a positive scale, ties to even."""
    # Twice the limit is beyond it whatever follows, and keeps `nearest` from overflowing.
    rounded = nearest(at_most(scale, 2.0 * numbers[0]), numbers)
    return tl.where(rounded > numbers[0], numbers[5], rounded)


@triton.jit
def divisor_of(scale):
    """A power of two, the positive scale times it, and that product's reciprocal.

    The power brings scales near 1, so that `quotient` neither overflows nor loses bits. A scale of
    zero becomes the power zero: everything over it is zero, as `compiled.set_factors` has it.
    """
    exponent = tl.minimum(bits_of(scale) >> 23, 253)
    power = tl.where(scale == 0, 0.0, float_of((254 - exponent) << 23))
    near_one = tl.where(scale == 0, 1.0, scale * power)
    return power, near_one, divided(tl.full(near_one.shape, 1, tl.float32), near_one)


@triton.jit
def quotient(magnitude, power, divisor, reciprocal, limit):
    """A magnitude over a scale, at most `limit`; the rest is as `divisor_of` says.

    Two corrections by the exact remainder make it correctly rounded, unless it is below 2^-70,
    which rounds to zero on plain grids.

    Source: Markstein, "Computation of elementary functions on the IBM RISC System/6000
    processor", IBM J. Res. Dev. 34(1), 1990, theorem 7.
    """
    x = at_most(magnitude * power, divisor * limit)
    q = x * reciprocal
    q = tl.fma(tl.fma(-q, divisor, x), reciprocal, q)
    return tl.fma(tl.fma(-q, divisor, x), reciprocal, q)
