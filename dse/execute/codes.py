"""Operands as codes and the scales of whole slices: products of codes are scaled afterwards."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dse.execute.emulate import Emulator
from dse.execute.operators.step import Quantize
from dse.graph.ir.graph import Node
from dse.numerics import calibrated_state
from dse.numerics.grids.layout import layout_of
from hwmodels.formats.quantizer import Encoding

DIGITS = 16
"""More than any element of 16 bits has, and few enough that a rounding of float32 is lost."""
_SLICES = ("tensor", "channel", "token", "head")


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceScales:
    """The scales that an emulator gives the slices of its operand."""

    emulator: Emulator

    def __call__(self, x: Tensor) -> Tensor:
        """The scales of x, in its shape with one element along the contraction, or one for all."""
        emulator = self.emulator
        state = emulator.state_of(x)
        if state is None or state.scales is None:
            static = emulator.quantizer.replaced(timing="static")
            state = calibrated_state(x, static, axes=emulator.axes, state=state)
        assert state.scales is not None
        if state.scales.numel() == 1:
            return state.scales.to(x.device).reshape((1,) * x.dim())
        layout = layout_of(x, emulator.axes)
        axes = {axis % x.dim() for axis in emulator.axes}
        shape = [1 if axis in axes else size for axis, size in enumerate(x.shape)]
        rows = state.scales.to(x.device).expand(layout.rows, 1)
        kept = rows.reshape(layout.outer, 1, layout.inner)
        order = layout.order
        inverse = sorted(range(len(order)), key=order.__getitem__)
        return kept.reshape([shape[axis] for axis in order]).permute(inverse)


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceCodes:
    """The codes that an emulator makes of its operand."""

    of: SliceScales

    def __call__(self, x: Tensor) -> Tensor:
        """The codes of x, float32."""
        quantized = self.of.emulator(x).float()
        return codes_of(quantized, self.of(x), self.of.emulator)


def codes_of(x: Tensor, scale: Tensor, emulator: Emulator) -> Tensor:
    """The codes of quantized values: integers, or numbers of the element's own grid.

    A quotient is off by a rounding of float32 from the code that the value was made of. Codes of
    at most 16 bits have fewer digits than half a float32 more: the nearest number of `DIGITS` is
    the code (Veltkamp's split: Dekker, Numer. Math. 18, 1971). Of codebooks the quotient stays.
    """
    element = emulator.quantizer.format.element
    divided = torch.where(scale == 0, 0.0, x / scale)
    if is_integer(element):
        step = 2.0**-element.mantissa_bits
        return (divided / step).round() * step
    if element.kind == "codebook" or element.bits > 16:
        return divided
    wide = divided * (2.0 ** (24 - DIGITS) + 1)
    return wide - (wide - divided)


def slices_of(node: Node, place: int, one: Quantize | None) -> SliceScales | None:
    """The scales of an operand that are constant along the contraction; None: it has no such."""
    if not isinstance(one, Emulator) or one.quantizer.format.scale is None:
        return None
    quantizer = one.quantizer
    whole = quantizer.format.granularity in _SLICES and quantizer.format.tensor_scale is None
    if node.op_type == "Conv" and place == 0:
        whole = quantizer.format.granularity == "tensor"
    factors = None if one.state is None else one.state.channel_factors
    plain = not quantizer.transforms and factors is None and not quantizer.is_fitted
    return SliceScales(emulator=one) if whole and plain else None


def is_integer(element: Encoding) -> bool:
    """Whether codes of an element are whole numbers of steps."""
    return element.kind in ("int", "fixed")
