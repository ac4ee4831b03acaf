"""Compiled rows that are written over their inputs.

Where input and output may be the same memory, compilers do not vectorise: each row is read into a
buffer first, which stays in cache.
"""

# Kernels take everything by position, since numba reads them, not mypy.
# ruff: noqa: PLR0917
# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, no-any-return"

from __future__ import annotations

import numpy as np

from dse.numerics.compiled import apply_row, compiled, row_factors

SPAN = 4096
"""Elements of a buffer for values that share one scale."""


@compiled
def overwrite_rows(x, first, last, depth, grid, table, scaling, scales, zero_points):
    """As `compiled.quantize_rows`, in place."""
    group = min(scaling.group, max(depth, 1))
    factors = np.empty((4, -(-depth // group)), np.float32)
    before = np.empty(depth, np.float32)
    for row in range(first, last):
        after = x[row * depth : (row + 1) * depth]
        before[:] = after
        given = scales[min(row, scales.shape[0] - 1)]
        points = zero_points[min(row, zero_points.shape[0] - 1)]
        row_factors(before, 0, depth, group, scaling, given, points, factors)
        apply_row(before, after, 0, depth, group, factors, grid, table)
