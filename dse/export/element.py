"""Elements of number formats as ONNX types."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from hwmodels.formats.quantizer import Encoding

BASE_OPSET = 13
"""The first with scales per axis."""
BLOCKED_OPSET = 21
"""The first with scales per block."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ElementType:
    """An ONNX type and the opset whose QuantizeLinear or Cast writes it first."""

    type: ir.DataType
    opset: int


_INTEGERS = {
    (2, True): ElementType(type=ir.DataType.INT2, opset=25),
    (2, False): ElementType(type=ir.DataType.UINT2, opset=25),
    (4, True): ElementType(type=ir.DataType.INT4, opset=21),
    (4, False): ElementType(type=ir.DataType.UINT4, opset=21),
    (8, True): ElementType(type=ir.DataType.INT8, opset=BASE_OPSET),
    (8, False): ElementType(type=ir.DataType.UINT8, opset=BASE_OPSET),
    (16, True): ElementType(type=ir.DataType.INT16, opset=21),
    (16, False): ElementType(type=ir.DataType.UINT16, opset=21),
}
_FLOATS = {
    "e4m3": ElementType(type=ir.DataType.FLOAT8E4M3FN, opset=19),
    "e5m2": ElementType(type=ir.DataType.FLOAT8E5M2, opset=19),
    "e4m3fnuz": ElementType(type=ir.DataType.FLOAT8E4M3FNUZ, opset=19),
    "e5m2fnuz": ElementType(type=ir.DataType.FLOAT8E5M2FNUZ, opset=19),
    "bf16": ElementType(type=ir.DataType.BFLOAT16, opset=BASE_OPSET),
    "fp16": ElementType(type=ir.DataType.FLOAT16, opset=BASE_OPSET),
}


def element_type(encoding: Encoding) -> ElementType | None:
    """The ONNX type whose codes are the encoding's; None where there is none."""
    if encoding.kind == "int":
        return _INTEGERS.get((encoding.bits, encoding.signed))
    return _FLOATS.get(encoding.name)
