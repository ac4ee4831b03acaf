"""The dtypes of measurement tables: formats of the operands, and what their times hold."""

from __future__ import annotations

from dataclasses import dataclass

from hwmodels.formats import catalog
from hwmodels.formats.element import unit_element
from hwmodels.formats.quantizer import Format

WEIGHT_ONLY_SHARE = 0.9
"""Weights below this share of the activations' width are widened by the kernel."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NumberType:
    """Formats that a dtype of a measurement table stands for."""

    input: Format
    weight: Format
    output: Format
    quantizes: bool = False
    """Whether the time holds the dynamic quantisation of the activation."""

    @property
    def is_weight_only(self) -> bool:
        """Whether the kernel widens its weights to the activations' element."""
        return self.weight.bits_per_element < WEIGHT_ONLY_SHARE * self.input.bits_per_element

    @property
    def input_element(self) -> str:
        """Element of the activation in the unit."""
        return unit_element(self.input.element)

    @property
    def weight_element(self) -> str:
        """Element of the weight in the unit: widened where the kernel does so."""
        return self.input_element if self.is_weight_only else unit_element(self.weight.element)

    @property
    def is_integer(self) -> bool:
        """Whether the unit multiplies integers."""
        return self.input.element.kind == "int"

    @property
    def input_bytes(self) -> float:
        """Bytes of a stored element, scales of groups included."""
        return self.input.bits_per_element / 8

    @property
    def weight_bytes(self) -> float:
        """As `input_bytes`."""
        return self.weight.bits_per_element / 8

    @property
    def output_bytes(self) -> float:
        """As `input_bytes`."""
        return self.output.bits_per_element / 8


def _number_type(
    input_: str, weight: str, output: str = "bf16", *, quantizes: bool = False
) -> NumberType:
    return NumberType(
        input=catalog.format(input_),
        weight=catalog.format(weight),
        output=catalog.format(output),
        quantizes=quantizes,
    )


NUMBER_TYPES = {
    "fp32": _number_type("fp32", "fp32", "fp32"),
    "tf32": _number_type("tf32", "tf32", "fp32"),
    "bf16": _number_type("bf16", "bf16"),
    "fp16": _number_type("fp16", "fp16", "fp16"),
    "fp8": _number_type("e4m3_tensor", "e4m3_tensor"),
    "fp8_dynamic": _number_type("e4m3_token", "e4m3_channel", quantizes=True),
    "fp8_block": _number_type("e4m3@g128/fp32", "e4m3@b128x128/fp32", quantizes=True),
    "nvfp4": _number_type("nvfp4", "nvfp4", quantizes=True),
    "int8": _number_type("int8", "int8", "fp32"),  # int32 products as they are
    "w8a8_int8_dynamic": _number_type("int8_token", "int8_channel"),
    "fp8_precise": _number_type("e4m3_tensor", "e4m3_tensor"),
    "mxfp4": _number_type("mxfp4", "mxfp4", quantizes=True),
    "w8a16": _number_type("bf16", "int8_channel"),
    "w4a16": _number_type("bf16", "int4_g128"),
}
"""By the names of the operator table (docs/design.md, section 6)."""

CACHES = {"fp8": "e4m3_tensor", "int8": "int8_token", "nvfp4": "nvfp4"}
"""Formats of caches of keys and values narrower than the queries, by their names in a table."""
ATTENTION_TYPES = {
    f"{queries}_kv_{name}": _number_type(queries, cache, queries)
    for queries in ("bf16", "fp16")
    for name, cache in CACHES.items()
}
"""Number types of attention alone: queries in 16 bits, their cache in fewer."""
TYPES_OF_OPERATORS = NUMBER_TYPES | ATTENTION_TYPES
