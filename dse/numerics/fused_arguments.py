"""What the fused CUDA kernels take beside values; imports no triton."""

from __future__ import annotations

import numpy as np

from dse.numerics.grid import FLOAT32_BIAS, Grid, Method
from dse.numerics.scaling import Scaling

SMALLEST_STEP = -60
"""Exponent of the finest step with which no intermediate of a plain rounding underflows."""


def is_plain(grid: Grid) -> bool:
    """Whether the plain roundings of `dse.numerics.fused_rounding` reach this grid.

    They round to nearest even or at random, and saturate, at the same limit on both sides of zero.
    """
    limits = {
        grid.positive_max, grid.positive_overflow, grid.positive_infinity,
        grid.negative_max, grid.negative_overflow, grid.negative_infinity,
    }  # fmt: skip
    return _is_closed(grid) and len(limits) == 1


def rounds_scales(grid: Grid) -> bool:
    """Whether `fused_scaling.rounded_scale` reaches this grid; scales are positive."""
    return grid.method == Method.MAGIC and _is_closed(grid)


def _is_closed(grid: Grid) -> bool:
    return bool(
        grid.method in (Method.MAGIC, Method.STOCHASTIC)
        and int(grid.lowest_step) - FLOAT32_BIAS >= SMALLEST_STEP
        and grid.lowest_exponent - grid.lowest_step == grid.mantissa_bits
    )


def plain_numbers(grid: Grid) -> tuple[float, ...]:
    """The limit, the start of the lowest binade, three factors, and what is beyond the limit.

    The factors take the binade of a value to the constants of `nearest` and `drawn` and to the
    grid's step. All are floats, since Triton compiles anew for some integers.
    """
    mantissa = int(grid.mantissa_bits)
    return (
        float(grid.positive_max), 2.0 ** (int(grid.lowest_exponent) - FLOAT32_BIAS),
        1.5 * 2.0 ** (23 - mantissa), 2.0 ** (23 - mantissa), 2.0**-mantissa,
        float(grid.positive_overflow),
    )  # fmt: skip


def grid_numbers(grid: Grid) -> tuple[int | float, ...]:
    """Any grid, in the order in which the general roundings index it."""
    return (
        int(grid.mantissa_bits), int(grid.lowest_exponent), int(grid.lowest_step),
        float(grid.positive_max), float(grid.negative_max),
        float(grid.positive_overflow), float(grid.negative_overflow),
        float(grid.positive_infinity), float(grid.negative_infinity),
        int(np.signbit(grid.zero)),
        int(grid.threshold), int(grid.threshold_if_even), int(grid.away_if_positive),
        int(grid.away_if_negative), int(grid.away_if_odd),
    )  # fmt: skip


def scaling_numbers(scaling: Scaling) -> tuple[int | float, ...]:
    """A scaling; last, the reciprocal of the tensor's scale, which NVFP4 kernels multiply by."""
    return (
        float(scaling.element_max), int(scaling.element_exponent), int(scaling.element_mantissa),
        float(scaling.minimum), float(scaling.tensor_scale),
        float(np.float32(1) / scaling.tensor_scale),
    )  # fmt: skip
