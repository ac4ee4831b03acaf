"""Compiled search for the clipped range with the least squared error (statistic `mse`)."""

# Kernels take everything by position, since numba reads them, not mypy.
# ruff: noqa: PLR0917
# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, no-any-return"

from __future__ import annotations

import numpy as np

from dse.numerics.numba.factors import ROUNDED, scale_of, set_factors
from dse.numerics.numba.kernel_cache import compiled
from dse.numerics.numba.rounding import f32, general
from dse.numerics.numba.rows import apply_row


@compiled
def affine_of(low, high, grid, scaling):
    """Scale and zero point that map [low, high] onto all codes; see `scales.affine`."""
    scale = f32(f32(high - low) / f32(grid.positive_max + grid.negative_max))
    if scaling.rule == ROUNDED:
        scale = general(scale, scaling.grid)
    lowest = f32(-grid.negative_max)
    point = np.rint(f32(lowest - f32(low / (scale if scale != f32(0) else f32(1)))))
    return scale, min(max(f32(point), lowest), grid.positive_max)


@compiled
def least_error(
    x, group, counts, low, high, kept, affine, grid, table, scaling, scales, zero_points
):
    """For each group of `group` elements the clipped range with the least squared error.

    `counts` says how many values each of a group stands for; it is empty where for itself.
    `kept` are the shares of the range that are tried, widest first, which wins among equals.
    """
    factors = np.empty((4, 1), np.float32)
    values = np.empty(x.size // low.size, np.float32)
    for g in range(low.size):
        least = np.inf
        source = x[g * group : (g + 1) * group]
        for share in kept:
            if affine:
                scale, point = affine_of(low[g] * share, high[g] * share, grid, scaling)
            else:
                scale, point = scale_of(max(-low[g], high[g]) * share, scaling), f32(0)
            set_factors(factors, 0, scale, point, scaling)
            apply_row(source, values, 0, group, group, factors, grid, table)
            if counts.size:
                error = weighted_distance(values, source, counts)
            else:
                error = squared_distance(values, source)
            if error < least or share == kept[0]:
                least = error
                scales[g], zero_points[g] = scale, point


@compiled
def squared_distance(left, right):
    """Sum of squared differences in float64, over four interleaved sums."""
    a = b = c = d = 0.0
    whole = left.size - left.size % 4
    for i in range(0, whole, 4):
        a += np.float64(f32(left[i] - right[i])) ** 2
        b += np.float64(f32(left[i + 1] - right[i + 1])) ** 2
        c += np.float64(f32(left[i + 2] - right[i + 2])) ** 2
        d += np.float64(f32(left[i + 3] - right[i + 3])) ** 2
    for i in range(whole, left.size):
        a += np.float64(f32(left[i] - right[i])) ** 2
    return a + b + c + d


@compiled
def weighted_distance(left, right, counts):
    """Sum of squared differences in float64, each as often as `counts` says."""
    total = 0.0
    for i in range(left.size):
        total += counts[i] * np.float64(f32(left[i] - right[i])) ** 2
    return total
