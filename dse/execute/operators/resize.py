"""Resizing by interpolation, separable over the axes, and sampling on a grid."""

# Positional parameters are the inputs of an ONNX operator, however many it has.
# ruff: noqa: PLR0917

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from dse.execute.operators.operator import Operator, operator


@dataclass(frozen=True, slots=True, kw_only=True)
class Interpolation:
    """The rule by which an output position reads its input neighbours."""

    mode: str
    coordinates: str
    nearest_mode: str = "round_prefer_floor"
    cubic_coeff_a: float = -0.75
    antialias: bool = False
    exclude_outside: bool = False
    extrapolation_value: float = 0.0


def _source(
    how: Interpolation, length: int, size: int, scale: float, roi: tuple[float, float]
) -> Tensor:
    """The input coordinate of each output position, in float64."""
    x = torch.arange(size, dtype=torch.float64)
    full = scale * length
    match how.coordinates:
        case "align_corners":
            return x * (length - 1) / (full - 1) if full != 1 else torch.zeros_like(x)
        case "asymmetric":
            return x / scale
        case "tf_crop_and_resize":
            start, end = roi
            if size == 1:
                return torch.full_like(x, (start + end) * (length - 1) / 2)
            return start * (length - 1) + x * (end - start) * (length - 1) / (size - 1)
        case "pytorch_half_pixel" if size == 1:
            return torch.full_like(x, -0.5)
        case "half_pixel_symmetric":
            offset = length / 2 * (1 - size / full)
            return offset + (x + 0.5) / scale - 0.5
        case "tf_half_pixel_for_nn":
            return (x + 0.5) / scale
        case _:
            return (x + 0.5) / scale - 0.5


def _nearest(how: Interpolation, source: Tensor) -> Tensor:
    match how.nearest_mode:
        case "round_prefer_floor":
            return torch.ceil(source - 0.5)
        case "round_prefer_ceil":
            return torch.floor(source + 0.5)
        case "floor":
            return torch.floor(source)
        case _:
            return torch.ceil(source)


def _kernel(how: Interpolation, distance: Tensor) -> Tensor:
    distance = distance.abs()
    if how.mode == "linear":
        return (1 - distance).clamp(min=0)
    a = how.cubic_coeff_a
    near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
    far = ((distance - 5) * distance + 8) * distance * a - 4 * a
    zero = torch.zeros_like(distance)
    return torch.where(distance <= 1, near, torch.where(distance < 2, far, zero))


def _weights(
    how: Interpolation, length: int, size: int, scale: float, roi: tuple[float, float]
) -> Tensor:
    """(size, length): the share of each input element in each output element."""
    source = _source(how, length, size, scale, roi)
    stretch = min(scale, 1.0) if how.antialias else 1.0
    if how.mode == "nearest":
        reach, taps = _nearest(how, source).long().unsqueeze(1), torch.ones(size, 1)
    else:
        radius = (1 if how.mode == "linear" else 2) / stretch
        first = torch.floor(source - radius).long() + 1
        reach = first.unsqueeze(1) + torch.arange(math.ceil(2 * radius) + 1)
        taps = _kernel(how, (reach - source.unsqueeze(1)) * stretch)
        if how.antialias:
            taps = taps / taps.sum(1, keepdim=True)
    if how.exclude_outside:
        taps = torch.where((reach < 0) | (reach >= length), 0.0, taps)
        taps = taps / taps.sum(1, keepdim=True)
    matrix = torch.zeros(size, length, dtype=torch.float64)
    return matrix.scatter_add(1, reach.clamp(0, length - 1), taps.double())


def _resize_axis(
    x: Tensor, axis: int, how: Interpolation, size: int, scale: float, roi: tuple[float, float]
) -> Tensor:
    length = x.shape[axis]
    source = _source(how, length, size, scale, roi)
    if how.mode == "nearest":
        index = _nearest(how, source).long().clamp(0, length - 1)
        y = x.index_select(axis, index.to(x.device))
    else:
        matrix = _weights(how, length, size, scale, roi).to(x.device)
        wide = torch.float64 if x.dtype == torch.float64 else torch.float32
        y = torch.matmul(x.movedim(axis, -1).to(wide), matrix.T.to(wide)).movedim(-1, axis)
        y = y if x.is_floating_point() else y.round()
        y = y.to(x.dtype)
    if how.coordinates == "tf_crop_and_resize":
        outside = ((source < 0) | (source > length - 1)).to(x.device)
        outside = outside.reshape([-1 if i == axis else 1 for i in range(x.dim())])
        y = y.masked_fill(outside, how.extrapolation_value)
    return y


