"""The derivative of an operand's rounding: slopes of single values, and what scales add."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from dse.numerics.gradient import inside
from dse.numerics.grids.layout import Layout, layout_of
from dse.numerics.grids.state import QuantizerState
from dse.numerics.neighbours import neighbours
from dse.numerics.scales import group_length
from dse.training.method import Operand
from dse.training.rounding import quantizer_of
from hwmodels.formats.quantizer import Format

DGE_POWER, DGE_LIMIT = 5.0, 3.0
"""Exponent and largest slope of the differentiable gradient estimator (Wang et al., arXiv
2501.17116, section 3.1)."""
SHARPNESS = 10.0
"""Weights of the smooth maximum are softmax of this times the magnitude over the largest: ours, as
the source names no number."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Derivative:
    """The gradient of what is rounded from that of the result."""

    slope: Tensor | None = None
    """Of single values, shaped as they are; None: 1."""
    scales: ScalePart | None = None

    def __call__(self, gradient: Tensor) -> Tensor:
        """The gradient of the values before rounding; same shape."""
        found = gradient if self.slope is None else gradient * self.slope
        return found if self.scales is None else found + self.scales(gradient)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ScalePart:
    """The path through the scale of each group, (groups, elements of a group) each.

    With f = Q(s x) / s, s = M / Z(x) and Q' = q a value moves by (f - q x) dZ / Z.
    """

    missing: Tensor
    """f - q x."""
    share: Tensor
    """dZ / dx over Z."""
    layout: Layout
    format: Format

    def __call__(self, gradient: Tensor) -> Tensor:
        """The addition to the gradient; same shape."""
        groups = _grouped(gradient, self.layout, self.format)
        moved = self.share * (groups * self.missing).sum(-1, keepdim=True)
        return _ungrouped(moved, self.layout, self.format)


def derivative(
    x: Tensor,
    values: Tensor,
    operand: Operand,
    *,
    axes: Sequence[int],
    state: QuantizerState | None = None,
) -> Derivative | None:
    """The derivative of rounding `x` to `values`; None where the gradient passes unchanged.

    Source of the scales' part: arXiv 2509.17791, proposition 1.
    """
    found = slope(x, operand, axes=axes, state=state)
    if operand.scale_gradient == "none":
        return None if found is None else Derivative(slope=found)
    return Derivative(slope=found, scales=_scale_part(x, values, found, operand, axes))


def _scale_part(
    x: Tensor, values: Tensor, slope: Tensor | None, operand: Operand, axes: Sequence[int]
) -> ScalePart:
    format, layout = quantizer_of(operand).format, layout_of(x, axes, logical=True)
    inner = x if slope is None else slope * x
    groups = _grouped(x, layout, format)
    sizes = groups.abs()
    top = sizes.amax(-1, keepdim=True)
    safe = torch.where(top > 0, top, 1.0)
    if operand.scale_gradient == "absmax":
        first = functional.one_hot(sizes.argmax(-1), groups.shape[-1])
        weights = first.to(x.dtype)
    else:
        weights = torch.softmax(SHARPNESS * sizes / safe, dim=-1)
    share = weights * groups.sign() / safe
    missing = _grouped(values - inner, layout, format)
    return ScalePart(missing=missing, share=share, layout=layout, format=format)


def _grouped(x: Tensor, layout: Layout, format: Format) -> Tensor:
    """Groups that share a scale as rows; a short last one ends in zeros."""
    rows = layout.row_matrix(layout.flat(x))
    if format.granularity == "tensor":
        return rows.reshape(1, -1)
    size = group_length(format, layout.depth)
    return functional.pad(rows, (0, -layout.depth % size)).reshape(-1, size)


def _ungrouped(groups: Tensor, layout: Layout, format: Format) -> Tensor:
    size = layout.depth if format.granularity == "tensor" else group_length(format, layout.depth)
    rows = groups.reshape(layout.rows, -(-layout.depth // size) * size)[:, : layout.depth]
    return layout.restored(layout.from_rows(rows))


def slope(
    x: Tensor, operand: Operand, *, axes: Sequence[int], state: QuantizerState | None = None
) -> Tensor | None:
    """Derivative of the operand's rounding at `x`, shaped as `x`; None where it is 1.

    `dge` and `spline` relax the step between the two neighbours of a value, t of the way up:
    |2t - 1|^(1/5 - 1) / 5, cut at 3, and 6t(1 - t). Over a step both have mean 1, before the cut.

    Source: DGE: Wang et al., arXiv 2501.17116, equation 8. Spline: the smallest polynomial whose
    derivative is continuous at the grid, of the class that arXiv 2509.17791 compares.
    """
    if operand.gradient == "ste":
        return None
    quantizer = quantizer_of(operand)
    if operand.gradient == "clipped_ste":
        return inside(x, quantizer, axes=axes, state=state)
    near = neighbours(x, quantizer, axes=axes, state=state)
    step = near.up - near.down
    t = torch.where(step > 0, (x - near.down) / step, 0.0)
    if operand.gradient == "spline":
        return 6 * t * (1 - t)
    power = 1 / DGE_POWER
    return (power * (2 * t - 1).abs() ** (power - 1)).clamp(max=DGE_LIMIT)
