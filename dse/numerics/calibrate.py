"""Static scales from calibration data."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from dse.numerics.grids.defaults import kernel_quantizer
from dse.numerics.grids.errors import StateError
from dse.numerics.grids.layout import layout_of
from dse.numerics.grids.state import QuantizerState
from dse.numerics.scales import derived_scales, tensor_scale_of
from dse.numerics.transforms import within
from hwmodels.formats.quantizer import Quantizer

SAMPLE = 1 << 20
"""Values of all batches together that statistics other than extrema look at."""


def calibrated_state(
    values: Tensor | Iterable[Tensor],
    quantizer: Quantizer,
    *,
    axes: Sequence[int],
    state: QuantizerState | None = None,
    counts: Tensor | None = None,
) -> QuantizerState:
    """The state under which `quantizer` is static over what `values` show.

    One scale a tensor is derived over all of them: exactly for absmax, minmax and percentiles, on
    an evenly spaced sample of at most `SAMPLE` values otherwise. Two-level formats keep their
    block scales dynamic. Finer granularities have one scale a slice or group of their only tensor.

    `state` brings what transforms need (`channel_factors`). The copies of a tensor on several
    workers, given together, get the one scale of rule `global_min`.

    Values of one tensor may stand for more than themselves, `counts` says for how many each, (n,)
    float64 on the host: of one scale a tensor, without transforms.

    Raises:
        StateError: No values, several tensors where scales belong to the places of one, or a
            percentile that is finer than what values with `counts` tell.
    """
    quantizer = kernel_quantizer(quantizer)
    tensors = [values] if isinstance(values, Tensor) else list(values)
    tensors = [tensor.detach() for tensor in tensors if tensor.numel()]
    if not tensors:
        raise StateError(f"{quantizer.name}: no values to calibrate on")
    if quantizer.transforms:
        tensors = [_as_seen(tensor, quantizer, axes, state) for tensor in tensors]
        axes = (1,)
    found = _derived(tensors, quantizer, axes, counts)
    return found if state is None else replace(found, channel_factors=state.channel_factors)


def complete_state(
    rows: Tensor, quantizer: Quantizer, *, tensor_scale: float | None = None
) -> QuantizerState:
    """Every scale of the rows of a weight, the block scales of two-level formats included.

    Args:
        rows: (slices, depth).
        quantizer: along the rows, without transforms.
        tensor_scale: the second level, in place of the weight's own.
    """
    quantizer = kernel_quantizer(quantizer)
    state = calibrated_state(rows, quantizer, axes=(1,))
    if state.tensor_scale is None:
        return state
    level = state.tensor_scale if tensor_scale is None else tensor_scale
    found = derived_scales(rows.float(), quantizer, tensor_scale=level)
    return replace(state, scales=found.scales, tensor_scale=level)


def _as_seen(
    tensor: Tensor, quantizer: Quantizer, axes: Sequence[int], state: QuantizerState | None
) -> Tensor:
    """The rows that the quantizer sees inside its transforms."""
    seen = []

    def capture(rows: Tensor) -> Tensor:
        seen.append(rows)
        return rows

    layout = layout_of(tensor, axes)
    rows = layout.row_matrix(layout.flat(tensor.to(torch.float32)))
    within(quantizer, (state or QuantizerState()).on(rows.device), capture)(rows)
    return seen[0]


def _derived(
    tensors: Sequence[Tensor], quantizer: Quantizer, axes: Sequence[int], counts: Tensor | None
) -> QuantizerState:
    format, weights = quantizer.format, None
    if format.scale is None:
        return QuantizerState()
    if format.tensor_scale is not None:
        largest = max(float(tensor.abs().amax()) for tensor in tensors)
        return QuantizerState(tensor_scale=tensor_scale_of(largest, format))
    if format.granularity == "tensor" and quantizer.statistic == "mean_channel_range":
        rows = _mean_range(tensors, axes)
    elif format.granularity == "tensor":
        extrema = quantizer.statistic in ("absmax", "minmax")
        everything = counts is not None or quantizer.statistic == "percentile"
        rows = _observed(tensors, extrema=extrema, everything=everything)
        weights = None if extrema else counts
    elif len(tensors) == 1:
        layout = layout_of(tensors[0], axes)
        rows = layout.row_matrix(layout.flat(tensors[0].to(torch.float32)))
    else:
        raise StateError(
            f"{quantizer.name}: scales per {format.granularity} are static for one tensor only, "
            f"got {len(tensors)}; use a scale per tensor or dynamic timing"
        )
    found = derived_scales(rows, quantizer, counts=weights)
    return QuantizerState(
        scales=found.scales, zero_points=found.zero_points, offsets=found.offsets
    )


def _mean_range(tensors: Sequence[Tensor], axes: Sequence[int]) -> Tensor:
    """(1, 2) float32: the mean of the slices' lowest and of their highest values."""
    layouts = [(tensor, layout_of(tensor, axes)) for tensor in tensors]
    rows = [layout.row_matrix(layout.flat(tensor.float())) for tensor, layout in layouts]
    lowest, highest = (
        torch.cat([getattr(part, end)(1) for part in rows]) for end in ("amin", "amax")
    )
    return torch.stack([lowest.mean(), highest.mean()]).reshape(1, 2)


def _observed(tensors: Sequence[Tensor], *, extrema: bool, everything: bool) -> Tensor:
    """(1, n) float32 values that have the statistic of all: extrema, all, or an even sample."""
    if extrema:
        ends = [torch.stack([tensor.amin(), tensor.amax()]) for tensor in tensors]
        return torch.cat(ends).to(torch.float32).reshape(1, -1)
    stride = -(-sum(tensor.numel() for tensor in tensors) // SAMPLE)
    stride = 1 if everything else stride
    return torch.cat([tensor.reshape(-1)[::stride] for tensor in tensors]).float().reshape(1, -1)
