"""Gradients through a quantizer: straight-through estimators and relaxations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from dse.numerics.calibrate import calibrated_state
from dse.numerics.grids.state import QuantizerState
from dse.numerics.quantize import quantize
from hwmodels.formats.quantizer import Quantizer

Slope = Callable[[Tensor, Tensor], Tensor]
"""Derivative of a relaxed quantizer at x, given x and its quantized values; both shaped as x."""
Gradient = Literal["ste", "clipped_ste"] | Slope
_BEYOND = 3e38
"""Further than any saturating format under any sensible scale."""


def quantize_with_gradient(
    x: Tensor,
    quantizer: Quantizer,
    *,
    axes: Sequence[int],
    state: QuantizerState | None = None,
    gradient: Gradient = "ste",
    seed: int = 0,
) -> Tensor:
    """`quantize`, differentiable in `x`; the forward values are the same bits.

    `ste` passes the gradient unchanged (Bengio et al., arXiv 1308.3432). `clipped_ste` passes it
    where `x` lies within the range of its scale and stops it where the value was clipped (PACT,
    arXiv 1805.06085). A function gives the slope of a relaxation, which multiplies the gradient.
    """
    values = quantize(x.detach(), quantizer, axes=axes, state=state, seed=seed)
    if gradient == "ste":
        slope = None
    elif gradient == "clipped_ste":
        slope = inside(x.detach(), quantizer, axes=axes, state=state)
    else:
        slope = gradient(x.detach(), values)
    replaced: Tensor = _Replaced.apply(x, values, slope)  # type: ignore[no-untyped-call]
    return replaced


class _Replaced(torch.autograd.Function):
    """Values forward; the gradient times a slope backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, values: Tensor, slope: Tensor | None) -> Tensor:
        """`values`, as a function of `x`."""
        ctx.slope = slope
        return values.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        """The gradient with respect to `x`."""
        (gradient,) = gradients
        return (gradient if ctx.slope is None else gradient * ctx.slope), None, None


def inside(
    x: Tensor, quantizer: Quantizer, *, axes: Sequence[int], state: QuantizerState | None = None
) -> Tensor:
    """1 where `x` is within the range that its scale spans, 0 where it is clipped."""
    if state is None:
        state = calibrated_state(x, quantizer, axes=axes)
    top, bottom = (
        quantize(torch.full_like(x, end), quantizer, axes=axes, state=state)
        for end in (_BEYOND, -_BEYOND)
    )
    return ((x <= top) & (x >= bottom)).to(x.dtype)
