"""Compiled dot products whose running sum is rounded again and again, columns in vector lanes.

A product's sum is formed in float64, in which products of two float32 are exact, and rounded once
to the accumulator; in float32 where that provably gives the same (`dse.numerics.summation`).
A block of columns stays in the first cache while the contraction passes, four rows at a time share
what is read of it.
"""

# Kernels take everything by position, since numba reads them, not mypy.
# ruff: noqa: PLR0917
# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, no-any-return"

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np
from numba import types
from numba.extending import intrinsic

from dse.numerics.numba.bits import (
    bits_of,
    conjunction,
    disjunction,
    exclusive,
    float_of,
    shift_left,
    shift_right,
)
from dse.numerics.numba.factors import u64
from dse.numerics.numba.kernel_cache import compiled
from dse.numerics.numba.rounding import f32, inlined, mixed, u32

COLUMNS = 128
"""Columns whose sums four rows keep at once: 4 KiB of the first cache."""
ROWS = 4
"""Rows come in multiples of it."""


Real = np.float64 | np.float32


class Sum(NamedTuple):
    """A float accumulator as a kernel needs it, in the type that it computes in."""

    scale: Real
    """1.5 * 2^(digits - mantissa bits): a binade times it, added and taken away, rounds."""
    step: Real
    """2^-mantissa bits: the spacing over its binade."""
    lowest: Real
    """The smallest normal number, below which the spacing stays."""
    highest: Real
    """The binade beyond that of the largest number."""
    top: Real
    large: Real
    """A power of two that takes all that is above `top` beyond the type's own range."""
    small: Real
    """1 / large."""


def _reinterpreting(source, target):
    def typing(_, value):
        def emit(context, builder, signature, arguments):
            return builder.bitcast(arguments[0], context.get_value_type(target))

        return target(source), emit

    return intrinsic(typing)


def _binade_of(real, whole, mask):
    """The power of two at or below a magnitude; 0 below normal numbers, NaN and Inf as Inf."""

    def typing(_, value):
        def emit(context, builder, signature, arguments):
            bits = builder.bitcast(arguments[0], context.get_value_type(whole))
            kept = builder.and_(bits, bits.type(mask))
            return builder.bitcast(kept, context.get_value_type(real))

        return real(real), emit

    return intrinsic(typing)


def _added(real):
    """The function a * b + c, rounded once."""

    def typing(_, a, b, c):
        def emit(context, builder, signature, arguments):
            return builder.fma(*arguments)

        return real(real, real, real), emit

    return intrinsic(typing)


def _shifter_of(real, whole, mask, one):
    """A number's power of two times a factor, by adding exponents: no operation on floats.

    Below normal numbers the power is that of 1 / `one`, and what comes of it is finite.
    """

    def typing(_, value, factor):
        def emit(context, builder, signature, arguments):
            bits, by = (builder.bitcast(x, context.get_value_type(whole)) for x in arguments)
            power = builder.and_(bits, bits.type(mask))
            added = builder.add(power, builder.sub(by, bits.type(one)))
            return builder.bitcast(added, context.get_value_type(real))

        return real(real, real), emit

    return intrinsic(typing)


_shifter32 = _shifter_of(types.float32, types.uint32, 0x7F800000, 0x3F800000)
_binade64 = _binade_of(types.float64, types.uint64, 0x7FF0000000000000)
_binade32 = _binade_of(types.float32, types.uint32, 0x7F800000)
_added64, _added32 = _added(types.float64), _added(types.float32)
_float_of = _reinterpreting(types.uint64, types.float64)
ONE = u64(0x3FF0000000000000)


@compiled
def traits_of(x):
    """The traits of float32 values, those that are infinite or no number left out.

    The largest magnitude and the least beside zero, as bits; bits of all significands together; 1
    if all values are whole, else 0.
    """
    largest, least, union, whole = u32(0), u32(0xFFFFFFFF), u32(0), u32(1)
    for i in range(x.size):
        bits = conjunction(bits_of(x[i]), u32(0x7FFFFFFF))
        bits = bits if bits < u32(0x7F800000) else u32(0)
        largest = max(largest, bits)
        least = min(least, bits if bits > u32(0) else u32(0xFFFFFFFF))
        union = disjunction(union, conjunction(bits, u32(0x7FFFFF)))
        value = float_of(bits)
        whole = conjunction(whole, u32(1) if np.floor(value) == value else u32(0))
    return largest, least, union, whole


@inlined
def _free(r, to):
    return r


@inlined
def _to_infinity(r, to):
    """An infinity in place of what is above `top`: exact below, without a comparison."""
    return (r * to.large) * to.small


