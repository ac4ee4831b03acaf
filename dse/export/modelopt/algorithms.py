"""Quantized layers as ModelOpt's algorithms, each with its tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dse.export.base import Inexpressible
from dse.export.hugging_face.layers import Layer
from dse.export.hugging_face.packing import float4_pairs
from dse.export.hugging_face.rows import (
    NV_GROUP,
    Rows,
    is_element,
    is_nvfp4,
    refuse_transforms,
    scales_as,
)
from hwmodels.formats.quantizer import Format

FP8, FP8_ROWS, NVFP4, NVFP4_WEIGHT = (
    "FP8", "FP8_PER_CHANNEL_PER_TOKEN", "NVFP4", "W4A16_NVFP4"
)  # fmt: skip
MIXED = frozenset({FP8, NVFP4, NVFP4_WEIGHT})
"""Algorithms that vLLM executes where layers differ; it leaves layers of others unquantized there,
without a word."""
KNOWN = (
    "e4m3_tensor with e4m3_tensor:static, nvfp4 with nvfp4:static, nvfp4 alone are written, and "
    "e4m3_channel with e4m3_token where all layers have it"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantized:
    """A layer as a checkpoint holds it."""

    algorithm: str
    tensors: Mapping[str, Tensor]
    """By what stands behind the module's name. Scales multiply."""


def quantized(layer: Layer, rows: Rows) -> Quantized:
    """A layer's weight and the scale of its input.

    Raises:
        Inexpressible: no algorithm that vLLM or TensorRT-LLM loads is that.
    """
    format = layer.weight.quantizer.format
    found = _algorithm(layer)
    if found in (NVFP4, NVFP4_WEIGHT):
        tensors = _float4(format, rows)
    else:
        tensors = _float8(rows, per_tensor=found == FP8)
    if found in (FP8, NVFP4):
        tensors["input_scale"] = _input_scale(layer)
    return Quantized(algorithm=found, tensors=tensors)


def _algorithm(layer: Layer) -> str:
    format = layer.weight.quantizer.format
    if is_nvfp4(format):
        if layer.input is None:
            return NVFP4_WEIGHT
        if is_nvfp4(layer.input.quantizer.format):
            return NVFP4
    if _is_fp8(format, "tensor") and layer.input is not None:
        static = layer.input.fixed is not None
        if static and _is_fp8(layer.input.quantizer.format, "tensor"):
            return FP8
    if _is_fp8(format, "channel") and layer.input is not None:
        met = layer.input.quantizer
        if met.is_dynamic and _is_fp8(met.format, "token"):
            return FP8_ROWS
    met_name = "16-bit activations" if layer.input is None else layer.input.quantizer.name
    raise Inexpressible(
        f"vLLM and TensorRT-LLM load no algorithm of ModelOpt with such weights and {met_name}",
        instead=KNOWN,
    )


def _is_fp8(format: Format, granularity: str) -> bool:
    return (
        is_element(format.element, "e4m3")
        and format.granularity == granularity
        and format.tensor_scale is None
        and format.scale is not None
        and is_element(format.scale.encoding, "fp32")
    )


def _float8(rows: Rows, *, per_tensor: bool) -> dict[str, Tensor]:
    codes = torch.from_numpy(rows.codes.view(np.uint8)).view(torch.float8_e4m3fn)
    scales = torch.from_numpy(rows.scales if per_tensor else rows.by_output)
    return {"weight": codes, "weight_scale": scales.reshape(-1).clone()}


def _float4(format: Format, rows: Rows) -> dict[str, Tensor]:
    depth = rows.codes.shape[1]
    if depth % NV_GROUP:
        raise Inexpressible(
            f"groups of {NV_GROUP} do not divide the depth {depth}, and there are no short ones",
            instead="e4m3_tensor with e4m3_tensor:static is written",
        )
    assert format.scale is not None, "nvfp4 has scales"
    return {
        "weight": float4_pairs(rows.codes),
        "weight_scale": scales_as(rows.by_output, format.scale.encoding),
        "weight_scale_2": torch.tensor(float(rows.level), dtype=torch.float32),
    }


def _input_scale(layer: Layer) -> Tensor:
    """The calibrated scale of an activation, or its second level."""
    assert layer.input is not None, "the algorithm has one"
    quantizer, state = layer.input.quantizer, layer.input.fixed
    refuse_transforms(quantizer)
    if quantizer.rounding != "nearest_even":
        raise Inexpressible(
            "runtimes round activations to nearest even only",
            instead="the same format without a rounding of its own is written",
        )
    if state is not None and state.tensor_scale is not None:
        return torch.tensor(state.tensor_scale, dtype=torch.float32)
    if state is None or state.scales is None:
        raise Inexpressible(
            "its tensor scale is worked out while the network runs, and ModelOpt has a calibrated "
            "one",
            instead="nvfp4:static is written",
        )
    return state.scales.float().reshape(1)
