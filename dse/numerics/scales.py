"""Scales from values: statistic, scale rule and zero point, in torch operations.

Kernels derive absmax scales by themselves; everything else comes from here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dse.numerics.eager import apply, round_to_grid, scale_of
from dse.numerics.fitted import fitted_scales
from dse.numerics.grids.errors import StateError
from dse.numerics.grids.grid import grid_of, is_tabled, thresholds_of
from dse.numerics.grids.scaling import Scaling, kernels_derive, scaling_of
from dse.numerics.numba import factors as compiled
from dse.numerics.numba.clipping import least_error
from dse.numerics.percentile import largest, lower_rank, upper_rank
from hwmodels.formats.quantizer import Encoding, Format, Quantizer

CLIP_SHARES = np.linspace(1.0, 0.22, 40).astype(np.float32)
"""Shares of the range that statistic `mse` tries: 1.00, 0.98, ..., 0.22; see `range_shares`."""
E2M1_TARGETS = (6.0, 4.0)
"""Two values that Four Over Six maps the largest of an E2M1 group to: between them is nothing, so
that under 6 whatever is near 5 errs most (Cook et al., arXiv 2512.02010)."""

RMS_TARGET = 0.5
"""The element that statistic `rms` maps the root mean square to. Tapered formats are most precise
around 1, and large values count more than the many small ones: of 1/4, 1/2, 1, 2 and 4 it loses
least for most posits on byte-gpt and on fashion-resnet (decision 161)."""

SMALLEST_TENSOR_SCALE = 2.0**-112
SCALES_COMPILED_FROM = 64
"""Groups from which on the CPU's scales are compiled, with torch's bits: those of as many elements
as `quantize` compiles for, in groups of 64."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GroupScales:
    """Scales of a matrix of rows; every tensor: (rows or 1, groups or 1), float32."""

    scales: Tensor
    zero_points: Tensor | None = None
    offsets: Tensor | None = None

    @property
    def points(self) -> Tensor:
        """Zero points; zeros where the format has none."""
        return torch.zeros(1, 1) if self.zero_points is None else self.zero_points


def group_length(format: Format, depth: int) -> int:
    """Elements along a row that share a scale; a group longer than the row is the row."""
    if format.granularity in ("group", "block"):
        return max(min(format.group, depth), 1)
    return max(depth, 1)


def tensor_scale_of(largest: Tensor | float, format: Format) -> float:
    """Second-level scale of a tensor whose largest magnitude is `largest`, in float32.

    It maps the largest wanted block scale to the largest code of the block scale's encoding, and
    is at least `SMALLEST_TENSOR_SCALE`: its reciprocal over a block scale must be finite.
    """
    if format.scale is None:
        return 1.0
    top = np.float32((format.scale.target or format.element.max) * format.scale.encoding.max)
    wanted = np.float32(float(largest)) / top
    return float(np.maximum(wanted, np.float32(SMALLEST_TENSOR_SCALE)))


def range_shares(format: Format, *, step: int = 1) -> np.ndarray:
    """Shares of a group's range that a search tries, each `step`-th; among equals the first wins.

    E2M1 has one more, under which the largest value becomes 4 instead of 6: Four Over Six. An
    integer that uses every code has one code more below zero than above, and its lowest one stands
    for the largest magnitude: the first shares are wider, so that the upper end is not cut either.
    """
    shares = CLIP_SHARES[::step]
    if format.element.name == "e2m1":
        six, four = E2M1_TARGETS
        return np.append(shares, np.float32(six / four))
    beyond = shares * np.float32(_reach_beyond(format))
    return np.append(beyond[beyond > 1], shares)


def _reach_beyond(format: Format) -> float:
    """The share of a range that reaches the upper end, too; 1 where the whole range does."""
    element, scale = format.element, format.scale
    other = scale is None or scale.rule == "fitted" or scale.target or format.zero_point
    if element.kind != "int" or not element.signed or other:
        return 1.0
    return max(-element.min / element.max, 1.0)


def largest_finite(x: Tensor) -> Tensor:
    """The largest magnitude of the values that are numbers; 0 where none is.

    Scales of whole tensors are taken from it: padding that is NaN costs itself, not the rest.
    """
    return torch.where(x.isfinite(), x.abs(), 0.0).amax() if x.numel() else x.new_zeros(())


