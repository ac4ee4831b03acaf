"""Formats of the catalogue as multiply-accumulate circuits."""

from __future__ import annotations

from hwmodels.circuits.mac import LANES, BlockScale, MacDesign
from hwmodels.errors import CircuitError
from hwmodels.formats.accumulator import Accumulator, accumulator
from hwmodels.formats.encoding import Encoding
from hwmodels.formats.quantizer import Format


def mac_design(
    weight: Format,
    other: Format | None = None,
    *,
    accumulated: Accumulator | None = None,
    lanes: int = LANES,
) -> MacDesign:
    """The circuit that multiplies two formats.

    Args:
        weight: Of the weight.
        other: Of the input; the weight's unless given.
        accumulated: Int32 for integers without block scales, or with integers for them, unless
            given, else float32.
        lanes: Multipliers whose products are added before they are accumulated; at most a
            block of them.

    Raises:
        CircuitError: A format with offsets or scales of scales, an accumulator that cannot hold
            the sum (integers under block scales).
    """
    other = weight if other is None else other
    for one in (weight, other):
        if one.offset is not None or one.super_scale is not None:
            raise CircuitError(
                f"format {one.name!r}: there is no circuit model of offsets and scales of scales"
            )
    scale = _scale(weight, other)
    if accumulated is None:
        grids = (weight.element, other.element, *(scale.encodings if scale else ()))
        whole = all(map(_is_integer, grids))
        accumulated = accumulator("int32" if whole else "fp32")
    return MacDesign(
        weight=weight.element,
        input=other.element,
        accumulator=accumulated,
        scale=scale,
        zero_points=sum(one.zero_point is not None for one in (weight, other)),
        lanes=lanes if scale is None else min(lanes, scale.group),
    )


def _is_integer(element: Encoding) -> bool:
    return element.kind in ("int", "fixed")


def _scale(*formats: Format) -> BlockScale | None:
    """Scales along the contraction: those of tensors, channels and tokens meet results."""
    blocked = [one for one in formats if one.granularity in ("group", "block") and one.scale]
    if not blocked:
        return None
    return BlockScale(
        group=min(one.group for one in blocked),
        encodings=tuple(one.scale.encoding for one in blocked if one.scale),
    )
