"""Values on a quantizer's grid."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dse.numerics.errors import QuantizeError, StateError
from dse.numerics.layout import layout_of
from dse.numerics.on_cpu import quantize_on_cpu
from dse.numerics.on_device import quantize_on_device
from dse.numerics.state import QuantizerState
from hwmodels.formats import Quantizer

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def quantize(
    x: Tensor,
    quantizer: Quantizer,
    *,
    axes: Sequence[int],
    state: QuantizerState | None = None,
    out: Tensor | None = None,
    seed: int = 0,
) -> Tensor:
    """The values of `x` on the quantizer's grid, in the shape and dtype of `x`.

    Work is done in float32 and rounded once more to the dtype of `x` if that is narrower.

    * NaN stays NaN, also where the format has none. With dynamic scales a NaN or an Inf makes its
      whole group NaN, since the group has no scale; with static scales an Inf saturates or
      overflows as the element says.
    * A group of zeros stays zeros, with their signs where the format has a negative zero; so does
      a group whose scale underflows to zero.
    * A last group that is short, or a group longer than the axis, is a group of its own.
    * An empty tensor comes back empty.

    Args:
        x: float32, bfloat16 or float16, any shape and strides.
        quantizer: What to apply.
        axes: The operand's contraction axes: scales per channel or token keep the others, groups
            run along these. Empty means the last axis.
        state: Calibrated scales, for quantizers that are not dynamic.
        out: Where to write; may be `x` itself.
        seed: Of stochastic rounding, which depends on it and on each element's index only.

    Raises:
        QuantizeError: A dtype that is not a float of at most 32 bits; `out` does not fit.
        StateError: A static quantizer without state, or with one of another shape.
    """
    _check(x, quantizer, state, out)
    if x.numel() == 0:
        return x.clone() if out is None else out
    stochastic = quantizer.rounding.startswith("stochastic")
    layout = layout_of(x, axes, logical=stochastic)
    state = state or QuantizerState()
    values = x.detach()
    with torch.no_grad():
        if x.device.type == "cpu":
            return quantize_on_cpu(values, quantizer, layout, state, out=out, seed=seed)
        result = layout.restored(quantize_on_device(values, quantizer, layout, state, seed))
        return result.to(x.dtype) if out is None else out.copy_(result)


def _check(
    x: Tensor, quantizer: Quantizer, state: QuantizerState | None, out: Tensor | None
) -> None:
    if x.dtype not in DTYPES:
        raise QuantizeError(
            f"{quantizer.name}: expected float32, bfloat16 or float16, got {x.dtype}"
        )
    if out is not None and (out.shape != x.shape or out.dtype != x.dtype):
        raise QuantizeError(
            f"{quantizer.name}: out must be {tuple(x.shape)} {x.dtype}, "
            f"got {tuple(out.shape)} {out.dtype}"
        )
    if quantizer.timing != "dynamic" and quantizer.format.scale is not None and state is None:
        raise StateError(
            f"{quantizer.name}: {quantizer.timing} scales need a state; "
            "make one with dse.numerics.calibrated_state"
        )
