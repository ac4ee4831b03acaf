"""Integer codes of one width as codes of a narrower one (Double Rounding)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from dse.numerics.calibrate import calibrated_state
from dse.numerics.grids.errors import QuantizeError
from dse.numerics.grids.layout import layout_of
from dse.numerics.grids.state import QuantizerState
from hwmodels.formats.encodings import integer_encoding
from hwmodels.formats.quantizer import Quantizer


def requantized(
    codes: Tensor, *, high_bits: int, low_bits: int, down: bool = False, symmetric: bool = False
) -> Tensor:
    """Integer codes of `high_bits` as codes of `low_bits`, nearest even: Double Rounding.

    The scale grows by 2^(high_bits - low_bits). Every code of the narrow range is used, unless it
    is `symmetric`. With `down` the low bits are dropped instead (Bit-Mixer, arXiv 2103.17267).

    Source: Nearly Lossless Adaptive Bit Switching, arXiv 2502.01199, equation 4.
    """
    limit = 1 << (low_bits - 1)
    divided = codes.to(torch.float64) / (1 << (high_bits - low_bits))
    rounded = torch.floor(divided) if down else torch.round(divided)
    return torch.clamp(rounded, symmetric - limit, limit - 1).to(codes.dtype)


def requantized_values(
    x: Tensor, quantizer: Quantizer, *, axes: Sequence[int], state: QuantizerState | None = None
) -> Tensor:
    """Values of `x` under rounding `requant` or `requant_floor`, as float32.

    `x` is quantized to `high_bits` first; a state has the scales of that step.

    Raises:
        QuantizeError: the format is no signed integer with a scale and without a zero point, or
            `high_bits` is not wider than it.
    """
    if problem := quantizer.narrowing_problem:
        raise QuantizeError(problem)
    format, element = quantizer.format, quantizer.format.element
    low, high = element.bits, quantizer.high_bits
    wide = quantizer.replaced(
        format=replace(format, element=integer_encoding(high, symmetric=element.symmetric)),
        rounding="nearest_even",
    )
    found = state or calibrated_state(x, wide, axes=axes)
    steps = _step_of_each(x, wide, axes, found)
    largest, smallest = wide.format.element.max, wide.format.element.min
    codes = torch.clamp(torch.round(x.float() / steps), smallest, largest)
    narrow = requantized(
        codes,
        high_bits=high,
        low_bits=low,
        down=quantizer.rounding == "requant_floor",
        symmetric=element.symmetric,
    )
    return narrow * (steps * (1 << (high - low)))


def _step_of_each(
    x: Tensor, quantizer: Quantizer, axes: Sequence[int], state: QuantizerState
) -> Tensor:
    """The scale of every element, shaped as `x`; 1 where a group of zeros has none."""
    assert state.scales is not None
    layout = layout_of(x, axes)
    depth, format = layout.depth, quantizer.format
    if format.granularity == "tensor":
        steps = state.scales.expand(layout.rows, depth)
    else:
        group = min(format.group or depth, depth)
        steps = state.scales.repeat_interleave(group, dim=1)[:, :depth].expand(layout.rows, depth)
    steps = torch.where(steps == 0, 1.0, steps)
    return layout.restored(layout.from_rows(steps.contiguous()))
