"""Grids that float arithmetic on magnitudes reaches, which takes fewer operations than bits do."""

from __future__ import annotations

from dse.numerics.grids.grid import FLOAT32_BIAS, Grid, Method

SMALLEST_STEP = -60
"""Exponent of the finest step with which no intermediate of a plain rounding underflows."""


def is_plain(grid: Grid) -> bool:
    """Whether a grid is rounded to nearest even or at random, symmetric, and saturates."""
    limits = {
        grid.positive_max, grid.positive_overflow, grid.positive_infinity,
        grid.negative_max, grid.negative_overflow, grid.negative_infinity,
    }  # fmt: skip
    return has_plain_steps(grid) and len(limits) == 1


def has_plain_steps(grid: Grid) -> bool:
    """Whether the same holds below the limits, as it must for scales, which are positive."""
    return bool(
        grid.method in (Method.MAGIC, Method.STOCHASTIC)
        and int(grid.lowest_step) - FLOAT32_BIAS >= SMALLEST_STEP
        and grid.lowest_exponent - grid.lowest_step == grid.mantissa_bits
    )