@inlined
def _clamped(r, to):
    return min(max(r, -to.top), to.top)


def _nearest(binade_of, added, held):
    """Addition of a * b to a sum, rounded to nearest, ties to even; NaN stays NaN."""

    @inlined
    def rounded(a, b, total, to):
        s = added(a, b, total)
        c = min(max(binade_of(s), to.lowest), to.highest) * to.scale
        return held((s + c) - c, to)

    @inlined
    def within(a, b, total, to):
        s = added(a, b, total)
        c = max(binade_of(s), to.lowest) * to.scale
        return (s + c) - c

    return within if held is _free else rounded


@inlined
def _stepped(a, b, total, to):
    """`_nearest` of sums that are whole steps of the accumulator, and never beyond `top`."""
    s = _added32(a, b, total)
    c = _shifter32(s, to.scale)
    return (s + c) - c


@inlined
def _stepped_to_infinity(a, b, total, to):
    """The same, in units of which the type itself holds no more than the accumulator does.

    The shifter is taken `large` times smaller, so that it is finite beside an infinite sum.
    """
    s = _added32(a, b, total)
    c = _shifter32(s, to.scale)
    return (_added32(s, to.small, c) - c) * to.large


@inlined
def _spilled(sums, before, rows, count):
    """Moves running sums into float32 ones."""
    for r in range(rows):
        for j in range(count):
            before[r, j] = f32(before[r, j] + f32(sums[r, j]))
            sums[r, j] = 0


@inlined
def _written(out, i, start, before, rows, count):
    for r in range(rows):
        for j in range(count):
            out[i + r, u64(start) + j] = before[r, j]


@inlined
def _left(k, period):
    """Products from k to the end of a period, that at k included."""
    return period - k % period


def _one_product(add):
    """Four rows of sums with the product at k added by a function."""

    @numba.njit(inline="always", error_model="numpy")
    def step(left, right, sums, i, k, start, depth, width, count, to):
        a0, a1 = left[i * depth + k], left[(i + 1) * depth + k]
        a2, a3 = left[(i + 2) * depth + k], left[(i + 3) * depth + k]
        base = u64(k * width + start)
        for j in range(count):
            b = right[base + j]
            sums[0, j] = add(a0, b, sums[0, j], to)
            sums[1, j] = add(a1, b, sums[1, j], to)
            sums[2, j] = add(a2, b, sums[2, j], to)
            sums[3, j] = add(a3, b, sums[3, j], to)

    return step


def _two_products(added):
    """Four rows of sums with the products at k and k + 1 added: they are kept half as often."""

    @numba.njit(inline="always", error_model="numpy")
    def step(left, right, sums, i, k, start, depth, width, count):
        a0, a1 = left[i * depth + k], left[(i + 1) * depth + k]
        a2, a3 = left[(i + 2) * depth + k], left[(i + 3) * depth + k]
        c0, c1 = left[i * depth + k + 1], left[(i + 1) * depth + k + 1]
        c2, c3 = left[(i + 2) * depth + k + 1], left[(i + 3) * depth + k + 1]
        base = u64(k * width + start)
        after = base + u64(width)
        for j in range(count):
            b, d = right[base + j], right[after + j]
            sums[0, j] = added(c0, d, added(a0, b, sums[0, j]))
            sums[1, j] = added(c1, d, added(a1, b, sums[1, j]))
            sums[2, j] = added(c2, d, added(a2, b, sums[2, j]))
            sums[3, j] = added(c3, d, added(a3, b, sums[3, j]))

    return step


def _two_rounded(add):
    """Four rows of sums with the products at k and k + 1 added one after another."""

    @numba.njit(inline="always", error_model="numpy")
    def step(left, right, sums, i, k, start, depth, width, count, to):
        a0, a1 = left[i * depth + k], left[(i + 1) * depth + k]
        a2, a3 = left[(i + 2) * depth + k], left[(i + 3) * depth + k]
        c0, c1 = left[i * depth + k + 1], left[(i + 1) * depth + k + 1]
        c2, c3 = left[(i + 2) * depth + k + 1], left[(i + 3) * depth + k + 1]
        base = u64(k * width + start)
        after = base + u64(width)
        for j in range(count):
            b, d = right[base + j], right[after + j]
            sums[0, j] = add(c0, d, add(a0, b, sums[0, j], to), to)
            sums[1, j] = add(c1, d, add(a1, b, sums[1, j], to), to)
            sums[2, j] = add(c2, d, add(a2, b, sums[2, j], to), to)
            sums[3, j] = add(c3, d, add(a3, b, sums[3, j], to), to)

    return step


