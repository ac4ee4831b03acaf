"""Quantized weights as MLX's modes, each with its tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dse.execute.emulate import Emulator
from dse.export.base import Inexpressible
from dse.export.hugging_face.layers import Layer
from dse.export.hugging_face.packing import float4_pairs, words
from dse.export.hugging_face.rows import (
    NV_GROUP,
    Rows,
    is_element,
    refuse_transforms,
    rows_of,
    scales_as,
)
from dse.export.scales import FloatArray, scales_of, spread
from hwmodels.formats.quantizer import Format

AFFINE_BITS = (1, 2, 3, 4, 5, 6, 8)
AFFINE_GROUPS = (32, 64, 128)
AFFINE_SCALES = ("bf16", "fp16", "fp32")
MX_GROUP = 32
KNOWN = (
    "int4@g64/bf16 (2, 3, 4, 5, 6 and 8 bits, groups of 32, 64 and 128), uint4_g64, MLX's own "
    "uint4@g64/bf16-fitted~~bf16, mxfp4, mxfp8 and e2m1@g16/e4m3 are written"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Packed:
    """A layer's weight as a checkpoint holds it."""

    mode: str
    group: int
    bits: int
    tensors: Mapping[str, Tensor]
    """By what stands behind the module's name: `weight`, `scales` and, of mode affine,
    `biases`."""

    @property
    def settings(self) -> dict[str, int | str]:
        """The layer's entry in `config.json`."""
        return {"group_size": self.group, "bits": self.bits, "mode": self.mode}


def packed(layer: Layer, weight: Tensor) -> Packed:
    """The weight of a layer in the mode that has its numbers.

    Raises:
        Inexpressible: no mode has them.
    """
    emulator = layer.weight
    refuse_transforms(emulator.quantizer)
    format = emulator.quantizer.format
    axis = emulator.axes[0]
    if format.granularity == "group" and weight.shape[axis] % format.group:
        raise Inexpressible(
            f"groups of {format.group} do not divide the depth {weight.shape[axis]}, and MLX has "
            "no short ones",
            instead="a format whose groups divide it is written, or bf16",
        )
    mode = _mode(format)
    if mode == "affine":
        return _affine(weight, emulator)
    return _floats(mode, rows_of(weight, emulator), format)


def _mode(format: Format) -> str:
    """The mode with a format's elements, groups and scales."""
    scale = format.scale
    plain = format.granularity == "group" and format.tensor_scale is None
    if scale is not None and plain and format.super_scale is None:
        integers = format.element.kind == "int" and format.element.bits in AFFINE_BITS
        stored = any(is_element(scale.encoding, name) for name in AFFINE_SCALES)
        if integers and format.group in AFFINE_GROUPS and stored:
            return "affine"
        shared = is_element(scale.encoding, "e8m0") and format.group == MX_GROUP
        for element, mode in (("e2m1", "mxfp4"), ("e4m3", "mxfp8")):
            if shared and is_element(format.element, element):
                return mode
        small = is_element(scale.encoding, "e4m3") or is_element(scale.encoding, "ue4m3")
        if small and format.group == NV_GROUP and is_element(format.element, "e2m1"):
            return "nvfp4"
    if format.tensor_scale is not None and is_element(format.element, "e2m1"):
        raise Inexpressible(
            "MLX's linear layers multiply block scales by no scale of the tensor", instead=KNOWN
        )
    raise Inexpressible(f"MLX has no mode with the numbers of {format.name}", instead=KNOWN)


def _floats(mode: str, rows: Rows, format: Format) -> Packed:
    assert format.scale is not None, "modes have scales"
    codes = rows.codes
    bytes_ = (
        float4_pairs(codes)
        if format.element.bits == 4
        else torch.from_numpy(np.ascontiguousarray(codes.view(np.uint8)))
    )
    return Packed(
        mode=mode,
        group=format.group,
        bits=format.element.bits,
        tensors={
            "weight": bytes_.view(torch.uint32),
            "scales": scales_as(rows.by_output, format.scale.encoding).view(torch.uint8),
        },
    )


def _affine(weight: Tensor, emulator: Emulator) -> Packed:
    """Codes from 0, which MLX multiplies by a scale and then adds a bias to, two roundings."""
    format, axis = emulator.quantizer.format, emulator.axes[0]
    assert format.scale is not None, "the mode has scales"
    rows, values = (
        np.ascontiguousarray((part if axis == 1 else part.T).float().numpy())
        for part in (weight.detach(), emulator(weight.detach().float()))
    )
    found = scales_of(rows, emulator)
    shape = (len(rows), rows.shape[1] // format.group)
    scales = scales_as(np.broadcast_to(found.scales, shape), format.scale.encoding)
    lowest = -(1 << format.element.bits - 1) if format.element.signed else 0
    added = found.scales * (lowest - found.zeros)
    if found.offsets is not None:
        added = added + found.offsets
    biases = torch.from_numpy(np.broadcast_to(added, shape).copy()).to(scales.dtype)
    codes = _codes(values, scales, biases, format)
    if codes is None and format.zero_point is not None:
        # A zero point times a scale of 16 bits is no number of 16 bits, but one of float32, and
        # so is every sum of it: MLX's two roundings then round nothing.
        scales = scales.float()
        biases = torch.from_numpy(np.broadcast_to(added, shape).astype(np.float32).copy())
        codes = _codes(values, scales, biases, format)
    if codes is None:
        raise Inexpressible(
            f"MLX adds a bias of the scale's type to codes times scales, which gives other values "
            f"than those of {format.name}",
            instead="int4@g64/bf16, uint4_g64 and uint4@g64/bf16-fitted~~bf16 are written, with "
            "roundings to neighbours on the scaled grid (nearest, gptq, discquant)",
        )
    return Packed(
        mode="affine",
        group=format.group,
        bits=format.element.bits,
        tensors={
            "weight": words(codes, format.element.bits).view(torch.uint32),
            "scales": scales,
            "biases": biases,
        },
    )


def _codes(
    values: FloatArray, scales: Tensor, biases: Tensor, format: Format
) -> npt.NDArray[np.uint8] | None:
    """The codes that MLX makes the values of; None where there are none."""
    scale, bias = (
        spread(part.float().numpy(), values.shape, format.group) for part in (scales, biases)
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        units = np.where(scale == 0, np.float32(0), (values - bias) / scale)
    codes = np.rint(units).clip(0, (1 << format.element.bits) - 1)
    same = np.array_equal(codes * scale + bias, values)
    return codes.astype(np.uint8) if same else None