def derived_scales(
    rows: Tensor,
    quantizer: Quantizer,
    *,
    tensor_scale: float = 1.0,
    importance: Tensor | None = None,
    counts: Tensor | None = None,
) -> GroupScales:
    """Scales that the statistic of each group asks for.

    A group with a NaN or an Inf has scale NaN, a whole tensor that of its numbers; a group of
    zeros has scale 0, or the smallest one of a scale encoding without zero.

    Args:
        rows: (slices, depth) float32; granularity `tensor` takes the whole as one row.
        quantizer: Statistic and format.
        tensor_scale: Second level of a two-level format.
        importance: What errors of elements count for fitted scales, (slices or 1, depth).
        counts: How many values each element of a whole tensor stands for, (depth,) float64 on the
            host; for itself by default.

    Raises:
        StateError: A percentile that is finer than what values with `counts` tell.
    """
    format = quantizer.format
    if counts is not None and format.granularity != "tensor":
        raise ValueError(f"{quantizer.name}: counts belong to one scale a tensor")
    if counts is not None and importance is None:
        importance = counts.to(rows).reshape(1, -1)
    if quantizer.is_fitted:
        fit = fitted_scales(rows, quantizer, importance)
        return GroupScales(scales=fit.scales, offsets=fit.offsets)
    if format.granularity == "tensor":
        rows = torch.where(rows.isfinite(), rows, 0.0)
    depth = rows.shape[1]
    group = group_length(format, depth)
    scaling = scaling_of(format, group=group, tensor_scale=tensor_scale)
    if quantizer.statistic == "rms":  # it is mapped to a number of its own, not to the largest
        exponent = np.int32(math.frexp(RMS_TARGET)[1] - 1)
        target = np.float32(RMS_TARGET)
        scaling = scaling._replace(element_max=target, element_exponent=exponent)
    tiles = _tiled(rows, format)
    whole = depth // group * group
    parts = (
        [_of_groups(tiles[..., :whole], group, quantizer, scaling, counts=counts)] if whole else []
    )
    if whole < depth:
        parts.append(_of_groups(tiles[..., whole:], depth - whole, quantizer, scaling))
    scales = torch.cat([part.scales for part in parts], dim=1)
    if format.scale is not None and format.scale.rule == "ratio":
        scales = _ratio_to_largest(scales, format.scale.rows)
    points = [part.zero_points for part in parts if part.zero_points is not None]
    return GroupScales(
        scales=_untiled(scales, rows.shape[0], format),
        zero_points=_untiled(torch.cat(points, dim=1), rows.shape[0], format) if points else None,
    )


def _tiled(rows: Tensor, format: Format) -> Tensor:
    """(tiles of slices, slices in a tile, depth); tiles are single slices unless `block`.

    A last tile that is short repeats its last slice, which changes no extremum.
    """
    height = format.block_rows if format.granularity == "block" else 1
    missing = -rows.shape[0] % height
    if missing:
        rows = torch.cat([rows, rows[-1:].expand(missing, -1)])
    return rows.reshape(-1, height, rows.shape[1])


def _untiled(scales: Tensor, slices: int, format: Format) -> Tensor:
    if format.granularity != "block":
        return scales
    return scales.repeat_interleave(format.block_rows, dim=0)[:slices]


