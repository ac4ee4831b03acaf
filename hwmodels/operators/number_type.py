"""The dtypes of measurement tables: what they multiply, move and quantise."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class NumberType:
    """What a dtype of a measurement table multiplies and moves."""

    input_element: str
    weight_element: str
    input_bytes: float
    weight_bytes: float
    """Bytes of a stored element, scales of groups included."""
    output_bytes: float = 2.0
    stored_element: str = ""
    """Element of weights that are widened before they are multiplied; empty where they are not."""
    quantizes: int = 0
    """Kernels of dynamic activation quantisation that the time holds."""


NUMBER_TYPES = {
    "fp32": NumberType(
        input_element="fp32", weight_element="fp32", input_bytes=4, weight_bytes=4, output_bytes=4
    ),
    "tf32": NumberType(
        input_element="tf32", weight_element="tf32", input_bytes=4, weight_bytes=4, output_bytes=4
    ),
    "bf16": NumberType(
        input_element="bf16", weight_element="bf16", input_bytes=2, weight_bytes=2
    ),
    "fp16": NumberType(
        input_element="fp16", weight_element="fp16", input_bytes=2, weight_bytes=2
    ),
    "fp8": NumberType(input_element="e4m3", weight_element="e4m3", input_bytes=1, weight_bytes=1),
    "fp8_dynamic": NumberType(
        input_element="e4m3", weight_element="e4m3", input_bytes=1, weight_bytes=1, quantizes=1
    ),
    "fp8_block": NumberType(
        input_element="e4m3", weight_element="e4m3", input_bytes=1 + 4 / 128,
        weight_bytes=1 + 4 / 128**2, quantizes=1,
    ),
    "nvfp4": NumberType(
        input_element="e2m1", weight_element="e2m1", input_bytes=0.5625, weight_bytes=0.5625,
        quantizes=1,
    ),
    "int8": NumberType(
        input_element="int8", weight_element="int8", input_bytes=1, weight_bytes=1, output_bytes=4
    ),
    "w8a8_int8_dynamic": NumberType(
        input_element="int8", weight_element="int8", input_bytes=1, weight_bytes=1
    ),
    "fp8_precise": NumberType(
        input_element="e4m3", weight_element="e4m3", input_bytes=1, weight_bytes=1
    ),
    "mxfp4": NumberType(
        input_element="e2m1", weight_element="e2m1", input_bytes=0.5 + 1 / 32,
        weight_bytes=0.5 + 1 / 32, quantizes=1,
    ),
    "w8a16": NumberType(
        input_element="bf16", weight_element="bf16", input_bytes=2, weight_bytes=1,
        stored_element="int8",
    ),
    "w4a16": NumberType(
        input_element="bf16", weight_element="bf16", input_bytes=2, weight_bytes=0.5 + 2 / 128,
        stored_element="int4",
    ),
}  # fmt: skip
"""By the names of the operator table (docs/design.md, section 6)."""
