"""Content of a model file that no writer means: what onnx's own reader and checker let through.

They are C++ and answer bytes that are no text, element types that do not exist or data of another
length with the errors of whatever stumbles over them, or not at all for weights, which are never
given to them.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator

import onnx
from google.protobuf.message import Message

from dse.errors import GraphError

_KNOWN = frozenset(onnx.TensorProto.DataType.values())
_UNNUMBERED = {"FLOAT": 32, "DOUBLE": 64, "BOOL": 8}
"""Bits of the element types whose names do not begin with them: `INT4`, `FLOAT8E5M2`."""
_STRING = onnx.TensorProto.STRING
_COMPLEX = (onnx.TensorProto.COMPLEX64, onnx.TensorProto.COMPLEX128)
_FIELDS = ("float_data", "int32_data", "int64_data", "double_data", "uint64_data", "string_data")
_NAMED = {"NodeProto": "node", "TensorProto": "tensor", "ValueInfoProto": "value",
          "AttributeProto": "attribute", "FunctionProto": "function"}  # fmt: skip
"""Messages that a reader can look for, and what they are called."""


def check_content(model: onnx.ModelProto, *, where: str) -> None:
    """A walk over every message of a model.

    Raises:
        GraphError: Text that is no UTF-8, an element type that ONNX does not have, a negative
            size, data that do not fill their tensor, a domain imported in two versions.
    """
    for fault in _faults(model, ""):
        raise GraphError(f"{where}: not a valid ONNX model: {fault}")
    versions = Counter(domain for domain, _ in {(o.domain, o.version) for o in model.opset_import})
    for domain, count in versions.items():
        if count > 1:
            raise GraphError(
                f"{where}: not a valid ONNX model: domain {domain or 'ai.onnx'!r} is imported in "
                f"{count} versions; keep the one that the nodes are written in"
            )


def _faults(message: Message, place: str) -> Iterator[str]:
    """Faults of a message and of those in it; `place` names what holds it."""
    try:
        fields = message.ListFields()
        place = _place(message, place)
        for field, value in fields:
            yield from _field_faults(field.name, value, place)
    except UnicodeDecodeError as error:
        yield f"{place or 'a name'}: not UTF-8 text: {error.object[:40]!r}"
        return
    kind = message.DESCRIPTOR.name
    if kind == "TensorProto":
        yield from (f"{place}: {fault}" for fault in _tensor_faults(message))
    elif kind == "Tensor" and message.elem_type not in _KNOWN:
        yield f"{place}: {message.elem_type} is no element type of ONNX"


def _field_faults(name: str, value: object, place: str) -> Iterator[str]:
    if isinstance(value, Message):
        yield from _faults(value, place)
    elif not isinstance(value, str | bytes | int | float):
        yield from _repeated_faults(name, value, place)
    elif isinstance(value, bytes) and name not in ("raw_data", "s"):
        yield f"{place or 'a name'}: {name} is not UTF-8 text: {value[:40]!r}"


def _repeated_faults(name: str, values: object, place: str) -> Iterator[str]:
    """Of a list: a look at its first element says whether it is one of numbers."""
    for value in values:  # type: ignore[attr-defined]
        if isinstance(value, int | float):
            return
        if isinstance(value, Message):
            yield from _faults(value, place)
        elif isinstance(value, bytes) and name not in ("string_data", "strings"):
            yield f"{place or 'a name'}: {name} is not UTF-8 text: {value[:40]!r}"


def _place(message: Message, outer: str) -> str:
    called = _NAMED.get(message.DESCRIPTOR.name)
    if called is None:
        return outer
    own = f"{called} {message.name!r}"
    return f"{outer}, {own}" if called == "attribute" else own


def _tensor_faults(tensor: onnx.TensorProto) -> Iterator[str]:
    if tensor.data_type not in _KNOWN:
        yield f"{tensor.data_type} is no element type of ONNX"
        return
    if any(size < 0 for size in tensor.dims):
        yield f"negative size in {list(tensor.dims)}"
        return
    external = tensor.data_location == onnx.TensorProto.EXTERNAL
    if external and tensor.data_type == _STRING:
        yield "texts cannot lie in a file of their own"
    if external or tensor.data_type == onnx.TensorProto.UNDEFINED:
        return
    expected, found, unit = _lengths(tensor)
    if expected != found:
        yield f"{list(tensor.dims)} need {expected} {unit}, the file has {found}"


def _lengths(tensor: onnx.TensorProto) -> tuple[int, int, str]:
    """Bytes that a tensor's sizes need, those that are there, and their field."""
    count = math.prod(tensor.dims)
    if tensor.data_type == _STRING:
        return count, len(tensor.string_data), "texts"
    bits = _bits(onnx.TensorProto.DataType.Name(tensor.data_type))
    if tensor.HasField("raw_data"):
        return math.ceil(count * bits / 8), len(tensor.raw_data), "bytes"
    # Narrow types lie packed, a byte a number; complex ones take two.
    needed = math.ceil(count * bits / 8) if bits < 8 else count
    parts = (
        2 if tensor.data_type in (onnx.TensorProto.COMPLEX64, onnx.TensorProto.COMPLEX128) else 1
    )
    return needed * parts, sum(len(getattr(tensor, name)) for name in _FIELDS), "numbers"


def _bits(name: str) -> int:
    """Bits of an element type by its ONNX name."""
    number = re.search(r"\d+", name)
    return int(number[0]) if number else _UNNUMBERED[name]
