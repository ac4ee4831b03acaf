"""Activations that meet quantized weights, and caches, as compressed-tensors describes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from dse.execute.emulate import Emulator
from dse.export.base import Inexpressible
from dse.export.compressed_tensors.weights import MX_GROUP, divisor
from dse.export.hugging_face.rows import (
    NV_GROUP,
    element_name,
    is_element,
    is_nvfp4,
    refuse_transforms,
)
from dse.numerics import QuantizerState
from hwmodels.formats.quantizer import Format

KNOWN = (
    "static per tensor (int8:static, e4m3_tensor:static), dynamic per token (int8_token, "
    "e4m3_token), nvfp4:static, e2m1@g32/e8m0-even and e4m3@g32/e8m0-rceil are written"
)

MX_RULES = {"e2m1": "even", "e2m3": "even", "e4m3": "rceil"}
"""Rules by which the package's `generate_mx_scales` makes an E8M0 of a largest magnitude.

It rounds the magnitude to the mantissa bits of E2M1 (E2M3 for 6 bits) and takes the exponent. For
4 and 6 bits that is rule `even`. For E4M3, whose largest number has one bit of mantissa less than
that asks for, it is the first power of two by which nothing saturates; only a magnitude that is
the largest number itself, to the last bit, gets twice that, which moves what rounds to a
subnormal number and nothing else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Met:
    """The entry of the activation that meets a weight."""

    arguments: Mapping[str, Any]
    """`QuantizationArgs`."""
    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    """By what stands behind the module's name."""


def met(emulator: Emulator) -> Met:
    """The input of a layer.

    Raises:
        Inexpressible: runtimes of compressed-tensors quantize no activations that way.
    """
    quantizer, format = emulator.quantizer, emulator.quantizer.format
    refuse_transforms(quantizer)
    if quantizer.rounding != "nearest_even":
        raise Inexpressible(
            "runtimes round activations to nearest even only",
            instead="the same format without a rounding of its own is written",
        )
    state = emulator.fixed
    if state is not None:
        return _static(format, state)
    if quantizer.statistic not in ("auto", "absmax", "minmax"):
        raise Inexpressible(
            "runtimes take the largest magnitude of what they see",
            instead="the same format with absmax is written",
        )
    return _dynamic(format)


def _static(format: Format, state: QuantizerState) -> Met:
    if is_nvfp4(format) and state.tensor_scale is not None:
        return Met(
            arguments={
                "num_bits": 4, "type": "float", "symmetric": True, "dynamic": "local",
                "strategy": "tensor_group", "group_size": NV_GROUP,
                "scale_dtype": "torch.float8_e4m3fn",
            },
            tensors={"input_global_scale": divisor(state.tensor_scale)},
        )  # fmt: skip
    if state.scales is None or state.scales.numel() != 1:
        raise _unknown(format)
    arguments = {**_element(format), "strategy": "tensor", "dynamic": False}
    tensors = {"input_scale": state.scales.float().reshape(1)}
    if not arguments["symmetric"]:
        # Unsigned codes are stored as signed ones, shifted by half their range.
        zero = 0.0 if state.zero_points is None else state.zero_points.item()
        half = 0 if format.element.signed else 1 << format.element.bits - 1
        tensors["input_zero_point"] = torch.tensor([zero - half]).to(torch.int8)
    return Met(arguments=arguments, tensors=tensors)


def _dynamic(format: Format) -> Met:
    scale = format.scale
    assert scale is not None, "a format without a scale is cast"
    if is_nvfp4(format):
        raise Inexpressible(
            "its tensor scale is worked out while the network runs, and compressed-tensors takes "
            "a calibrated one",
            instead="nvfp4:static is written",
        )
    if format.tensor_scale is None and is_element(scale.encoding, "e8m0"):
        return _microscaled(format)
    if format.tensor_scale is not None or not is_element(scale.encoding, "fp32"):
        raise _unknown(format)
    if format.granularity == "token":
        return Met(arguments={**_element(format), "strategy": "token", "dynamic": True})
    if format.granularity == "group":
        grouped = {"strategy": "group", "group_size": format.group, "dynamic": True}
        return Met(arguments={**_element(format), **grouped})
    raise Inexpressible(
        "vLLM works out scales of activations per token only",
        instead=KNOWN,
    )


def _microscaled(format: Format) -> Met:
    """MX activations where the emulator rounds scales as the consumer does.

    Raises:
        Inexpressible: no MX format of the package, or another rule of scales than its own.
    """
    assert format.scale is not None, "the caller has found E8M0"
    name = element_name(format.element)
    if format.granularity != "group" or format.group != MX_GROUP or name is None:
        raise _unknown(format)
    if format.scale.rule != MX_RULES[name]:
        raise Inexpressible(
            "compressed-tensors works out E8M0 scales of activations by a rule of its own, which "
            f"for {format.element.name} is '{MX_RULES[name]}', not '{format.scale.rule}'",
            instead=f"{name}@g32/e8m0-{MX_RULES[name]} is written, or bf16",
        )
    return Met(
        arguments={
            "num_bits": format.element.bits, "type": "float", "symmetric": True, "dynamic": True,
            "strategy": "group", "group_size": MX_GROUP, "scale_dtype": "torch.uint8",
        },
    )  # fmt: skip


def _element(format: Format) -> dict[str, Any]:
    element = format.element
    if element.kind == "int" and element.bits in (4, 8):
        affine = not element.signed or format.zero_point is not None
        return {"num_bits": element.bits, "type": "int", "symmetric": not affine}
    if is_element(element, "e4m3"):
        return {"num_bits": 8, "type": "float", "symmetric": True}
    raise _unknown(format)


def _unknown(format: Format) -> Inexpressible:
    return Inexpressible(
        f"runtimes of compressed-tensors quantize no activations to {format.name}", instead=KNOWN
    )


CACHE_ARGUMENTS: Mapping[str, Any] = {
    "num_bits": 8, "type": "float", "symmetric": True, "dynamic": False, "strategy": "tensor",
}  # fmt: skip
