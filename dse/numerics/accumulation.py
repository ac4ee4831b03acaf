"""Compiled sums of products, for `dse.numerics.accumulator`."""

# Kernels take everything by position, since numba reads them, not mypy.
# ruff: noqa: PLR0917
# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, no-any-return"

from __future__ import annotations

import math

import numpy as np

from dse.numerics.bits import bits_of, conjunction
from dse.numerics.compiled import compiled
from dse.numerics.rounding import f32, general, u32


@compiled
def blocked_sum(left, right, out, chunk, alignment_bits, promote_every, grid):
    """out[i, j] = sum over k of left[i, k] * right[j, k]; see `Accumulator`."""
    depth = left.shape[1]
    for i in range(left.shape[0]):
        for j in range(right.shape[0]):
            total, running = f32(0), f32(0)
            for first in range(0, depth, chunk):
                if first > 0 and first % promote_every == 0:
                    total, running = f32(total + running), f32(0)
                last = min(first + chunk, depth)
                added = chunk_sum(left, right, i, j, first, last, running, alignment_bits)
                running = general(narrowed(added, grid.mantissa_bits), grid)
            out[i, j] = f32(total + running)


@compiled
def narrowed(value, mantissa_bits):
    """float64 as float32: to nearest for float32 itself, to odd where a rounding follows."""
    nearest = f32(value)
    if mantissa_bits == 23 or np.float64(nearest) == value or value != value:  # noqa: PLR0124
        return nearest
    if conjunction(bits_of(nearest), u32(1)) == u32(1):
        return nearest
    return np.nextafter(nearest, f32(np.inf) if value > nearest else f32(-np.inf))


@compiled
def chunk_sum(left, right, i, j, first, last, running, alignment_bits):
    """The running sum plus one chunk of products, in float64.

    With `alignment_bits`, each term loses what lies below that many fraction bits of the largest.
    """
    if alignment_bits == 0:
        added = np.float64(running)
        for k in range(first, last):
            added += np.float64(left[i, k]) * np.float64(right[j, k])
        return added
    largest = abs(np.float64(running))
    for k in range(first, last):
        largest = max(largest, abs(np.float64(left[i, k]) * np.float64(right[j, k])))
    if largest == 0.0 or not largest < np.inf:
        return largest + np.float64(running)
    unit = math.ldexp(1.0, math.frexp(largest)[1] - 1 - alignment_bits)
    added = np.trunc(np.float64(running) / unit)
    for k in range(first, last):
        added += np.trunc(np.float64(left[i, k]) * np.float64(right[j, k]) / unit)
    return added * unit


@compiled
def integer_sum(left, right, out, promote_every, bits):
    """Sums of integer products that wrap at `bits` and spill into a wrapping int32."""
    for i in range(left.shape[0]):
        for j in range(right.shape[0]):
            total, running = 0, 0
            for k in range(left.shape[1]):
                if k > 0 and k % promote_every == 0:
                    total, running = wrapped(total + running, 32), 0
                running = wrapped(running + left[i, k] * right[j, k], bits)
            out[i, j] = wrapped(total + running, 32)


@compiled
def wrapped(value, bits):
    """Two's complement of `bits`."""
    half = 1 << (bits - 1)
    return ((value + half) & ((1 << bits) - 1)) - half