def _plainly(added):
    @inlined
    def add(a, b, total, to):
        return added(a, b, total)

    return add


def _four_rows(one, added, real):
    """Rows first to last, in fours, of sums that `one` rounds after every `chunk` products."""
    rounded, plain, pair = _one_product(one), _one_product(_plainly(added)), _two_products(added)
    both = _two_rounded(one)

    @numba.njit(inline="always", error_model="numpy")
    def run(left, right, out, first, last, depth, width, chunk, every, to):
        sums, before = np.zeros((ROWS, COLUMNS), real), np.zeros((ROWS, COLUMNS), np.float32)
        for start in range(0, width, COLUMNS):
            count = u64(min(COLUMNS, width - start))
            for i in range(first, last, ROWS):
                before[:] = f32(0)
                k = 0
                while k < depth:
                    if chunk == 1 and k + 1 < depth and (k + 1) % every > 0:
                        both(left, right, sums, i, k, start, depth, width, count, to)
                        k += 2
                        if k % every == 0 or k == depth:
                            _spilled(sums, before, ROWS, count)
                        continue
                    end = k + min(chunk - k % chunk, every - k % every, depth - k) - 1
                    while k + 1 < end:
                        pair(left, right, sums, i, k, start, depth, width, count)
                        k += 2
                    if (k + 1) % chunk == 0 or k + 1 == depth:
                        rounded(left, right, sums, i, k, start, depth, width, count, to)
                    else:
                        plain(left, right, sums, i, k, start, depth, width, count, to)
                    k += 1
                    if k % every == 0 or k == depth:
                        _spilled(sums, before, ROWS, count)
                _written(out, i, start, before, ROWS, count)

    return run


def _rows(binade_of, added, held, real):
    return _four_rows(_nearest(binade_of, added, held), added, real)


_rows_free = _rows(_binade64, _added64, _free, np.float64)
_rows_infinite = _rows(_binade64, _added64, _to_infinity, np.float64)
_rows_clamped = _rows(_binade64, _added64, _clamped, np.float64)
_rows_free_short = _rows(_binade32, _added32, _free, np.float32)
_rows_infinite_short = _rows(_binade32, _added32, _to_infinity, np.float32)


@compiled
def sum_free(left, right, out, first, last, depth, width, chunk, every, to):
    """Sums rounded to nearest, ties to even, none of which overflows."""
    _rows_free(left, right, out, first, last, depth, width, chunk, every, to)


@compiled
def sum_infinite(left, right, out, first, last, depth, width, chunk, every, to):
    """Sums rounded to nearest, ties to even, that become infinite."""
    _rows_infinite(left, right, out, first, last, depth, width, chunk, every, to)


@compiled
def sum_clamped(left, right, out, first, last, depth, width, chunk, every, to):
    """Sums rounded to nearest, ties to even, that stop at the largest number."""
    _rows_clamped(left, right, out, first, last, depth, width, chunk, every, to)


@compiled
def sum_free_short(left, right, out, first, last, depth, width, chunk, every, to):
    """`sum_free` in float32."""
    _rows_free_short(left, right, out, first, last, depth, width, chunk, every, to)


@compiled
def sum_infinite_short(left, right, out, first, last, depth, width, chunk, every, to):
    """`sum_infinite` in float32."""
    _rows_infinite_short(left, right, out, first, last, depth, width, chunk, every, to)


_rows_stepped = _four_rows(_stepped, _added32, np.float32)
_rows_stepped_to_infinity = _four_rows(_stepped_to_infinity, _added32, np.float32)


@compiled
def sum_stepped(left, right, out, first, last, depth, width, chunk, every, to):
    """`sum_free_short` where products are whole steps of the accumulator."""
    _rows_stepped(left, right, out, first, last, depth, width, chunk, every, to)


@compiled
def sum_stepped_to_infinity(left, right, out, first, last, depth, width, chunk, every, to):
    """`sum_infinite_short` of such products, after every one, in units (`_in_units`)."""
    _rows_stepped_to_infinity(left, right, out, first, last, depth, width, chunk, every, to)


@inlined
def _fused(a, b, total, to):
    return _added32(a, b, total)


_rows_fused = _four_rows(_fused, _added32, np.float32)


@compiled
def sum_fused(left, right, out, first, last, depth, width, chunk, every, to):
    """Sums that are float32 themselves: the processor rounds them once, as they are to be."""
    _rows_fused(left, right, out, first, last, depth, width, chunk, every, to)


@inlined
def _stopped(a, b, total, to):
    return min(max(_added32(a, b, total), to.lowest), to.top)


