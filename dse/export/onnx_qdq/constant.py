"""A quantized constant as the codes and scales that DequantizeLinear reads."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from torch import Tensor

from dse.execute.emulate import Emulator
from dse.export.base import Inexpressible
from dse.export.onnx_qdq.element import BASE_OPSET, BLOCKED_OPSET, ElementType, scale_type
from dse.export.scales import FloatArray, scales_of, spread
from hwmodels.formats.quantizer import Format

Array = npt.NDArray[np.generic]


@dataclass(frozen=True, slots=True, kw_only=True)
class Codes:
    """Operands of a DequantizeLinear node; `codes` times `scale` is the quantized constant."""

    codes: Array
    """In the ONNX type's numpy dtype, shaped as the constant."""
    scale: Array
    """A scalar, a vector along `axis`, or one value a block of `block` elements along `axis`; in
    the numpy dtype of the format's own scale encoding, so that files have the bytes that the
    cost model counts."""
    level: np.float32 | None = None
    """The factor of `scale`: the second level of a two-level format (NVFP4)."""
    zero_point: Array | None = None
    """Shaped as `scale`, in the dtype of the codes; None where it is zero and costs bytes."""
    axis: int = 0
    block: int = 0
    """0 where scales are not per block."""
    opset: int = BASE_OPSET
    """The first whose DequantizeLinear takes scales of this shape and type."""


def codes_of(weight: Tensor, emulator: Emulator, element: ElementType) -> Codes:
    """The codes of a constant under its emulator, which decides the values.

    Args:
        weight: float32, bfloat16 or float16, any shape.
        emulator: the quantizer at the site, bound to it.
        element: the ONNX type of the quantizer's element.

    Raises:
        Inexpressible: scales that DequantizeLinear cannot place or has no type for, or values
            that are not codes times scales.
    """
    weight = weight.detach().float().contiguous()
    quantizer, axes = emulator.quantizer, emulator.axes or (weight.dim() - 1,)
    kept = [axis for axis in range(weight.dim()) if axis not in axes]
    rows = _rows(weight, kept, axes)
    values = _rows(emulator(weight), kept, axes)
    found = scales_of(rows, emulator)
    stored_as = _scale_type(quantizer.format)
    depth = values.shape[1]
    in_groups = quantizer.format.granularity in ("group", "block")
    group = min(quantizer.format.group, depth) if in_groups else depth
    # DequantizeLinear multiplies the levels first, in float32, as the emulator does.
    total = found.scales * found.level
    codes = _codes(values, *(spread(part, values.shape, group) for part in (total, found.zeros)))
    if element.type.is_integer():
        codes = np.rint(codes)
    with np.errstate(invalid="ignore"):  # codes beyond the type are refused below
        stored = codes.astype(element.type.numpy())
    restored = (stored.astype(np.float32) - spread(found.zeros, values.shape, group)) * spread(
        total, values.shape, group
    )
    if not np.array_equal(restored, values):
        raise Inexpressible(
            "its values are not codes times scales",
            instead="rounding to a neighbour on the scaled grid is (nearest, gptq, discquant)",
        )
    shape = tuple(weight.shape)
    place = _Place(shape=shape, kept=tuple(kept), contracted=tuple(axes), group=group)
    scale, axis, block = place.of(found.scales)
    affine = quantizer.format.zero_point is not None
    return Codes(
        codes=_unrows(stored, shape, kept, axes),
        scale=scale.astype(stored_as.type.numpy()),
        level=np.float32(found.level) if quantizer.format.tensor_scale else None,
        zero_point=place.of(found.zeros)[0].astype(element.type.numpy())
        if affine or not (in_groups or element.type.bitwidth < 8)
        else None,
        axis=axis,
        block=block,
        opset=max(element.opset, stored_as.opset, BLOCKED_OPSET if block else BASE_OPSET),
    )


def _scale_type(format: Format) -> ElementType:
    """The ONNX type that scales are stored in.

    Raises:
        Inexpressible: there is none.
    """
    assert format.scale is not None, "a format without scales is cast"
    encoding = format.scale.encoding
    found = scale_type(encoding)
    if found is None:
        raise Inexpressible(
            f"ONNX has no type for scales in {encoding.name}",
            instead="scales in fp32, fp16, bf16, e4m3, e5m2 and e8m0 have one",
        )
    two_levels = format.tensor_scale is not None
    if two_levels and (format.tensor_scale.name != "fp32" or found.type in WITH_ARITHMETIC):  # type: ignore[union-attr]
        raise Inexpressible(
            "DequantizeLinear multiplies scales of 8-bit floats by a second level in fp32 only",
            instead="e4m3 or e5m2 block scales under an fp32 tensor scale (nvfp4) are written",
        )
    return found


WITH_ARITHMETIC = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16)
"""Types of scales that are no quantized tensors themselves."""


def _codes(values: FloatArray, scales: FloatArray, zeros: FloatArray) -> FloatArray:
    with np.errstate(divide="ignore", invalid="ignore"):
        codes: FloatArray = np.nan_to_num(values / scales) + zeros
    return codes


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """Places of scales: `kept` axes have their own, along `contracted` ones each group has."""

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
            raise Inexpressible(
                f"has scales along axes {list(self.contracted)} of a constant of shape "
                f"{list(self.shape)}, and DequantizeLinear has blocks along one axis only",
                instead="a scale per tensor or per output channel has its place",
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
