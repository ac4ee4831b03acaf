"""An operand of a method applied to values: rotation, scales, rounding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor

from dse.numerics.eden import eden
from dse.numerics.four_over_six import four_over_six
from dse.numerics.grids.layout import layout_of
from dse.numerics.grids.state import QuantizerState
from dse.numerics.quantize import quantize
from dse.numerics.transforms import OnRows, within
from dse.training.method import Operand
from hwmodels.formats.quantizer import Quantizer

FIXED_SIGNS = 28389
"""Seed of the signs of rotations that are the same at every step: the least whose sixteen are
those that Transformer Engine has in its source (2.20.2, `custom_recipes/reference_nvfp4.py`)."""
CASTS = {
    Operand(format="bf16"): torch.bfloat16,
    Operand(format="fp16"): torch.float16,
}
"""Formats that torch itself rounds to, with the bits of `quantize`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """Seeds of one rounding."""

    rounding: int = 0
    """Of stochastic rounding."""
    signs: int = 0
    """Of rotations with fresh signs: the same for both factors of a product."""


@lru_cache(maxsize=1024)
def quantizer_of(operand: Operand) -> Quantizer:
    """The operand's quantizer with its headroom."""
    quantizer = operand.quantizer
    format, scale = quantizer.format, quantizer.format.scale
    if operand.headroom == 1 or scale is None:
        return quantizer
    target = (scale.target or format.element.max) / operand.headroom
    return quantizer.replaced(format=replace(format, scale=replace(scale, target=target)))


def rounded(
    x: Tensor,
    operand: Operand,
    *,
    axes: Sequence[int],
    draw: Draw,
    state: QuantizerState | None = None,
) -> Tensor:
    """Values of `x` as a product gets them, in the shape and dtype of `x`.

    A rotation is undone right after rounding. The product of two factors that are rotated alike is
    the same as that of the rotated ones, which is what hardware multiplies.

    Args:
        x: float32, any shape.
        operand: What to apply.
        axes: Contraction axes of the product.
        draw: Seeds.
        state: Scales that come from earlier steps.
    """
    if operand.is_wide:
        return x
    if operand in CASTS:
        return x.to(CASTS[operand]).to(x.dtype)
    quantizer = quantizer_of(operand)
    if operand.scales == "plain" and not operand.hadamard:
        return quantize(x, quantizer, axes=axes, state=state, seed=draw.rounding)
    layout = layout_of(x, axes, logical=True)
    rows = layout.row_matrix(layout.flat(x.detach().to(torch.float32)))
    around = quantizer.replaced(transforms=(*_rotation(operand, draw), *quantizer.transforms))
    on_rows = _on_rows(operand, quantizer.replaced(transforms=()), draw, state)
    values = within(around, state or QuantizerState(), on_rows)(rows)
    return layout.restored(layout.from_rows(values)).to(x.dtype)


def channel_sizes(x: Tensor) -> Tensor:
    """The largest magnitude of each channel of an input, (1, channels, 1, ...); 1 where all are 0.

    Source: Smooth-SwiGLU, arXiv 2409.12517, section 4.3, whose factors these are.

    Args:
        x: (tokens, channels) of a linear layer, (batch, channels, ...) of a convolution.
    """
    sizes = x.abs().amax([axis for axis in range(x.dim()) if axis != 1], keepdim=True)
    return torch.where(sizes > 0, sizes, 1.0)


def _rotation(operand: Operand, draw: Draw) -> tuple[str, ...]:
    if not operand.hadamard:
        return ()
    if operand.signs == "none":
        return (f"hadamard({operand.hadamard})",)
    seed = draw.signs if operand.signs == "fresh" else FIXED_SIGNS
    return (f"random_hadamard({operand.hadamard}, {seed})",)


def _on_rows(
    operand: Operand, quantizer: Quantizer, draw: Draw, state: QuantizerState | None
) -> OnRows:
    match operand.scales:
        case "four_over_six":
            return lambda rows: four_over_six(rows, quantizer, seed=draw.rounding)
        case "eden":
            size = operand.hadamard
            return lambda rows: eden(rows, quantizer, group=size, seed=draw.rounding)
        case "plain":
            return lambda rows: quantize(
                rows, quantizer, axes=(1,), state=state, seed=draw.rounding
            )
