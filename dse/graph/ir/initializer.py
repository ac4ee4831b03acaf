"""Constants of a model file, read only when asked; external data stays in the model's folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx

from dse.errors import GraphError
from dse.graph.ir.graph import TensorType
from dse.graph.ir.text_link import blobs_of, followed

# onnx_ir brings sympy, a third of a second: it is imported by the tensors that only it can read.
if TYPE_CHECKING:
    import onnx_ir as ir

_OTHER_NAMES = {
    "FLOAT": "float32",
    "DOUBLE": "float64",
    "FLOAT8E4M3FN": "float8_e4m3fn",
    "FLOAT8E4M3FNUZ": "float8_e4m3fnuz",
    "FLOAT8E5M2": "float8_e5m2",
    "FLOAT8E5M2FNUZ": "float8_e5m2fnuz",
    "FLOAT8E8M0": "float8_e8m0fnu",
    "FLOAT6E2M3": "float6_e2m3fn",
    "FLOAT6E3M2": "float6_e3m2fn",
    "FLOAT4E2M1": "float4_e2m1fn",
}
"""Element types that numpy and ml_dtypes call otherwise than ONNX does, but for the case."""

NUMPYS_OWN = frozenset(
    f"{kind}{bits}" for kind in ("float", "int", "uint") for bits in (8, 16, 32, 64)
) | {"bool"}
"""Element types that every release of onnx turns into arrays of that type and back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileInitializer:
    """A constant tensor inside the model file or in an external file beside it."""

    name: str
    type: TensorType
    stored: onnx.TensorProto | ir.ExternalTensor | None
    """None in a graph without weights."""
    where: str
    """The name in messages: the file that should hold the data."""

    def __reduce__(self) -> tuple[Callable[[], FileInitializer], tuple[()]]:
        """For another process: external data by where they lie, without what is mapped here."""
        stored = self.stored
        if stored is not None and not isinstance(stored, onnx.TensorProto):
            stored = _unmapped(stored)
        copy = partial(
            FileInitializer, name=self.name, type=self.type, stored=stored, where=self.where
        )
        return copy, ()

    @property
    def has_data(self) -> bool:
        """False in a graph without weights."""
        return self.stored is not None

    @property
    def external(self) -> ir.ExternalTensor | None:
        """The tensor whose data lie in a file of their own, which is mapped and not read."""
        return None if isinstance(self.stored, onnx.TensorProto) else self.stored

    def numpy(self) -> np.ndarray:
        """The data, mapped from the file where that is possible; `GraphError` without weights."""
        if self.stored is None:
            message = f"{self.where}: absent, so initializer {self.name!r} has no data"
            raise GraphError(f"{message}; this graph has shapes only")
        if not isinstance(self.stored, onnx.TensorProto):
            return np.asarray(self.stored.numpy())
        if self.type.dtype in NUMPYS_OWN:
            return np.asarray(onnx.numpy_helper.to_array(self.stored))
        return np.asarray(_deserialized(self.stored).numpy())

    def tobytes(self) -> bytes:
        """The stored bytes, little-endian, sub-byte types packed; empty without weights.

        Texts are told apart by their lengths.
        """
        if self.stored is None or 0 in (self.type.shape or ()):  # an empty file cannot be mapped
            return b""
        if self.type.dtype == "string":
            texts = (str(text).encode() for text in self.numpy().reshape(-1))
            return b"".join(len(text).to_bytes(8, "little") + text for text in texts)
        if not isinstance(self.stored, onnx.TensorProto):
            return bytes(self.stored.tobytes())
        if self.stored.HasField("raw_data"):
            return bytes(self.stored.raw_data)
        return bytes(_deserialized(self.stored).tobytes())


def _deserialized(proto: onnx.TensorProto) -> ir.TensorProtocol:
    from onnx_ir import serde  # noqa: PLC0415

    tensor: ir.TensorProtocol = serde.deserialize_tensor(proto)
    return tensor


def _unmapped(tensor: ir.ExternalTensor) -> ir.ExternalTensor:
    return type(tensor)(
        tensor.location,
        tensor.offset,
        tensor.length,
        tensor.dtype,
        shape=tensor.shape,
        name=tensor.name or "",
        base_dir=tensor.base_dir,
    )


def dtype_name(elem_type: int) -> str:
    """The numpy or ml_dtypes name of an ONNX element type; `string` and `undefined` as in ONNX."""
    name = str(onnx.TensorProto.DataType.Name(elem_type))
    return _OTHER_NAMES.get(name, name.lower())


def from_proto(proto: onnx.TensorProto, folder: Path, where: str) -> FileInitializer:
    """The initializer of a tensor proto.

    External data that is absent gives an initializer without data.

    Raises:
        GraphError: External data outside `folder`, or a file shorter than the tensor.
    """
    kind = TensorType(dtype=dtype_name(proto.data_type), shape=tuple(proto.dims))
    if proto.data_location != onnx.TensorProto.EXTERNAL:
        return FileInitializer(name=proto.name, type=kind, stored=proto, where=where)
    entries = {entry.key: entry.value for entry in proto.external_data}
    location = entries.get("location", "")
    what = f"{where}: initializer {proto.name!r}"
    path = external_path(folder, location, where=what)
    if path.is_dir():
        raise GraphError(f"{what}: external data at {location!r}: is a folder; expected a file")
    if not path.is_file():
        return FileInitializer(name=proto.name, type=kind, stored=None, where=str(path))
    import onnx_ir as ir  # noqa: PLC0415

    external = ir.ExternalTensor(
        path.name,
        _integer(entries, "offset", what),
        _integer(entries, "length", what),
        ir.DataType(proto.data_type),
        shape=ir.Shape(proto.dims),
        name=proto.name,
        base_dir=path.parent,
    )
    _check_length(external, path, where)
    return FileInitializer(name=proto.name, type=kind, stored=external, where=str(path))


def external_path(folder: Path, location: str, *, where: str) -> Path:
    """The file of an external location, symbolic links followed.

    Raises:
        GraphError: The location is empty, absolute or leads out of `folder`, also by a link.
    """
    base = folder.resolve()
    try:
        path = (base / location).resolve()
        path.exists()  # a name that is too long shows only here
    except (OSError, ValueError, RuntimeError) as error:
        raise GraphError(f"{where}: external data at {location[:80]!r}: {error}") from None
    blobs = blobs_of(base)
    roots = (base,) if blobs is None else (base, blobs)
    inside = any(path.is_relative_to(root) for root in roots)
    escapes = not inside or ".." in Path(location).parts
    if not location or Path(location).is_absolute() or "\\" in location or escapes:
        message = f"{where}: external data at {location!r} is outside the model's folder {base}"
        raise GraphError(f"{message}; move it beside the model and save the model again")
    return followed(path)


def _integer(entries: dict[str, str], key: str, what: str) -> int | None:
    text = entries.get(key, "")
    if text and not (text.isascii() and text.isdigit()):
        raise GraphError(f"{what}: {key} of its external data: expected bytes, got {text!r}")
    return int(text) if text else None


def _check_length(tensor: ir.ExternalTensor, path: Path, where: str) -> None:
    end = (tensor.offset or 0) + tensor.nbytes
    size = path.stat().st_size
    if end > size or tensor.length not in (None, tensor.nbytes):
        message = f"{where}: initializer {tensor.name!r} needs {tensor.nbytes} bytes"
        raise GraphError(
            f"{message} at offset {tensor.offset or 0} of {path}, which has {size} bytes "
            f"and declares {tensor.length}; the external data is truncated or of another model"
        )
