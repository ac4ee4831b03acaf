"""Weights in the packings of compressed-tensors, each with the arguments that describe it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dse.export.base import Inexpressible
from dse.export.hugging_face.layers import Layer
from dse.export.hugging_face.packing import float4_pairs, float6_quads, words
from dse.export.hugging_face.rows import (
    NV_GROUP,
    Rows,
    element_name,
    is_element,
    is_nvfp4,
    scales_as,
    shared_exponents,
)
from hwmodels.formats.quantizer import Format

WIDEST_INTEGER = 8
MX_GROUP = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Packed:
    """A weight as a checkpoint holds it."""

    format: str
    """A name of `CompressionFormat`."""
    arguments: Mapping[str, Any]
    """`QuantizationArgs` of the weight."""
    tensors: Mapping[str, Tensor]
    """By what stands behind the module's name."""


def packed(layer: Layer, rows: Rows, *, fused: bool) -> Packed:
    """A layer's weight.

    Args:
        layer: the layer with its quantizers.
        rows: the codes of its weight.
        fused: whether runtimes load it as one with others. They give such layers one scale per
            tensor and round again, so that theirs is written once per output channel instead.

    Raises:
        Inexpressible: compressed-tensors has no packing for it.
    """
    format = layer.weight.quantizer.format
    fixed = MX_GROUP if _has_shared_exponents(format) else NV_GROUP if is_nvfp4(format) else 0
    group, depth = fixed or rows.group, rows.codes.shape[1]
    if depth % group:
        raise Inexpressible(
            f"groups of {group} do not divide the depth of {depth}, and compressed-tensors has no "
            "short ones",
            instead="a group that divides it, or one scale per channel, is written",
        )
    if layer.linear.stack is not None and len(rows.codes) % max(format.block_rows, 1):
        raise Inexpressible(
            f"blocks of {format.block_rows} rows do not divide the {len(rows.codes)} outputs of "
            "an expert",
            instead="one scale per channel or group is written",
        )
    if format.element.kind == "int":
        return _integers(layer, rows)
    name = element_name(format.element)
    assert name is not None, "rows_of takes no other element"
    return FLOATS[name](format, rows, fused=fused)


def _integers(layer: Layer, rows: Rows) -> Packed:
    format = layer.weight.quantizer.format
    bits = format.element.bits
    if bits > WIDEST_INTEGER or format.granularity == "block":
        raise Inexpressible(
            "compressed-tensors packs integers of at most 8 bits, scaled per channel or group",
            instead="int2 to int8 (or unsigned) per channel or group are written",
        )
    half = 1 << bits - 1
    affine = not format.element.signed or format.zero_point is not None
    # Signed numbers are what it calls codes; unsigned ones are shifted, zero points with them.
    shift = 0 if format.element.signed else half
    codes = rows.codes.astype(np.int16) - shift
    zeros = np.broadcast_to(rows.zeros, rows.by_output.shape).astype(np.int16) - shift
    arguments = {
        "num_bits": bits, "type": "int", "symmetric": not affine, "dynamic": False,
        **_by_channel_or_group(format, rows),
    }  # fmt: skip
    tensors = {"weight_scale": plain_scales(rows.by_output, format)}
    met = layer.input.quantizer.format.element if layer.input else None
    if bits == WIDEST_INTEGER and met is not None and met.kind == "int":
        tensors["weight"] = torch.from_numpy(codes.astype(np.int8))
        if affine:
            tensors["weight_zero_point"] = torch.from_numpy(zeros.astype(np.int8))
        return Packed(format="int-quantized", arguments=arguments, tensors=tensors)
    tensors["weight_packed"] = words(codes + half, bits)
    tensors["weight_shape"] = torch.tensor(codes.shape, dtype=torch.int64)
    if affine:
        tensors["weight_zero_point"] = words((zeros + half).T, bits).T.contiguous()
    return Packed(format="pack-quantized", arguments=arguments, tensors=tensors)


def _by_channel_or_group(format: Format, rows: Rows) -> dict[str, Any]:
    if format.granularity == "group" and rows.scales.shape[1] > 1:
        return {"strategy": "group", "group_size": rows.group}
    return {"strategy": "channel"}


