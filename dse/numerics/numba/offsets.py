"""Compiled rows of formats with offsets: grid((x - offset) / scale) * scale + offset."""

# Kernels take everything by position, since numba reads them, not mypy.
# ruff: noqa: PLR0917
# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, no-any-return"

from __future__ import annotations

import numpy as np

from dse.numerics.numba.factors import row_factors, u64
from dse.numerics.numba.kernel_cache import compiled
from dse.numerics.numba.rounding import f32
from dse.numerics.numba.rows import apply_row


@compiled
def quantize_with_offsets(x, out, first, last, depth, grid, table, scaling, scales, offsets):
    """Rows from first to last; `scales` and `offsets`: (rows or 1, groups or 1).

    `out` may be `x`. A group of scale zero is its offset, whatever it held.
    """
    group = min(scaling.group, max(depth, 1))
    groups = -(-depth // group)
    factors = np.empty((4, groups), np.float32)
    # A row stays in a core's cache until its offsets are added again; in two arrays, which the
    # compiler can tell apart, so that it vectorises.
    shifted, rounded = np.empty(depth, np.float32), np.empty(depth, np.float32)
    no_points = np.zeros(1, np.float32)
    for r in range(first, last):
        given = scales[min(r, scales.shape[0] - 1)]
        added = offsets[min(r, offsets.shape[0] - 1)]
        values, results = x[r * depth : (r + 1) * depth], out[r * depth : (r + 1) * depth]
        row_factors(x, r * depth, depth, group, scaling, given, no_points, factors)
        for g in range(groups):
            offset = f32(0) if factors[2, g] == f32(0) else added[min(g, added.size - 1)]
            for i in range(u64(g * group), u64(min(g * group + group, depth))):
                shifted[i] = values[i] - offset
        apply_row(shifted, rounded, 0, depth, group, factors, grid, table)
        for g in range(groups):
            offset = added[min(g, added.size - 1)]
            for i in range(u64(g * group), u64(min(g * group + group, depth))):
                results[i] = rounded[i] + offset
