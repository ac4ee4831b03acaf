"""Element types: from ONNX to the torch type that carries the values."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import torch
from torch import Tensor

from dse.errors import GraphError, nearest


@dataclass(frozen=True, slots=True, kw_only=True)
class ElementType:
    """One ONNX element type and its carrier in torch.

    Types that torch cannot store are carried by a wider one that holds their values exactly:
    2- and 4-bit integers in (u)int8, 4- and 6-bit floats in float32.
    """

    name: str
    """numpy or ml_dtypes name, as in `TensorType.dtype`."""
    code: int
    """`onnx.TensorProto.DataType`."""
    carrier: torch.dtype
    integer_range: tuple[int, int] | None = None
    """Integers: smallest and largest value."""
    mantissa_bits: int = 0
    """Narrow floats: stored fraction bits."""
    min_exponent: int = 0
    """Narrow floats: exponent of the smallest normal."""
    max: float = 0.0
    """Narrow floats: largest finite value."""
    has_infinity: bool = False
    """Narrow floats: overflow is Inf rather than NaN where it does not saturate."""


def _integer(name: str, code: int, carrier: torch.dtype) -> ElementType:
    bits = int(name.lstrip("uint"))
    low, high = (0, 2**bits - 1) if name[0] == "u" else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    return ElementType(name=name, code=code, carrier=carrier, integer_range=(low, high))


def _float(
    name: str,
    code: int,
    carrier: torch.dtype,
    layout: tuple[int, int, float],
    *,
    inf: bool = False,
) -> ElementType:
    mantissa_bits, min_exponent, largest = layout
    return ElementType(
        name=name,
        code=code,
        carrier=carrier,
        mantissa_bits=mantissa_bits,
        min_exponent=min_exponent,
        max=largest,
        has_infinity=inf,
    )


ELEMENT_TYPES = (
    ElementType(name="float32", code=1, carrier=torch.float32),
    _integer("uint8", 2, torch.uint8),
    _integer("int8", 3, torch.int8),
    _integer("uint16", 4, torch.uint16),
    _integer("int16", 5, torch.int16),
    _integer("int32", 6, torch.int32),
    _integer("int64", 7, torch.int64),
    ElementType(name="bool", code=9, carrier=torch.bool),
    ElementType(name="float16", code=10, carrier=torch.float16),
    ElementType(name="float64", code=11, carrier=torch.float64),
    _integer("uint32", 12, torch.uint32),
    _integer("uint64", 13, torch.uint64),
    ElementType(name="complex64", code=14, carrier=torch.complex64),
    ElementType(name="complex128", code=15, carrier=torch.complex128),
    ElementType(name="bfloat16", code=16, carrier=torch.bfloat16),
    _float("float8_e4m3fn", 17, torch.float8_e4m3fn, (3, -6, 448.0)),
    _float("float8_e4m3fnuz", 18, torch.float8_e4m3fnuz, (3, -7, 240.0)),
    _float("float8_e5m2", 19, torch.float8_e5m2, (2, -14, 57344.0), inf=True),
    _float("float8_e5m2fnuz", 20, torch.float8_e5m2fnuz, (2, -15, 57344.0)),
    _integer("uint4", 21, torch.uint8),
    _integer("int4", 22, torch.int8),
    _float("float4_e2m1fn", 23, torch.float32, (1, 0, 6.0)),
    ElementType(name="float8_e8m0fnu", code=24, carrier=torch.float8_e8m0fnu),
    _integer("uint2", 25, torch.uint8),
    _integer("int2", 26, torch.int8),
    _float("float6_e2m3fn", 27, torch.float32, (3, 0, 7.5)),
    _float("float6_e3m2fn", 28, torch.float32, (2, -2, 28.0)),
)
"""Source: onnx.proto3 (`TensorProto.DataType`), OCP OFP8 1.0 and OCP MX 1.0 (ranges)."""

BY_NAME: Mapping[str, ElementType] = {element.name: element for element in ELEMENT_TYPES}
BY_CODE: Mapping[int, ElementType] = {element.code: element for element in ELEMENT_TYPES}
BY_CARRIER: Mapping[torch.dtype, ElementType] = {
    element.carrier: element for element in reversed(ELEMENT_TYPES)
}
"""The first (widest used) element type of each torch type."""

WITHOUT_ARITHMETIC = frozenset({torch.uint16, torch.uint32, torch.uint64})
"""torch stores these but hardly computes with them."""

_VIEWED = {
    "bfloat16": (np.uint16, torch.bfloat16),
    "float8_e4m3fn": (np.uint8, torch.float8_e4m3fn),
    "float8_e4m3fnuz": (np.uint8, torch.float8_e4m3fnuz),
    "float8_e5m2": (np.uint8, torch.float8_e5m2),
    "float8_e5m2fnuz": (np.uint8, torch.float8_e5m2fnuz),
    "float8_e8m0fnu": (np.uint8, torch.float8_e8m0fnu),
}


def element_type(name: str) -> ElementType:
    """The element type of a numpy or ml_dtypes name.

    Raises:
        GraphError: the type has no tensor form here (strings).
    """
    if name in BY_NAME:
        return BY_NAME[name]
    raise GraphError(f"element type {name!r} cannot be executed{nearest(name, BY_NAME)}")


def to_torch(array: np.ndarray[Any, Any]) -> Tensor:
    """A tensor with the values of the array, sharing its memory where the types allow.

    That of a read-only array, such as a mapped file, must not be written.

    Raises:
        GraphError: the element type has no tensor form here (strings).
    """
    element = element_type(array.dtype.name)
    if not array.flags.c_contiguous or not array.flags.aligned:
        array = array.copy(order="C")
    if element.name in _VIEWED:
        stored, dtype = _VIEWED[element.name]
        return _shared(array.view(stored)).view(dtype)
    if element.name in ("int4", "uint4", "int2", "uint2"):
        return torch.from_numpy(array.astype(str(element.carrier).removeprefix("torch.")))
    if element.carrier is torch.float32 and element.name != "float32":
        return torch.from_numpy(array.astype(np.float32))
    return _shared(array)


def _shared(array: np.ndarray[Any, Any]) -> Tensor:
    with warnings.catch_warnings():
        # torch has no read-only tensors. Constants are never written, and must stay in their
        # files, since a model can be larger than memory.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array)


def to_numpy(tensor: Tensor) -> np.ndarray[Any, Any]:
    """The values as a numpy array (ml_dtypes for bfloat16 and the 8-bit floats)."""
    tensor = tensor.detach().cpu().contiguous()
    element = BY_CARRIER[tensor.dtype]
    if element.name in _VIEWED:
        stored, _ = _VIEWED[element.name]
        raw = tensor.view(torch.uint8 if stored is np.uint8 else torch.int16).numpy()
        return raw.view(getattr(ml_dtypes, element.name))
    return tensor.numpy()