def _of_groups(
    tiles: Tensor,
    group: int,
    quantizer: Quantizer,
    scaling: Scaling,
    *,
    counts: Tensor | None = None,
) -> GroupScales:
    """Scales (tiles, groups) of tiles whose depth is a multiple of `group`."""
    count, height, depth = tiles.shape
    groups = tiles.reshape(count, height, depth // group, group).transpose(1, 2)
    groups = groups.reshape(count, depth // group, height * group)
    low, high = _range(groups, quantizer, counts)
    if quantizer.statistic == "mse":
        return _least_error(groups, low, high, quantizer, scaling, counts=counts)
    return _clipped(low, high, quantizer, scaling)


def _range(
    groups: Tensor, quantizer: Quantizer, counts: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Lowest and highest value that the scale has to reach, zero included."""
    if quantizer.format.zero_point is None:
        groups = groups.abs()
    if quantizer.statistic == "percentile":
        low, high = _percentiles(groups, quantizer, counts)
    elif quantizer.statistic == "rms":
        high = _mean(groups.double().square(), counts).sqrt().float()
        low = -high
    elif quantizer.statistic == "learned":
        mean = _mean(groups.abs(), counts).to(groups)
        reach = 2 * mean * math.sqrt(quantizer.format.element.max)
        high = torch.minimum(groups.amax(-1), reach)
        low = torch.maximum(groups.amin(-1), -reach)
    else:
        low, high = groups.amin(-1), groups.amax(-1)
    return torch.clamp(low, max=0.0), torch.clamp(high, min=0.0)


def _percentiles(
    groups: Tensor, quantizer: Quantizer, counts: Tensor | None
) -> tuple[Tensor, Tensor]:
    kept = quantizer.percentile / 100
    if counts is None:
        size = groups.shape[-1]
        high = groups.kthvalue(size + 1 - upper_rank(kept, size), dim=-1).values
        return groups.kthvalue(lower_rank(kept, size), dim=-1).values, high
    flat, size = groups.reshape(-1), int(counts.sum().round())
    try:
        high = largest(flat, counts, upper_rank(kept, size))
        # Magnitudes end at zero, whatever is there.
        low = flat.new_zeros(())
        if quantizer.format.zero_point is not None:
            low = -largest(-flat, counts, lower_rank(kept, size))
    except StateError as error:
        raise StateError(f"{quantizer.name}: {error}") from error
    shape = groups.shape[:-1]
    return low.expand(shape), high.expand(shape)


def _mean(values: Tensor, counts: Tensor | None) -> Tensor:
    if counts is None:
        return values.mean(-1)
    weights = counts.to(values)
    return (values * weights).sum(-1) / weights.sum()


def _symmetric(low: Tensor, high: Tensor, format: Format, scaling: Scaling) -> GroupScales:
    largest = torch.maximum(low.abs(), high)
    scale = format.scale
    if (
        largest.device.type == "cpu"
        and largest.numel() >= SCALES_COMPILED_FROM
        and scale is not None
        and not is_tabled(scale.encoding)
    ):
        flat, found = largest.contiguous().reshape(-1), torch.empty(largest.numel())
        compiled.scales_of(flat.numpy(), scaling, found.numpy())
        return GroupScales(scales=found.reshape(largest.shape))
    table = thresholds_of(scale.encoding if scale else format.element)
    return GroupScales(scales=scale_of(largest, scaling, table))


def _affine(low: Tensor, high: Tensor, quantizer: Quantizer) -> GroupScales:
    """Scale and zero point that map [low, high] onto all codes.

    Source: ONNX DynamicQuantizeLinear-11.
    """
    element, scale_format = quantizer.format.element, quantizer.format.scale
    levels = torch.tensor(element.max - element.min, dtype=torch.float32, device=low.device)
    scales = (high - low) / levels
    if scale_format is not None and scale_format.encoding.name != "fp32":
        scales = round_to_grid(
            scales, grid_of(scale_format.encoding), thresholds_of(scale_format.encoding)
        )
    safe = torch.where(scales == 0, 1.0, scales)
    points = torch.clamp((element.min - low / safe).round(), element.min, element.max)
    return GroupScales(scales=scales, zero_points=points)


def _least_error(
    groups: Tensor,
    low: Tensor,
    high: Tensor,
    quantizer: Quantizer,
    scaling: Scaling,
    *,
    counts: Tensor | None = None,
) -> GroupScales:
    """The range with the least squared error of each group; the widest clipped one of equals."""
    simple = kernels_derive(quantizer.replaced(statistic="absmax"))
    if groups.device.type == "cpu" and (simple or quantizer.format.zero_point is not None):
        return _least_error_on_cpu(groups, low, high, quantizer, scaling, counts=counts)
    element = quantizer.format.element
    widest, *others = range_shares(quantizer.format).tolist()
    best = _clipped(low * widest, high * widest, quantizer, scaling)
    least = _squared_error(groups, best, element, scaling, counts)
    for kept in others:
        tried = _clipped(low * kept, high * kept, quantizer, scaling)
        error = _squared_error(groups, tried, element, scaling, counts)
        better = error < least
        least = torch.where(better, error, least)
        best = _chosen(better, tried, best)
    return best


def _least_error_on_cpu(
    groups: Tensor,
    low: Tensor,
    high: Tensor,
    quantizer: Quantizer,
    scaling: Scaling,
    *,
    counts: Tensor | None,
) -> GroupScales:
    affine = quantizer.format.zero_point is not None
    scales, points = torch.empty_like(high), torch.empty_like(high)
    weights = torch.zeros(0, dtype=torch.float64) if counts is None else counts
    least_error(
        groups.contiguous().reshape(-1).numpy(), groups.shape[-1], weights.numpy(),
        low.reshape(-1).numpy(), high.reshape(-1).numpy(), range_shares(quantizer.format), affine,
        grid_of(quantizer.format.element), thresholds_of(quantizer.format.element), scaling,
        scales.reshape(-1).numpy(), points.reshape(-1).numpy(),
    )  # fmt: skip
    return GroupScales(scales=scales, zero_points=points if affine else None)


def _clipped(low: Tensor, high: Tensor, quantizer: Quantizer, scaling: Scaling) -> GroupScales:
    if quantizer.format.zero_point is not None:
        return _affine(low, high, quantizer)
    return _symmetric(low, high, quantizer.format, scaling)


def _chosen(better: Tensor, tried: GroupScales, best: GroupScales) -> GroupScales:
    points = None
    if tried.zero_points is not None and best.zero_points is not None:
        points = torch.where(better, tried.zero_points, best.zero_points)
    return GroupScales(scales=torch.where(better, tried.scales, best.scales), zero_points=points)


def _squared_error(
    groups: Tensor,
    found: GroupScales,
    element: Encoding,
    scaling: Scaling,
    counts: Tensor | None = None,
) -> Tensor:
    points = None if found.zero_points is None else found.zero_points[..., None]
    values = apply(
        groups,
        found.scales[..., None],
        grid_of(element),
        thresholds_of(element),
        scaling,
        zero_point=points,
    )
    errors = (values - groups).to(torch.float64).square()
    return errors.sum(-1) if counts is None else (errors * counts.to(errors)).sum(-1)


def _ratio_to_largest(scales: Tensor, rows: int) -> Tensor:
    """Each scale as the largest of its `rows` slices over a power of two, never below itself."""
    rows = rows or scales.shape[0]
    largest = torch.cat([part.amax().expand_as(part) for part in torch.split(scales, rows)])
    ratio = torch.where(scales > 0, largest / scales, 1.0)
    halvings = torch.frexp(ratio).exponent - 1
    return torch.where(scales > 0, torch.ldexp(largest, -halvings), scales)