_rows_stopped = _four_rows(_stopped, _added32, np.float32)


@compiled
def sum_stopped(left, right, out, first, last, depth, width, chunk, every, to):
    """Sums of integers within 24 bits that stop at `to.lowest` and `to.top`."""
    _rows_stopped(left, right, out, first, last, depth, width, chunk, every, to)


@inlined
def _turned(a, b, total, to):
    """The sum in two's complement; `to.scale` are its codes."""
    s = _added32(a, b, total)
    return s - np.floor((s - to.lowest) * to.small) * to.scale


_rows_turned = _four_rows(_turned, _added32, np.float32)


@compiled
def sum_turned(left, right, out, first, last, depth, width, chunk, every, to):
    """Sums of integers within 24 bits that wrap from `to.lowest` on after every chunk."""
    _rows_turned(left, right, out, first, last, depth, width, chunk, every, to)


@inlined
def _below(s, to):
    """The accumulator's number next to s on the side of zero, and the spacing there."""
    binade = min(max(_binade64(s), to.lowest), to.highest)
    c, step = binade * to.scale, binade * to.step
    near = (s + c) - c
    return near - np.copysign(step, s) if abs(near) > abs(s) else near, step


@inlined
def _cut(a, b, total, to):
    s = _added64(a, b, total)
    return _clamped(_below(s, to)[0], to) if abs(s) < np.inf else s


@inlined
def _either(s, to, draw):
    """One of the two numbers around s, by a draw from [0, 1)."""
    below, step = _below(s, to)
    return below + np.copysign(step, s) if abs(s) - abs(below) > step * draw else below


@inlined
def _next(state):
    state = exclusive(state, shift_left(state, u32(13)))
    state = exclusive(state, shift_right(state, u32(17)))
    return exclusive(state, shift_left(state, u32(5)))


_cut_rows = _four_rows(_cut, _added64, np.float64)


@compiled
def sum_cut(left, right, out, first, last, depth, width, chunk, every, to):
    """Sums cut towards zero, which never leave the range."""
    _cut_rows(left, right, out, first, last, depth, width, chunk, every, to)


@compiled
def sum_drawn(left, right, out, first, last, depth, width, chunk, every, to, seed, stops):
    """Sums rounded up or down by chance, a draw of 32 bits an output and step.

    Draws of an output follow from the seed and its number alone.
    Source: Marsaglia, Xorshift RNGs, J. Statistical Software 8 (2003), shifts 13, 17, 5.
    """
    sums, before = np.zeros((1, COLUMNS)), np.zeros((1, COLUMNS), np.float32)
    state = np.empty(COLUMNS, np.uint32)
    key = mixed(u32(seed))
    for start in range(0, width, COLUMNS):
        count = u64(min(COLUMNS, width - start))
        for i in range(first, last):
            before[:] = f32(0)
            for j in range(count):
                number = u32(u64(i * width + start) + j)
                state[j] = disjunction(mixed(exclusive(number, key)), u32(1))  # never all zero
            for k in range(depth):
                a, base = left[i * depth + k], u64(k * width + start)
                if (k + 1) % chunk == 0 or k + 1 == depth:
                    for j in range(count):
                        state[j] = _next(state[j])
                        s = _added64(a, right[base + j], sums[0, j])
                        r = _either(s, to, _float_of(ONE | (u64(state[j]) << u64(20))) - 1.0)
                        sums[0, j] = _clamped(r, to) if stops else _to_infinity(r, to)
                else:
                    for j in range(count):
                        sums[0, j] = _added64(a, right[base + j], sums[0, j])
                if (k + 1) % every == 0 or k + 1 == depth:
                    _spilled(sums, before, 1, count)
            _written(out, i, start, before, 1, count)


@compiled
def sum_saturating(left, right, out, first, last, depth, width, every, low, high):
    """Sums of integers that stop at `low` and `high`, and spill every so often."""
    sums, before = np.empty(COLUMNS), np.empty(COLUMNS)
    for start in range(0, width, COLUMNS):
        count = u64(min(COLUMNS, width - start))
        for i in range(first, last):
            sums[:], before[:] = 0.0, 0.0
            for k in range(depth):
                a, base = left[i * depth + k], u64(k * width + start)
                for j in range(count):
                    s = _added64(a, right[base + j], sums[j])
                    sums[j] = min(max(s, low), high)
                if (k + 1) % every == 0 or k + 1 == depth:
                    for j in range(count):
                        before[j] += sums[j]
                    sums[:] = 0.0
            for j in range(count):
                out[i, u64(start) + j] = before[j]
