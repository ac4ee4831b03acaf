"""Triton kernels (CUDA): one read and one write, bit-identical to the compiled CPU kernels.

Only what runs on whole groups along contiguous rows is here; everything else takes
`dse.numerics.on_device`.
"""

# As in `dse.numerics.triton.rounding`.
# ruff: noqa: N803, PLR0917
# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, no-any-return"
# mypy: disable-error-code="import-not-found, untyped-decorator, unused-ignore"

from __future__ import annotations

import triton
import triton.language as tl

from dse.numerics.triton.rounding import (
    SIGN,
    STOCHASTIC,
    at_most,
    bits_of,
    drawn,
    float_of,
    nearest,
    on_grid,
    random_bits,
)
from dse.numerics.triton.scaling import FLOOR, GIVEN, divided, divisor_of, quotient, scale_of


@triton.jit
def plain_value(
    x, magnitude, index, key, numbers,
    METHOD: tl.constexpr, BITS: tl.constexpr, SIGNED_ZERO: tl.constexpr,
):  # fmt: skip
    """A bounded magnitude on a plain grid, with the sign of x."""
    if METHOD == STOCHASTIC:
        rounded = drawn(magnitude, random_bits(index, key), numbers, BITS)
    else:
        rounded = nearest(magnitude, numbers)
    value = float_of(bits_of(rounded) | (bits_of(x) & SIGN))
    return value if SIGNED_ZERO else value + 0.0


@triton.jit
def span_kernel(
    x_ptr, out_ptr, scale_ptr, count, key, numbers, tables, scaling, scale_numbers,
    METHOD: tl.constexpr, BITS: tl.constexpr, PLAIN: tl.constexpr, SIGNED_ZERO: tl.constexpr,
    SCALED: tl.constexpr, RULE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Elements under one scale, which is read from the device or derived from what is read."""
    start = tl.program_id(0).to(tl.int64) * BLOCK
    place = tl.arange(0, BLOCK)
    inside = start + place < count
    index = start.to(tl.uint32) + place.to(tl.uint32)
    draw_key = tl.cast(key, tl.uint32)
    x = tl.load(x_ptr + start + place, mask=inside, other=0.0).to(tl.float32)
    # Read from the device, so that the host need not wait for the statistic before it launches.
    scale = tl.load(scale_ptr + tl.zeros((1,), tl.int32)) if SCALED else 1.0
    if RULE != GIVEN:
        scale = scale_of(scale, scaling, scale_numbers, RULE, False)
    if PLAIN:
        magnitude = tl.abs(x)
        if SCALED and METHOD != STOCHASTIC:
            power, divisor, reciprocal = divisor_of(scale)
            magnitude = quotient(magnitude, power, divisor, reciprocal, numbers[0])
        elif SCALED:
            magnitude = tl.where(scale == 0, magnitude * 0.0, divided(magnitude, scale))
            magnitude = at_most(magnitude, numbers[0])
        else:
            magnitude = at_most(magnitude, numbers[0])
        values = plain_value(x, magnitude, index, draw_key, numbers, METHOD, BITS, SIGNED_ZERO)
    else:
        y = tl.where(scale == 0, x * 0.0, divided(x, scale)) if SCALED else x
        values = on_grid(y, index, draw_key, numbers, tables, METHOD, BITS)
    if SCALED:
        values *= scale
    tl.store(out_ptr + start + place, values.to(out_ptr.dtype.element_ty), mask=inside)


@triton.jit
def largest_kernel(x_ptr, bits_ptr, count, BLOCK: tl.constexpr):
    """The bits of the largest finite magnitude into an int32 that was zero."""
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + place, mask=place < count, other=0.0).to(tl.float32)
    # Magnitudes order as their bits do, and integers have an atomic maximum on every device; it
    # also makes the result the same in whatever order the programs run.
    magnitude = tl.where(tl.abs(x) < float("inf"), tl.abs(x), 0.0)  # false for NaN too
    tl.atomic_max(bits_ptr, tl.max(bits_of(magnitude).to(tl.int32), axis=0))


@triton.jit
def group_kernel(
    x_ptr, out_ptr, groups, key, numbers, tables, scaling, scale_numbers,
    METHOD: tl.constexpr, BITS: tl.constexpr, PLAIN: tl.constexpr, SIGNED_ZERO: tl.constexpr,
    RULE: tl.constexpr, TWO_LEVEL: tl.constexpr, GROUP: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """Whole groups of contiguous elements: statistic, scale and rounding in registers."""
    first = tl.program_id(0).to(tl.int64) * TILE
    row = tl.arange(0, TILE)
    place = row[:, None] * GROUP + tl.arange(0, GROUP)[None, :]
    inside = (first + row)[:, None] < groups
    index = (first * GROUP).to(tl.uint32) + place.to(tl.uint32)
    draw_key = tl.cast(key, tl.uint32)
    x = tl.load(x_ptr + first * GROUP + place, mask=inside, other=0.0).to(tl.float32)
    # Bits compare as magnitudes do, with NaN above Inf.
    largest = float_of(tl.max(bits_of(tl.abs(x)).to(tl.int32), axis=1).to(tl.uint32))
    scale = scale_of(largest, scaling, scale_numbers, RULE, TWO_LEVEL)
    total = scaling[4] * scale if TWO_LEVEL else scale
    if TWO_LEVEL or RULE >= FLOOR:
        # The reciprocal of a power of two is exact, and so is the multiplication as a division.
        one = tl.full(scale.shape, 1, tl.float32)
        multiplier = tl.div_rn(one * scaling[5] if TWO_LEVEL else one, scale)
        y = x * tl.where(total == 0, 0.0, multiplier)[:, None]
        magnitude = at_most(tl.abs(y), numbers[0]) if PLAIN else y
    elif PLAIN and METHOD != STOCHASTIC:
        power, divisor, reciprocal = divisor_of(scale)
        y = x
        magnitude = quotient(
            tl.abs(x), power[:, None], divisor[:, None], reciprocal[:, None], numbers[0]
        )
    else:
        y = divided(x, tl.where(total == 0, float("inf"), scale)[:, None])
        magnitude = at_most(tl.abs(y), numbers[0]) if PLAIN else y
    if PLAIN:
        values = plain_value(y, magnitude, index, draw_key, numbers, METHOD, BITS, SIGNED_ZERO)
    else:
        values = on_grid(y, index, draw_key, numbers, tables, METHOD, BITS)
    values *= total[:, None]
    tl.store(out_ptr + first * GROUP + place, values.to(out_ptr.dtype.element_ty), mask=inside)
