"""Quantization that is differentiable in its scales, too."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from dse.numerics.eager import round_to_grid
from dse.numerics.gradient import inside
from dse.numerics.grids.grid import grid_of, thresholds_of
from dse.numerics.grids.layout import Layout, layout_of
from dse.numerics.grids.state import QuantizerState
from dse.numerics.quantize import quantize
from dse.numerics.scales import group_length
from hwmodels.formats.quantizer import Quantizer

FINE_BITS = 16
"""Scales of fewer bits are powers of two or have few values: a small step leads nowhere."""
MOST_GAIN = 2.0
"""Rows that lose or gain more are left: little of them is left that a factor could restore."""


def has_learnable_scales(quantizer: Quantizer) -> bool:
    """Whether the scales of a format are floats that can move by little, one by one."""
    format = quantizer.format
    if format.scale is None or format.tensor_scale is not None or quantizer.is_fitted:
        return False
    alone = format.granularity in ("tensor", "channel", "group")
    fine = format.scale.encoding.kind == "float" and format.scale.encoding.bits >= FINE_BITS
    return alone and fine and format.scale.rule == "nearest" and not quantizer.transforms


def moved_scales(state: QuantizerState, growth: Tensor, quantizer: Quantizer) -> QuantizerState:
    """The state with scales times e to the power of `growth`, on the grid of their encoding.

    Args:
        state: with scales, (slices or 1, groups or 1).
        growth: of the shape of the scales.
        quantizer: whose scales they are; `has_learnable_scales`.
    """
    assert state.scales is not None, "what has learnable scales has scales"
    assert quantizer.format.scale is not None, "likewise"
    encoding = quantizer.format.scale.encoding
    scales = state.scales * growth.detach().exp()
    return replace(state, scales=round_to_grid(scales, grid_of(encoding), thresholds_of(encoding)))


def with_gains(
    state: QuantizerState, weight: Tensor, image: Tensor, quantizer: Quantizer
) -> QuantizerState:
    """The state with scales under which every output is as strong as that of the weight.

    Rounding of least error shrinks: its errors point against the weight, so that an output is on
    average a share of the wanted one, in every layer. Codes stay; scales are divided by the share,
    which is found by regressing the output on the wanted one.

    Args:
        state: with values shaped as the weight, and scales of its rows.
        weight: (outputs, depth), or (groups, outputs, depth).
        image: of that shape, the weight times the second moments of its inputs.
        quantizer: along the last axis; without learnable scales the state comes back as it is.

    Source: Banner et al., Post training 4-bit quantization, arXiv 1810.05723, section 2.3
    (means and norms of a channel's weights put back), with outputs in place of weights.
    """
    if state.values is None or state.scales is None or not has_learnable_scales(quantizer):
        return state
    given, wanted = image.double(), weight.double()
    strength = (given * wanted).sum(-1).reshape(-1, 1)
    left = (given * state.values).sum(-1).reshape(-1, 1)
    if len(state.scales) == 1:
        strength, left = strength.sum(0, keepdim=True), left.sum(0, keepdim=True)
    gains = strength / left
    usable = (gains > 1 / MOST_GAIN) & (gains < MOST_GAIN) & (strength > 0)
    growth = torch.where(usable, gains, 1.0).log().to(state.scales.dtype)
    moved = moved_scales(state, growth.expand_as(state.scales), quantizer)
    rows = state.values.reshape(-1, weight.shape[-1])
    before, after = (_spread(one.scales, rows, quantizer) for one in (state, moved))
    units = torch.where(before != 0, rows / before, 0.0)
    if quantizer.format.element.kind == "int":
        units = units.round()
    return replace(moved, values=(units * after).reshape(weight.shape))


def _spread(scales: Tensor | None, rows: Tensor, quantizer: Quantizer) -> Tensor:
    """The scale of every element of the rows."""
    assert scales is not None, "what has gains has scales"
    depth = rows.shape[-1]
    wide = scales.repeat_interleave(group_length(quantizer.format, depth), dim=1)[:, :depth]
    return wide.expand_as(rows)


def quantize_with_scale_gradient(
    x: Tensor,
    growth: Tensor,
    quantizer: Quantizer,
    *,
    axes: Sequence[int],
    state: QuantizerState,
) -> Tensor:
    """`quantize` under `moved_scales`, differentiable in `x` and in the logarithm of scales.

    With x = s u and its value s q(u), the gradient of `x` is passed where it is inside of the
    range and stopped where it was clipped; that of log s is the value less `x` inside, and the
    value alone outside, summed over what shares the scale. Rounding of the scale itself is passed
    through.

    Args:
        x: float32, any shape.
        growth: (slices or 1, groups or 1), the logarithm of scales over those of the state.
        quantizer: rounds to nearest; `has_learnable_scales`.
        axes: the contraction axes, as of `quantize`.
        state: scales, and zero points where the format has some.

    Source: Esser et al., Learned Step Size Quantization, arXiv 1902.08153, equations 3 and 5, for
    any grid, and for log s in place of s.
    """
    moved = moved_scales(state, growth, quantizer)
    values = quantize(x.detach(), quantizer, axes=axes, state=moved)
    within = inside(x.detach(), quantizer, axes=axes, state=moved)
    layout = layout_of(x, axes)
    length = group_length(quantizer.format, layout.depth)

    def summed(slope: Tensor) -> Tensor:
        return _summed(slope, growth.shape, layout, length)

    found: Tensor = _Scaled.apply(x, growth, values, within, summed)  # type: ignore[no-untyped-call]
    return found


class _Scaled(torch.autograd.Function):
    """Values forward; backward the straight-through gradient, and that of log scales."""

    @staticmethod
    def forward(  # noqa: PLR0917 (torch passes them in order)
        ctx: Any,
        x: Tensor,
        growth: Tensor,
        values: Tensor,
        within: Tensor,
        summed: Callable[[Tensor], Tensor],
    ) -> Tensor:
        """`values`, as a function of `x` and `growth`."""
        ctx.save_for_backward(within, values - x * within)
        ctx.summed = summed
        return values

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        """Gradients with respect to `x` and `growth`."""
        (gradient,) = gradients
        within, slope = ctx.saved_tensors
        return gradient * within, ctx.summed(gradient * slope), None, None, None


def _summed(x: Tensor, shape: torch.Size, layout: Layout, group: int) -> Tensor:
    """Sums over what shares a scale, in the shape of the scales."""
    rows = layout.row_matrix(layout.flat(x))
    if shape[1] > 1:
        padded = functional.pad(rows, (0, -rows.shape[1] % group))
        sums = padded.reshape(len(rows), -1, group).sum(dim=2)
    else:
        sums = rows.sum(dim=1, keepdim=True)
    return sums if shape[0] > 1 else sums.sum(dim=0, keepdim=True)
