"""The torch path of `quantize`: any device."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from dse.numerics import eager
from dse.numerics.grids.errors import StateError
from dse.numerics.grids.grid import grid_of, thresholds_of
from dse.numerics.grids.layout import Layout
from dse.numerics.grids.scaling import scaling_of
from dse.numerics.grids.state import QuantizerState
from dse.numerics.scales import (
    GroupScales,
    derived_scales,
    group_length,
    largest_finite,
    tensor_scale_of,
)
from hwmodels.formats.quantizer import Format, Quantizer


def quantize_on_device(
    x: Tensor,
    quantizer: Quantizer,
    layout: Layout,
    state: QuantizerState,
    *,
    out: Tensor | None,
    seed: int,
) -> Tensor:
    """See `dse.numerics.quantize`."""
    result = layout.restored(_quantized(x, quantizer, layout, state, seed))
    return result.to(x.dtype) if out is None else out.copy_(result)


def _quantized(
    x: Tensor, quantizer: Quantizer, layout: Layout, state: QuantizerState, seed: int
) -> Tensor:
    """The quantized values as a float32 vector in the layout's order."""
    format = quantizer.format
    grid = grid_of(format.element, quantizer.rounding, quantizer.random_bits)
    table = thresholds_of(format.element, quantizer.rounding)
    flat = layout.flat(x.to(torch.float32))
    draw = None
    if grid.random_bits or quantizer.rounding == "stochastic":
        draw = eager.random_bits(tuple(flat.shape), seed, device=flat.device)
    if format.scale is None:
        return eager.round_to_grid(flat, grid, table, draw=draw)
    per_tensor = format.granularity == "tensor"
    rows = flat.reshape(1, -1) if per_tensor else layout.row_matrix(flat)
    if draw is not None:
        draw = draw.reshape(1, -1) if per_tensor else layout.row_matrix(draw)
    level = tensor_scale(flat, format, state)
    found = scales_of(rows, quantizer, state, level)
    group = group_length(format, rows.shape[1])
    points = None
    if found.zero_points is not None:
        points = spread(found.zero_points, group, rows.shape[1])
    offsets = None
    if found.offsets is not None:
        offsets = spread(found.offsets, group, rows.shape[1])
    values = eager.apply(
        rows,
        spread(found.scales, group, rows.shape[1]),
        grid,
        table,
        scaling_of(format, group=group, tensor_scale=level),
        draw=draw,
        zero_point=points,
        offset=offsets,
    )
    return values.reshape(-1) if per_tensor else layout.from_rows(values)


def tensor_scale(flat: Tensor, format: Format, state: QuantizerState) -> float:
    """The second-level scale: calibrated, or from the largest finite magnitude, or 1."""
    if format.tensor_scale is None:
        return 1.0
    if state.tensor_scale is not None:
        return state.tensor_scale
    largest = float(largest_magnitude(flat))
    if not math.isfinite(largest):
        largest = float(largest_finite(flat))
    return tensor_scale_of(largest, format)


def largest_magnitude(x: Tensor) -> Tensor:
    """Read once, without a tensor of magnitudes; NaN if there is a NaN."""
    largest: Tensor = torch.linalg.vector_norm(x, ord=torch.inf)
    return largest


def scales_of(
    rows: Tensor, quantizer: Quantizer, state: QuantizerState, level: float
) -> GroupScales:
    """Calibrated scales if the state has some, else those of the rows.

    Raises:
        StateError: The state belongs to another shape.
    """
    if state.scales is None:
        return derived_scales(rows, quantizer, tensor_scale=level)
    group = group_length(quantizer.format, rows.shape[1])
    expected = (rows.shape[0], -(-rows.shape[1] // group))
    got = tuple(state.scales.shape)
    fits = len(got) == 2 and all(g in (1, e) for g, e in zip(got, expected, strict=True))
    if quantizer.format.offset is not None and state.offsets is None:
        raise StateError(f"{quantizer.name}: the state has no offsets; calibrate again")
    if not fits:
        raise StateError(
            f"{quantizer.name}: state has scales {got}, the tensor needs {expected} "
            "(slices, groups); calibrate on this tensor's shape"
        )
    return GroupScales(
        scales=state.scales.float(), zero_points=state.zero_points, offsets=state.offsets
    )


def spread(scales: Tensor, group: int, depth: int) -> Tensor:
    """(rows or 1, groups or 1) as something that broadcasts against (rows, depth)."""
    if scales.shape[1] == 1:
        return scales
    return scales.repeat_interleave(group, dim=1)[:, :depth]
