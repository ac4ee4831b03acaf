"""Compiled sums of products, for `dse.numerics.accumulator`."""

# Kernels take everything by position, since numba reads them, not mypy.
# ruff: noqa: PLR0917
# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, no-any-return"

from __future__ import annotations

import math

import numpy as np

from dse.numerics.numba.bits import bits_of, conjunction
from dse.numerics.numba.kernel_cache import compiled
from dse.numerics.numba.rounding import f32, general, u32

NO_EXPONENT = -10_000
"""Exponent of zero: below that of anything else."""


@compiled
def blocked_sum(left, right, out, chunk, alignment_bits, promote_every, grid):
    """out[i, j] = sum over k of left[i, k] * right[j, k]; see `Accumulator`."""
    depth = left.shape[1]
    exponents = (exponents_of(left), exponents_of(right))
    for i in range(left.shape[0]):
        for j in range(right.shape[0]):
            total, running = f32(0), f32(0)
            for first in range(0, depth, chunk):
                if first > 0 and first % promote_every == 0:
                    total, running = f32(total + running), f32(0)
                last = min(first + chunk, depth)
                x, y = left[i, first:last], right[j, first:last]
                if alignment_bits == 0:
                    added = exact_sum(x, y, running)
                else:
                    ex, ey = exponents[0][i, first:last], exponents[1][j, first:last]
                    added = aligned_sum(x, y, ex, ey, running, alignment_bits)
                running = general(narrowed(added, grid), grid)
            out[i, j] = f32(total + running)


@compiled
def exponents_of(values):
    """floor(log2 |value|) as int32; specials and zeros as `math.frexp` and `NO_EXPONENT` say."""
    found = np.empty(values.shape, np.int32)
    for i in range(values.shape[0]):
        for k in range(values.shape[1]):
            value = np.float64(values[i, k])
            found[i, k] = NO_EXPONENT if value == 0.0 else math.frexp(value)[1] - 1
    return found


@compiled
def narrowed(value, grid):
    """float64 as float32, such that rounding to the grid afterwards is as rounding once.

    To odd where the grid is coarser than float32; else as the grid rounds, to nearest or to zero.
    """
    nearest = f32(value)
    if np.float64(nearest) == value or value != value:  # noqa: PLR0124
        return nearest
    if grid.mantissa_bits < 23:
        if conjunction(bits_of(nearest), u32(1)) == u32(1):
            return nearest
        return np.nextafter(nearest, f32(np.inf) if value > nearest else f32(-np.inf))
    if grid.away_if_positive == u32(0) and abs(np.float64(nearest)) > abs(value):
        return np.nextafter(nearest, f32(0))
    return nearest


@compiled
def exact_sum(x, y, running):
    """The running sum plus products, in float64."""
    added = np.float64(running)
    for k in range(x.size):
        added += np.float64(x[k]) * np.float64(y[k])
    return added


@compiled
def aligned_sum(x, y, exponents_x, exponents_y, running, alignment_bits):
    """The same, where each term loses what lies `alignment_bits` below the largest exponent.

    A product's exponent is the sum of its factors', whatever the product of their significands.
    """
    largest = math.frexp(np.float64(running))[1] - 1 if running != f32(0) else NO_EXPONENT
    for k in range(x.size):
        largest = max(largest, exponents_x[k] + exponents_y[k])
    upper = exact_sum(x, y, running)
    if largest <= NO_EXPONENT // 2 or not abs(upper) < np.inf:
        return upper
    to_units = math.ldexp(1.0, alignment_bits - largest)
    units = np.int64(np.float64(running) * to_units)
    for k in range(x.size):
        units += np.int64(np.float64(x[k]) * np.float64(y[k]) * to_units)
    return np.float64(units) / to_units
