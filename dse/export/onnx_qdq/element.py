"""Elements and scales of number formats as ONNX types."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from hwmodels.formats.encodings import ENCODINGS
from hwmodels.formats.quantizer import Encoding

BASE_OPSET = 13
"""The first with scales per axis."""
BLOCKED_OPSET = 21
"""The first with scales per block."""
TYPED_OPSET = 21
"""The first whose QuantizeLinear says the type of codes by an attribute."""
SHARED_EXPONENT_OPSET = 24
"""The first whose DequantizeLinear takes E8M0 scales."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ElementType:
    """An ONNX type and the opset whose QuantizeLinear or Cast writes it first."""

    type: ir.DataType
    opset: int


def _types(table: dict[str, tuple[str, int]]) -> dict[Encoding, ElementType]:
    """By layout: the types that the installed onnx_ir knows, the narrow ones came late."""
    return {
        _layout(ENCODINGS[encoding]): ElementType(type=ir.DataType[name], opset=opset)
        for encoding, (name, opset) in table.items()
        if name in ir.DataType.__members__
    }


def _layout(encoding: Encoding) -> Encoding:
    """The fields that decide values.

    A user's encoding of the same layout is the same type; one that only has the name is not.
    """
    return encoding.replaced(name="", source="")


_ELEMENTS = _types({
    "int2": ("INT2", 25), "int2a": ("INT2", 25), "uint2": ("UINT2", 25),
    "int4": ("INT4", 21), "int4a": ("INT4", 21), "uint4": ("UINT4", 21),
    "int8": ("INT8", BASE_OPSET), "int8a": ("INT8", BASE_OPSET), "uint8": ("UINT8", BASE_OPSET),
    "int16": ("INT16", 21), "int16a": ("INT16", 21), "uint16": ("UINT16", 21),
    "e2m1": ("FLOAT4E2M1", 23),
    "e2m3": ("FLOAT6E2M3", 28), "e3m2": ("FLOAT6E3M2", 28),
    "e4m3": ("FLOAT8E4M3FN", 19), "e5m2": ("FLOAT8E5M2", 19),
    "e4m3fnuz": ("FLOAT8E4M3FNUZ", 19), "e5m2fnuz": ("FLOAT8E5M2FNUZ", 19),
    "bf16": ("BFLOAT16", BASE_OPSET), "fp16": ("FLOAT16", BASE_OPSET),
    "fp32": ("FLOAT", BASE_OPSET),
})  # fmt: skip
"""Encoding -> ONNX type; the specification lists them under QuantizeLinear of each opset."""

_SCALES = _types({
    "fp32": ("FLOAT", BASE_OPSET), "fp16": ("FLOAT16", BASE_OPSET),
    "bf16": ("BFLOAT16", BASE_OPSET),
    "e4m3": ("FLOAT8E4M3FN", 19), "ue4m3": ("FLOAT8E4M3FN", 19), "e5m2": ("FLOAT8E5M2", 19),
    "e8m0": ("FLOAT8E8M0", SHARED_EXPONENT_OPSET),
})  # fmt: skip


def element_type(encoding: Encoding) -> ElementType | None:
    """The ONNX type whose codes are the encoding's; None where there is none."""
    return _ELEMENTS.get(_layout(encoding))


def scale_type(encoding: Encoding) -> ElementType | None:
    """The ONNX type that holds scales of an encoding; None where there is none."""
    return _SCALES.get(_layout(encoding))
