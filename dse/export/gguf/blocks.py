"""A quantized matrix as GGUF blocks: codes found again from values, scales taken apart."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import numpy.typing as npt

from dse.export.base import Inexpressible
from dse.export.gguf.pack import PACKERS, Blocks, Bytes, Floats
from dse.export.gguf.types import TensorType
from hwmodels.formats.numbers import sorted_values
from hwmodels.formats.quantizer import Encoding, Format


def packed(values: Floats, scales: Floats, offsets: Floats | None, type: TensorType) -> Bytes:
    """The bytes of a matrix, (rows, bytes of a row).

    Args:
        values: (rows, depth) as the emulator computes them; depth in whole blocks.
        scales: (rows, groups) as they multiply.
        offsets: (rows, groups) as they are added; None where there are none.
        type: whose blocks.

    Raises:
        Inexpressible: the values are not codes times scales of that type.
    """
    rows, depth = values.shape
    group = type.format.group
    added = np.zeros_like(scales) if offsets is None else offsets
    spread, shift = (np.repeat(part, group, axis=1) for part in (scales, added))
    with np.errstate(divide="ignore", invalid="ignore"):
        units = np.where(spread == 0, np.float32(0), (values - shift) / spread)
    codes, numbers = _codes(units, type.format.element)
    if not np.array_equal(numbers * spread + shift, values):
        raise Inexpressible(
            "its values are not codes times scales",
            instead="rounding to a neighbour on the scaled grid is (nearest, gptq, discquant)",
        )
    count = rows * (depth // type.elements)
    per_block = type.elements // group
    scale, above = _apart(scales.reshape(count, per_block), _scale_of(type.format), type.format)
    offset, offset_above = added.reshape(count, per_block), above
    if type.format.offset is not None and type.format.super_scale is not None:
        offset, offset_above = _apart(-offset, type.format.offset, type.format)
    blocks = Blocks(
        codes=codes.reshape(count, type.elements),
        scales=scale,
        offsets=offset,
        above=above,
        offset_above=offset_above,
    )
    return PACKERS[type.name](blocks).reshape(rows, -1)


def _scale_of(format: Format) -> Encoding:
    assert format.scale is not None, "blocks have scales"
    return format.scale.encoding


def _codes(units: Floats, element: Encoding) -> tuple[Bytes, Floats]:
    """The place of each value on an element's grid, from 0, and the value there."""
    if element.kind == "float":
        stored = units.astype(ml_dtypes.float4_e2m1fn)
        return stored.view(np.uint8) & np.uint8(15), stored.astype(np.float32)
    grid = sorted_values(element).astype(np.float32)
    if element.kind == "int":
        numbers = np.rint(units).clip(grid[0], grid[-1])
        return (numbers - grid[0]).astype(np.uint8), numbers
    place = np.searchsorted((grid[1:] + grid[:-1]) / 2, units)
    return place.astype(np.uint8), grid[place]


def _apart(scales: Floats, encoding: Encoding, format: Format) -> tuple[Floats, Floats]:
    """Scales (blocks, groups) as codes and what multiplies them (blocks, 1), exactly.

    A fit leaves the products alone behind; every factor that is a number of the upper level and
    makes all others whole is as good as the one that the fit had.

    Raises:
        Inexpressible: there is none.
    """
    if format.super_scale is None:
        return scales, scales[:, :1]
    largest = np.take_along_axis(scales, np.abs(scales).argmax(1, keepdims=True), 1)
    above = np.zeros_like(largest)
    open_: npt.NDArray[np.bool_] = largest != 0
    for code in sorted(sorted_values(encoding), key=abs, reverse=True):
        if not open_.any() or code == 0:
            break
        tried = (largest / np.float32(code)).astype(np.float16).astype(np.float32)
        whole = np.rint(np.divide(scales, tried, where=tried != 0, out=np.zeros_like(scales)))
        whole = whole.clip(encoding.min, encoding.max)
        fits = open_ & (whole * tried == scales).all(1, keepdims=True) & (tried != 0)
        above[fits] = tried[fits]
        open_ &= ~fits
    if open_.any():
        raise Inexpressible(
            f"its scales are no {encoding.name} times one {format.super_scale.name} for each "
            f"{format.super_group} elements",
            instead=f"{format.name} as this project fits it is",
        )
    codes = np.divide(scales, above, where=above != 0, out=np.zeros_like(scales))
    return codes, above
