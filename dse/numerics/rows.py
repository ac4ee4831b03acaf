"""Compiled groups along contiguous rows with dynamic scales: each pass over a row vectorises.

Results may be written over their inputs: a row is read into a buffer first.
"""

# Kernels take everything by position, since numba reads them, not mypy.
# ruff: noqa: PLR0917
# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, no-any-return"

from __future__ import annotations

import numpy as np

from dse.numerics.bits import bits_of, conjunction
from dse.numerics.columns import derive
from dse.numerics.compiled import compiled, u64
from dse.numerics.rounding import MAGNITUDE, f32, inlined, magic, u32

SHORT = 128
"""Groups below it are rounded a row at a time, with each element's own factors."""


@inlined
def _read(x, start, depth, group, row, largest):
    """Copies a row; `largest` gets the bits of each group's maximum."""
    for j in range(u64(depth)):
        row[j] = x[u64(start) + j]
    for g in range(u64(largest.size)):
        found = u32(0)
        for j in range(g * u64(group), min((g + u64(1)) * u64(group), u64(depth))):
            found = max(found, conjunction(bits_of(row[j]), MAGNITUDE))
        largest[g] = found


@inlined
def _spread(factors, depth, group, spread):
    """Factors of groups as factors of elements."""
    for g in range(u64(factors.shape[1])):
        multiplier, divisor, total = factors[0, g], factors[1, g], factors[2, g]
        for j in range(g * u64(group), min((g + u64(1)) * u64(group), u64(depth))):
            spread[0, j], spread[1, j], spread[2, j] = multiplier, divisor, total


@compiled
def quantize_derived_rows(x, out, first, last, depth, grid, scaling):
    """Rows first..last of a matrix on a grid of method MAGIC."""
    group = min(scaling.group, depth)
    groups = -(-depth // group)
    row = np.empty(depth, np.float32)
    largest = np.empty(groups, np.uint32)
    factors = np.empty((4, groups), np.float32)
    spread = np.empty((3, depth if group < SHORT else 0), np.float32)
    for r in range(first, last):
        start = u64(r * depth)
        _read(x, start, depth, group, row, largest)
        derive(largest, groups, scaling, factors)
        if group < SHORT:
            _spread(factors, depth, group, spread)
            for j in range(u64(depth)):
                y = f32(f32(row[j] * spread[0, j]) / spread[1, j])
                out[start + j] = magic(y, grid) * spread[2, j]
        else:
            for g in range(u64(groups)):
                multiplier, divisor, total = factors[0, g], factors[1, g], factors[2, g]
                for j in range(g * u64(group), min((g + u64(1)) * u64(group), u64(depth))):
                    y = f32(f32(row[j] * multiplier) / divisor)
                    out[start + j] = magic(y, grid) * total
