"""Arguments of the fused CUDA kernels beside values; imports no triton."""

from __future__ import annotations

import numpy as np

from dse.numerics.grids.grid import FLOAT32_BIAS, Grid, Method
from dse.numerics.grids.scaling import Scaling
from dse.numerics.grids.unscaled import has_plain_steps


def rounds_scales(grid: Grid) -> bool:
    """Whether `fused_scaling.rounded_scale` reaches this grid; scales are positive."""
    return grid.method == Method.MAGIC and has_plain_steps(grid)


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
