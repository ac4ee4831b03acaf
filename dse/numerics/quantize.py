"""Values on a quantizer's grid."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dse.numerics.calibrate import calibrated_state
from dse.numerics.grids.defaults import kernel_quantizer
from dse.numerics.grids.errors import QuantizeError, StateError
from dse.numerics.grids.layout import Layout, layout_of
from dse.numerics.grids.state import QuantizerState
from dse.numerics.on_cpu import compiles, quantize_on_cpu
from dse.numerics.on_cuda import fuses, quantize_on_cuda
from dse.numerics.on_device import quantize_on_device
from dse.numerics.requantize import requantized_values
from dse.numerics.transforms import within
from hwmodels.formats.quantizer import Quantizer

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
COMPILED_FROM = 4096
"""Elements from which on the CPU runs compiled kernels. They give torch's bits, but the first use
of each takes seconds of compiling, once an installation: no small network is worth that."""


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
    * A state with learned values returns them; statistic `auto` is `absmax` here, where nobody
      knows whether this is a weight (`Quantizer.settled`).

    The result carries no gradient; see `dse.numerics.quantize_with_gradient`.

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
        StateError: A static quantizer without state, or with one of another shape; a learned
            rounding without its values.
    """
    _check(x, quantizer, state, out)
    quantizer = kernel_quantizer(quantizer)
    if x.numel() == 0:
        return x.clone() if out is None else out
    state = (state or QuantizerState()).on(x.device)
    with torch.no_grad():
        if state.values is not None:
            return _learned(x, quantizer, state.values, out)
        special = _special(x, quantizer, axes, state, seed)
        if special is not None:
            return special.to(x.dtype) if out is None else out.copy_(special)
        layout = _layout(x, quantizer, axes)
        if x.device.type == "cpu":
            is_compiled = x.numel() >= COMPILED_FROM and compiles(quantizer)
            run = quantize_on_cpu if is_compiled else quantize_on_device
        elif quantizer.is_fitted:
            run = quantize_on_device
        else:
            run = quantize_on_cuda if fuses(x, quantizer, layout, state) else quantize_on_device
        return run(x.detach(), quantizer, layout, state, out=out, seed=seed)


def _special(
    x: Tensor, quantizer: Quantizer, axes: Sequence[int], state: QuantizerState, seed: int
) -> Tensor | None:
    """Values of quantizers that are made of simpler ones; None for the others."""
    if quantizer.transforms:
        return _transformed(x, quantizer, axes, state, seed)
    if quantizer.statistic == "mean_channel_range":
        plain = quantizer.replaced(statistic="absmax")
        if state.scales is None:
            state = calibrated_state(x, quantizer, axes=axes)
        return quantize(x, plain, axes=axes, state=state, seed=seed)
    if quantizer.narrows_codes:
        given = state if state.scales is not None else None
        return requantized_values(x, quantizer, axes=axes, state=given)
    return None


def _layout(x: Tensor, quantizer: Quantizer, axes: Sequence[int]) -> Layout:
    """Random draws are numbered in the order of the axes, whatever the memory's."""
    return layout_of(x, axes, logical=quantizer.is_random)


def _transformed(
    x: Tensor, quantizer: Quantizer, axes: Sequence[int], state: QuantizerState, seed: int
) -> Tensor:
    """Quantization inside the quantizer's transforms, as float32."""
    layout = _layout(x, quantizer, axes)
    plain = quantizer.replaced(transforms=())

    def on_rows(rows: Tensor) -> Tensor:
        return quantize(rows, plain, axes=(1,), state=state, seed=seed)

    rows = layout.row_matrix(layout.flat(x.detach().to(torch.float32)))
    return layout.restored(layout.from_rows(within(quantizer, state, on_rows)(rows)))


def _learned(x: Tensor, quantizer: Quantizer, values: Tensor, out: Tensor | None) -> Tensor:
    if values.shape != x.shape:
        raise StateError(
            f"{quantizer.name}: learned values have shape {tuple(values.shape)}, "
            f"the tensor {tuple(x.shape)}"
        )
    found = values.to(x.dtype)
    return found if out is None else out.copy_(found)


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
    if quantizer.is_learned and (state is None or state.values is None):
        raise StateError(
            f"{quantizer.name}: the rounding is learned, and needs a state with its values; make "
            "one with dse.numerics.learned_state"
        )
    if not quantizer.is_dynamic and quantizer.format.scale is not None and state is None:
        raise StateError(
            f"{quantizer.name}: {quantizer.timing} scales need a state; "
            "make one with dse.numerics.calibrated_state"
        )