def _float8(format: Format, rows: Rows, *, fused: bool) -> Packed:
    codes = torch.from_numpy(rows.codes.view(np.uint8)).view(torch.float8_e4m3fn)
    arguments: dict[str, Any] = {
        "num_bits": 8, "type": "float", "symmetric": True, "dynamic": False
    }  # fmt: skip
    if _has_shared_exponents(format):
        arguments |= {"strategy": "group", "group_size": MX_GROUP, "scale_dtype": "torch.uint8"}
        exponents = torch.from_numpy(shared_exponents(rows.by_output))
        return Packed(
            format="mxfp8-quantized",
            arguments=arguments,
            tensors={"weight": codes, "weight_scale": exponents},
        )
    _refuse_levels(format)
    scales = rows.by_output
    if format.granularity == "tensor" and not fused:
        arguments["strategy"], scales = "tensor", rows.scales.reshape(1)
    elif format.granularity == "block":
        height = format.block_rows
        arguments |= {"strategy": "block", "block_structure": [height, rows.group]}
        scales = np.ascontiguousarray(scales[::height])
    else:
        arguments |= _by_channel_or_group(format, rows)
    return Packed(
        format="float-quantized",
        arguments=arguments,
        tensors={"weight": codes, "weight_scale": plain_scales(scales, format)},
    )


def _float6(format: Format, rows: Rows, *, fused: bool) -> Packed:
    if not _has_shared_exponents(format):
        raise Inexpressible(
            "compressed-tensors packs 6-bit floats in groups of 32 with E8M0 scales only",
            instead="mxfp6 is written",
        )
    return _microscaled(rows, float6_quads(rows.codes), bits=6)


def _float4(format: Format, rows: Rows, *, fused: bool) -> Packed:
    if _has_shared_exponents(format):
        return _microscaled(rows, float4_pairs(rows.codes), bits=4)
    if not is_nvfp4(format):
        raise Inexpressible(
            "compressed-tensors packs 4-bit floats in groups of 16 with E4M3 scales under a "
            "tensor's own, or in groups of 32 with E8M0 scales",
            instead="nvfp4 and mxfp4 are written",
        )
    assert format.scale is not None, "nvfp4 has scales"
    return Packed(
        format="nvfp4-pack-quantized",
        arguments={
            "num_bits": 4, "type": "float", "symmetric": True, "dynamic": False,
            "strategy": "tensor_group", "group_size": NV_GROUP,
            "scale_dtype": "torch.float8_e4m3fn",
        },
        tensors={
            "weight_packed": float4_pairs(rows.codes),
            "weight_scale": scales_as(rows.by_output, format.scale.encoding),
            "weight_global_scale": divisor(float(rows.level)),
        },
    )  # fmt: skip


def _microscaled(rows: Rows, codes: Tensor, *, bits: int) -> Packed:
    return Packed(
        format=f"mxfp{bits}-pack-quantized",
        arguments={
            "num_bits": bits, "type": "float", "symmetric": True, "dynamic": False,
            "strategy": "group", "group_size": MX_GROUP, "scale_dtype": "torch.uint8",
        },
        tensors={
            "weight_packed": codes,
            "weight_scale": torch.from_numpy(shared_exponents(rows.by_output)),
        },
    )  # fmt: skip


FLOATS: Mapping[str, Callable[..., Packed]] = {
    "e2m1": _float4, "e2m3": _float6, "e4m3": _float8,
}  # fmt: skip


def divisor(level: float) -> Tensor:
    """A second-level scale as compressed-tensors stores it: what block scales are divided by."""
    return torch.tensor([1.0 / level], dtype=torch.float32)


def _has_shared_exponents(format: Format) -> bool:
    return (
        format.scale is not None
        and is_element(format.scale.encoding, "e8m0")
        and format.granularity == "group"
        and format.group == MX_GROUP
        and format.tensor_scale is None
    )


def plain_scales(scales: np.ndarray, format: Format) -> Tensor:
    """Scales without a level above them; powers of two as bfloat16, which holds them all.

    Raises:
        Inexpressible: scales of another type.
    """
    _refuse_levels(format)
    assert format.scale is not None, "the caller has a scaled format"
    if is_element(format.scale.encoding, "e8m0"):
        return torch.from_numpy(scales.copy()).to(torch.bfloat16)
    found = scales_as(scales, format.scale.encoding)
    if found.dtype == torch.float8_e4m3fn:
        raise Inexpressible(
            "compressed-tensors has E4M3 scales in nvfp4 only",
            instead="scales in fp32, fp16 and bf16 are written",
        )
    return found


def _refuse_levels(format: Format) -> None:
    if format.tensor_scale is not None:
        raise Inexpressible(
            "compressed-tensors has two levels of scales in nvfp4 only",
            instead="the same format without a tensor's own scale is written",
        )
