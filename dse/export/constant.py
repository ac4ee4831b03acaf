"""A quantized constant as the codes and scales that DequantizeLinear reads."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from dse.errors import ExportError
from dse.execute.emulate import Emulator
from dse.export.element import BASE_OPSET, BLOCKED_OPSET, ElementType
from dse.numerics import calibrated_state

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Codes:
    """What a DequantizeLinear node is made of; `codes` times `scale` is the quantized constant."""

    codes: npt.NDArray[np.generic]
    """In the ONNX type's numpy dtype, shaped as the constant."""
    scale: FloatArray
    """A scalar, a vector along `axis`, or one value a block of `block` elements along `axis`."""
    zero_point: npt.NDArray[np.generic]
    """Shaped as `scale`, in the dtype of the codes."""
    axis: int = 0
    block: int = 0
    """0 where scales are not per block."""

    @property
    def opset(self) -> int:
        """The first whose DequantizeLinear takes scales of this shape."""
        return BLOCKED_OPSET if self.block else BASE_OPSET


def codes_of(weight: Tensor, emulator: Emulator, element: ElementType) -> Codes:
    """The codes of a constant under its emulator, which decides the values.

    Args:
        weight: float32, any shape.
        emulator: the quantizer at the site, bound to it.
        element: the ONNX type of the quantizer's element.

    Raises:
        ExportError: scales that DequantizeLinear cannot place, or values that are not codes times
            scales (a learned transform, say).
    """
    weight = weight.detach().float().contiguous()
    quantizer, axes = emulator.quantizer, emulator.axes or (weight.dim() - 1,)
    kept = [axis for axis in range(weight.dim()) if axis not in axes]
    values = _rows(emulator(weight), kept, axes)
    state = emulator.state
    if state is None or state.scales is None:
        state = calibrated_state(weight, quantizer.replaced(timing="static"), axes=axes)
    if state.scales is None:
        raise ExportError(f"{quantizer.name} has no scales of its own")
    scales = state.scales.numpy()
    zeros = np.zeros_like(scales) if state.zero_points is None else state.zero_points.numpy()
    depth = values.shape[1]
    group = quantizer.format.group if quantizer.format.granularity == "group" else depth
    group = min(group, depth)
    wide_scales, wide_zeros = (_spread(part, values.shape, group) for part in (scales, zeros))
    with np.errstate(divide="ignore", invalid="ignore"):
        codes = np.nan_to_num(values / wide_scales) + wide_zeros
    if element.type.is_integer():
        codes = np.rint(codes)
    stored = codes.astype(element.type.numpy())
    restored = (stored.astype(np.float32) - wide_zeros) * wide_scales
    if not np.array_equal(restored, values):
        raise ExportError(f"{quantizer.name}: its values are not codes times scales")
    shape = tuple(weight.shape)
    place = _Place(shape=shape, kept=tuple(kept), contracted=tuple(axes), group=group)
    scale, axis, block = place.of(scales)
    return Codes(
        codes=_unrows(stored, shape, kept, axes),
        scale=scale,
        zero_point=place.of(zeros)[0].astype(element.type.numpy()),
        axis=axis,
        block=block,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """Where scales stand: `kept` axes have their own, along `contracted` ones each group has."""

    shape: tuple[int, ...]
    kept: tuple[int, ...]
    contracted: tuple[int, ...]
    group: int

    def of(self, scales: FloatArray) -> tuple[FloatArray, int, int]:
        """Scales (slices or 1, groups or 1) as (scale, axis, block) of DequantizeLinear."""
        if scales.size == 1:
            return scales.reshape(()), 0, 0
        wide = [axis for axis in self.kept if self.shape[axis] > 1]
        if scales.shape[1] == 1 and len(wide) == 1:
            return scales.reshape(-1), wide[0], 0
        deep = [axis for axis in self.contracted if self.shape[axis] > 1]
        if len(deep) != 1:
            raise ExportError(
                f"scales along axes {list(self.contracted)} of a constant of shape "
                f"{list(self.shape)}; DequantizeLinear has blocks along one axis"
            )
        axis = deep[0]
        sizes = [self.shape[kept] for kept in self.kept]
        groups = math.ceil(self.shape[axis] / self.group)
        rows = np.broadcast_to(scales, (math.prod(sizes), groups))
        with_groups = [groups if i == axis else size for i, size in enumerate(self.shape)]
        return _unrows(rows, with_groups, self.kept, self.contracted), axis, self.group


def _rows(x: Tensor, kept: Sequence[int], contracted: Sequence[int]) -> FloatArray:
    """(slices, depth): slices in the order of the kept axes."""
    moved: FloatArray = x.permute(*kept, *contracted).contiguous().numpy()
    return moved.reshape(math.prod(x.shape[axis] for axis in kept), -1)


def _unrows(
    rows: npt.NDArray[Any], shape: Sequence[int], kept: Sequence[int], contracted: Sequence[int]
) -> npt.NDArray[Any]:
    """The inverse of `_rows` for an array of `shape`."""
    order = [*kept, *contracted]
    moved = rows.reshape([shape[axis] for axis in order])
    return np.ascontiguousarray(np.transpose(moved, np.argsort(order)))


def _spread(part: FloatArray, shape: tuple[int, ...], group: int) -> FloatArray:
    """One value an element from one a group; the last group may be short."""
    slices, depth = shape
    if part.shape[1] > 1:
        part = np.repeat(part, group, axis=1)[:, :depth]
    return np.broadcast_to(part, (slices, depth))
