"""The weight of a linear layer as codes and scales."""

from __future__ import annotations

from dataclasses import dataclass, replace

import ml_dtypes
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dse.execute.emulate import Emulator
from dse.export.base import Inexpressible
from dse.export.hugging_face.linears import Stack
from dse.export.scales import FloatArray, scales_of, spread
from hwmodels.formats.encodings import ENCODINGS
from hwmodels.formats.quantizer import Encoding, Format, Quantizer

CODES: dict[str, npt.DTypeLike] = {
    "e2m1": ml_dtypes.float4_e2m1fn,
    "e2m3": ml_dtypes.float6_e2m3fn,
    "e4m3": ml_dtypes.float8_e4m3fn,
}
"""Floats whose codes a checkpoint can hold, by encoding."""


NV_GROUP = 16
"""Elements of NVFP4 that share a scale."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """A weight (outputs, depth): (codes - zeros) times scales times level."""

    codes: npt.NDArray[np.generic]
    """(outputs, depth): numbers of the element in its ml_dtypes type; integers as int16."""
    scales: FloatArray
    """(outputs or 1, groups or 1)."""
    zeros: FloatArray
    """Zero points, shaped as `scales`."""
    level: np.float32
    group: int
    """Elements of a row that share a scale."""

    @property
    def by_output(self) -> FloatArray:
        """Scales (outputs, groups)."""
        outputs = self.codes.shape[0]
        return np.ascontiguousarray(np.broadcast_to(self.scales, (outputs, self.scales.shape[1])))

    def part(self, stack: Stack | None) -> Rows:
        """The rows of one matrix in a stack of experts; all where it lies in none."""
        if stack is None:
            return self
        place = slice(
            stack.expert * stack.outputs + stack.first, stack.expert * stack.outputs + stack.last
        )
        scales, zeros = (
            part[place] if len(part) > 1 else part for part in (self.scales, self.zeros)
        )
        return replace(self, codes=self.codes[place], scales=scales, zeros=zeros)


def is_element(found: Encoding, name: str) -> bool:
    """Whether an encoding has the values of the catalogue's, whatever its own name."""
    wanted = ENCODINGS[name]
    return found.replaced(name="", source="") == wanted.replaced(name="", source="")


def element_name(found: Encoding) -> str | None:
    """The float of `CODES` that an element is; None for others."""
    return next((name for name in CODES if is_element(found, name)), None)


def is_nvfp4(format: Format) -> bool:
    """Whether a format is stored as NVFP4 is, whatever its name."""
    scale = format.scale
    return (
        is_element(format.element, "e2m1")
        and format.granularity == "group"
        and format.group == NV_GROUP
        and scale is not None
        and (is_element(scale.encoding, "e4m3") or is_element(scale.encoding, "ue4m3"))
        and format.tensor_scale is not None
        and is_element(format.tensor_scale, "fp32")
    )


def rows_of(weight: Tensor, emulator: Emulator) -> Rows:
    """The codes of a weight under its emulator, which decides the values.

    Args:
        weight: what the product reads: a matrix, or a stack of them, whose rows follow each other.
        emulator: the quantizer at the site, bound to it.

    Raises:
        Inexpressible: the values are not codes times scales, or the element has no codes.
    """
    refuse_transforms(emulator.quantizer)
    format = emulator.quantizer.format
    plain = weight.detach().float()
    rows, values = (
        np.ascontiguousarray(part.movedim(emulator.axes[0], -1).flatten(0, -2).numpy())
        for part in (plain, emulator(plain))
    )
    depth = rows.shape[1]
    group = min(format.group, depth) if format.granularity in ("group", "block") else depth
    found = scales_of(rows, emulator)
    # The levels are multiplied first, in float32, as the emulator does.
    total = spread(found.scales * found.level, rows.shape, group)
    zeros = spread(found.zeros, rows.shape, group)
    with np.errstate(divide="ignore", invalid="ignore"):
        codes = np.nan_to_num(values / total).astype(np.float32) + zeros
    stored = _stored(codes, format.element)
    restored = (stored.astype(np.float32) - zeros) * total
    if not np.array_equal(restored, values):
        raise Inexpressible(
            "its values are not codes times scales",
            instead="rounding to a neighbour on the scaled grid is (nearest, gptq, discquant)",
        )
    return Rows(
        codes=stored, scales=found.scales, zeros=found.zeros, level=found.level, group=group
    )


def refuse_transforms(quantizer: Quantizer) -> None:
    """Raises `Inexpressible` where something is computed around the codes."""
    if quantizer.transforms:
        raise Inexpressible(
            f"{quantizer.transforms[0].partition('(')[0]} computes around the codes, and a "
            "checkpoint has codes and scales only",
            instead="the same format without transforms is written",
        )


def _stored(codes: FloatArray, element: Encoding) -> npt.NDArray[np.generic]:
    if element.kind == "int":
        return np.rint(codes).astype(np.int16)
    name = element_name(element)
    if name is None:
        raise Inexpressible(
            f"no type of safetensors holds {element.name}",
            instead="int2 to int8, e2m1, e2m3 and e4m3 have a place",
        )
    return codes.astype(CODES[name])


def scales_as(scales: FloatArray, encoding: Encoding) -> Tensor:
    """Scales in the type of their own encoding.

    Raises:
        Inexpressible: a checkpoint has no such type.
    """
    for name, dtype in (
        ("fp32", torch.float32), ("fp16", torch.float16), ("bf16", torch.bfloat16),
        ("e4m3", torch.float8_e4m3fn), ("ue4m3", torch.float8_e4m3fn),
    ):  # fmt: skip
        if is_element(encoding, name):
            return torch.from_numpy(scales.copy()).to(dtype)
    if is_element(encoding, "e8m0"):
        return torch.from_numpy(shared_exponents(scales))
    raise Inexpressible(
        f"no type of safetensors holds scales in {encoding.name}",
        instead="scales in fp32, fp16 and bf16 have one (e4m3 and e8m0 for blocks)",
    )


def shared_exponents(scales: FloatArray) -> npt.NDArray[np.uint8]:
    """Powers of two as E8M0 bytes."""
    return np.ascontiguousarray(scales.astype(ml_dtypes.float8_e8m0fnu).view(np.uint8))
