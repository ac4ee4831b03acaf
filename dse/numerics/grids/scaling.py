"""The derivation of a group's scale, as plain numbers that a kernel can follow."""

from __future__ import annotations

from enum import IntEnum
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from dse.numerics.grids.grid import Grid, grid_of, is_tabled
from hwmodels.formats.quantizer import Format, Quantizer


class Rule(IntEnum):
    """The step from the absolute maximum of a group to its scale."""

    GIVEN = 0
    """Scales come from outside."""
    EXACT = 1
    """absmax / largest element, in float32."""
    ROUNDED = 2
    """The same, rounded to nearest on the grid of the scale."""
    FLOOR = 3
    """2^(floor(log2 absmax) - largest exponent)."""
    CEIL = 4
    """2^(ceil(log2 absmax) - largest exponent)."""
    EVEN = 5
    """FLOOR of absmax rounded to the element's mantissa bits, ties away."""
    RCEIL = 6
    """2^ceil(log2(absmax / largest element))."""


class Scaling(NamedTuple):
    """A format's scales as a kernel needs them."""

    rule: np.int64
    group: np.int64
    """Elements that share a scale, along the row."""
    element_max: np.float32
    element_exponent: np.int32
    element_mantissa: np.int32
    minimum: np.float32
    """Smaller scales are raised to it."""
    tensor_scale: np.float32
    """Second level; 1 where there is none."""
    two_level: bool
    """The element is x * ((1 / tensor scale) / scale), as NVFP4 kernels have it, not x / scale."""
    grid: Grid
    """The grid that rule ROUNDED rounds to."""


FLOAT32_MAX = float(np.finfo(np.float32).max)
_RULES = {"floor": Rule.FLOOR, "ceil": Rule.CEIL, "even": Rule.EVEN, "rceil": Rule.RCEIL}


def rule_of(format: Format) -> Rule:
    """The rule of a format's finest scale."""
    scale = format.scale
    if scale is None:
        return Rule.GIVEN
    if scale.rule in _RULES:
        return _RULES[scale.rule]
    return Rule.EXACT if scale.encoding.name == "fp32" else Rule.ROUNDED


def kernels_derive(quantizer: Quantizer) -> bool:
    """Whether compiled kernels derive the scales by themselves, group by group."""
    format, scale = quantizer.format, quantizer.format.scale
    return (
        scale is not None
        and quantizer.statistic == "absmax"
        and format.zero_point is None
        and format.granularity != "block"
        and scale.rule not in ("ratio", "fitted")
        and not (scale.rule in ("nearest", "global_min") and is_tabled(scale.encoding))
    )


@lru_cache(maxsize=512)
def scaling_of(format: Format, *, group: int, tensor_scale: float = 1.0) -> Scaling:
    """The scaling of a format whose rows are cut into groups of `group`."""
    element, scale = format.element, format.scale
    minimum = scale.minimum if scale else 0.0
    target = scale.target if scale else 1.0
    if scale and scale.encoding.kind == "exponent":
        minimum = max(minimum, scale.encoding.min_normal)
    return Scaling(
        rule=np.int64(rule_of(format)),
        group=np.int64(group),
        element_max=np.float32(min(target or max(element.max, -element.min), FLOAT32_MAX)),
        element_exponent=np.int32(element.max_exponent),
        element_mantissa=np.int32(element.mantissa_bits if element.kind == "float" else 0),
        minimum=np.float32(minimum),
        tensor_scale=np.float32(tensor_scale),
        two_level=format.tensor_scale is not None,
        grid=grid_of(scale.encoding if scale else element),
    )