def _interpolated(
    x: Tensor, axes: Sequence[int], sizes: Sequence[int], scales: Sequence[float],
    rois: Sequence[tuple[float, float]], how: Interpolation,
) -> Tensor:  # fmt: skip
    for axis, size, scale, roi in zip(axes, sizes, scales, rois, strict=True):
        if size != x.shape[axis] or scale != 1.0 or how.coordinates == "tf_crop_and_resize":
            x = _resize_axis(x, axis, how, size, scale, roi)
    return x


def _policy_sizes(
    wanted: Sequence[int], lengths: Sequence[int], policy: str
) -> tuple[list[int], list[float]]:
    scales = [want / length for want, length in zip(wanted, lengths, strict=True)]
    if policy == "stretch":
        return list(wanted), scales
    scale = min(scales) if policy == "not_larger" else max(scales)
    return [math.floor(scale * length + 0.5) for length in lengths], [scale] * len(lengths)


def resize(
    x: Tensor,
    roi: Tensor | None = None,
    scales: Tensor | None = None,
    sizes: Tensor | None = None,
    *,
    antialias: int = 0,
    axes: tuple[int, ...] | None = None,
    coordinate_transformation_mode: str = "half_pixel",
    cubic_coeff_a: float = -0.75,
    exclude_outside: int = 0,
    extrapolation_value: float = 0.0,
    keep_aspect_ratio_policy: str = "stretch",
    mode: str = "nearest",
    nearest_mode: str = "round_prefer_floor",
) -> Tensor:
    """X resized along the axes by scales or to sizes."""
    along = [axis % x.dim() for axis in axes] if axes is not None else list(range(x.dim()))
    lengths = [x.shape[axis] for axis in along]
    if sizes is not None and sizes.numel():
        wanted, factors = _policy_sizes(sizes.tolist(), lengths, keep_aspect_ratio_policy)
    elif scales is not None:
        factors = scales.tolist()
        wanted = [math.floor(n * factor) for n, factor in zip(lengths, factors, strict=True)]
    else:
        raise ValueError("Resize needs scales or sizes")
    how = Interpolation(
        mode=mode, coordinates=coordinate_transformation_mode, nearest_mode=nearest_mode,
        cubic_coeff_a=cubic_coeff_a, antialias=bool(antialias),
        exclude_outside=bool(exclude_outside), extrapolation_value=extrapolation_value,
    )  # fmt: skip
    bounds = (
        roi.tolist()
        if roi is not None and roi.numel()
        else [0.0] * len(along) + [1.0] * len(along)
    )
    rois = list(zip(bounds[: len(along)], bounds[len(along) :], strict=True))
    return _interpolated(x, along, wanted, factors, rois, how)


def resize_10(x: Tensor, scales: Tensor, *, mode: str = "nearest") -> Tensor:
    """Resize of opset 10, without a choice of coordinates."""
    return resize(
        x, None, scales, None,
        coordinate_transformation_mode="asymmetric", mode=mode, nearest_mode="floor",
    )  # fmt: skip


def upsample_attribute(x: Tensor, *, scales: tuple[float, ...], mode: str = "nearest") -> Tensor:
    """Upsample before opset 9."""
    return resize_10(x, torch.tensor(scales), mode=mode)


_GRID_MODES = {"linear": "bilinear", "cubic": "bicubic"}


def grid_sample(
    x: Tensor,
    grid: Tensor,
    *,
    align_corners: int = 0,
    mode: str = "linear",
    padding_mode: str = "zeros",
) -> Tensor:
    """x: (N, C, H, W) or (N, C, D, H, W) read at normalised positions (N, ..., rank)."""
    return functional.grid_sample(
        x, grid, mode=_GRID_MODES.get(mode, mode), padding_mode=padding_mode,
        align_corners=bool(align_corners),
    )  # fmt: skip


def affine_grid(theta: Tensor, size: Tensor, *, align_corners: int = 0) -> Tensor:
    """The sampling grid of affine maps theta (N, 2, 3) or (N, 3, 4)."""
    return functional.affine_grid(theta, size.tolist(), align_corners=bool(align_corners))


OPERATORS: Mapping[str, Operator] = {
    "AffineGrid": operator(affine_grid, host=(1,)),
    "GridSample": operator(grid_sample),
    "Resize": Operator(versions={10: resize_10, 11: resize}, host=(1, 2, 3)),
    "Upsample": Operator(versions={1: upsample_attribute, 9: resize_10}, host=(1,)),
}
