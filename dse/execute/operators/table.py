"""Every operator that can be executed, by (domain, operator type)."""

from __future__ import annotations

from collections.abc import Mapping

from dse.execute.operators import (
    attention,
    attention_contrib,
    cast,
    control,
    convolution,
    elementwise,
    extent,
    indexing,
    inference,
    linear,
    normalization,
    pooling,
    quantization,
    recurrent,
    reduction,
    resize,
    rotary,
    sequence,
    shape,
)
from dse.execute.operators.operator import Operator

_ONNX: Mapping[str, Mapping[str, Operator]] = {
    "elementwise": elementwise.OPERATORS,
    "shape": {**shape.OPERATORS, **extent.OPERATORS},
    "indexing": indexing.OPERATORS,
    "reduction": reduction.OPERATORS,
    "linear algebra": linear.OPERATORS,
    "convolution": convolution.OPERATORS,
    "pooling": pooling.OPERATORS,
    "resizing": resize.OPERATORS,
    "normalisation": normalization.OPERATORS,
    "attention": {**attention.OPERATORS, **rotary.OPERATORS},
    "recurrent": recurrent.OPERATORS,
    "quantisation": quantization.OPERATORS,
    "types and constants": cast.OPERATORS,
    "sequences": sequence.OPERATORS,
    "control flow": control.OPERATORS,
    "inference": inference.OPERATORS,
}

_MICROSOFT: Mapping[str, Mapping[str, Operator]] = {
    "elementwise": elementwise.MICROSOFT,
    "linear algebra": linear.MICROSOFT,
    "normalisation": normalization.MICROSOFT,
    "attention": {**attention_contrib.MICROSOFT, **rotary.MICROSOFT},
    "quantisation": quantization.MICROSOFT,
    "recurrent": recurrent.MICROSOFT,
}

FAMILIES: Mapping[str, Mapping[str, Mapping[str, Operator]]] = {
    "": _ONNX,
    "com.microsoft": _MICROSOFT,
}
"""Operators by domain, family and type."""

OPERATORS: Mapping[tuple[str, str], Operator] = {
    (domain, op_type): entry
    for domain, families in FAMILIES.items()
    for family in families.values()
    for op_type, entry in family.items()
}
