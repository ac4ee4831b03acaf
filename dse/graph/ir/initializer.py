"""Constants of a model file, read only when asked; external data stays in the model's folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir

from dse.errors import GraphError
from dse.graph.ir.graph import TensorType


@dataclass(frozen=True, slots=True, kw_only=True)
class FileInitializer:
    """A constant tensor inside the model file or in an external file beside it."""

    name: str
    type: TensorType
    tensor: ir.TensorProtocol | None
    """None in a graph without weights."""
    where: str
    """The name in messages: the file that should hold the data."""

    def __reduce__(self) -> tuple[Callable[[], FileInitializer], tuple[()]]:
        """For another process: external data by where they lie, without what is mapped here."""
        tensor = self.tensor
        if isinstance(tensor, ir.ExternalTensor):
            tensor = ir.ExternalTensor(
                tensor.location,
                tensor.offset,
                tensor.length,
                tensor.dtype,
                shape=tensor.shape,
                name=tensor.name or "",
                base_dir=tensor.base_dir,
            )
        copy = partial(
            FileInitializer, name=self.name, type=self.type, tensor=tensor, where=self.where
        )
        return copy, ()

    @property
    def has_data(self) -> bool:
        """False in a graph without weights."""
        return self.tensor is not None

    @property
    def is_external(self) -> bool:
        """Whether the data lie in a file of their own, which is mapped and not read."""
        return isinstance(self.tensor, ir.ExternalTensor)

    def numpy(self) -> np.ndarray:
        """The data, mapped from the file where that is possible; `GraphError` without weights."""
        if self.tensor is None:
            message = f"{self.where}: absent, so initializer {self.name!r} has no data"
            raise GraphError(f"{message}; this graph has shapes only")
        return np.asarray(self.tensor.numpy())

    def tobytes(self) -> bytes:
        """The stored bytes, little-endian, sub-byte types packed; empty without weights."""
        return b"" if self.tensor is None else bytes(self.tensor.tobytes())


def dtype_name(elem_type: int) -> str:
    """The numpy or ml_dtypes name of an ONNX element type; `string` and `undefined` as in ONNX."""
    kind = ir.DataType(elem_type)
    if kind in (ir.DataType.STRING, ir.DataType.UNDEFINED):
        return str(kind.name).lower()
    return str(kind.numpy().name)


def from_proto(proto: onnx.TensorProto, folder: Path, where: str) -> FileInitializer:
    """The initializer of a tensor proto.

    External data that is absent gives an initializer without data.

    Raises:
        GraphError: External data outside `folder`, or a file shorter than the tensor.
    """
    kind = TensorType(dtype=dtype_name(proto.data_type), shape=tuple(proto.dims))
    if proto.data_location != onnx.TensorProto.EXTERNAL:
        tensor: ir.TensorProtocol | None = ir.serde.deserialize_tensor(proto)
        return FileInitializer(name=proto.name, type=kind, tensor=tensor, where=where)
    entries = {entry.key: entry.value for entry in proto.external_data}
    location = entries.get("location", "")
    path = external_path(folder, location, where=f"{where}: initializer {proto.name!r}")
    if not path.is_file():
        return FileInitializer(name=proto.name, type=kind, tensor=None, where=str(path))
    external = ir.ExternalTensor(
        path.name,
        _integer(entries, "offset"),
        _integer(entries, "length"),
        ir.DataType(proto.data_type),
        shape=ir.Shape(proto.dims),
        name=proto.name,
        base_dir=path.parent,
    )
    _check_length(external, path, where)
    return FileInitializer(name=proto.name, type=kind, tensor=external, where=str(path))


def external_path(folder: Path, location: str, *, where: str) -> Path:
    """The file of an external location, symbolic links followed.

    Raises:
        GraphError: The location is empty, absolute or leads out of `folder`, also by a link.
    """
    base = folder.resolve()
    path = (base / location).resolve()
    inside = any(path.is_relative_to(root) for root in (base, *_blobs(base)))
    escapes = not inside or ".." in Path(location).parts
    if not location or Path(location).is_absolute() or "\\" in location or escapes:
        message = f"{where}: external data at {location!r} is outside the model's folder {base}"
        raise GraphError(f"{message}; move it beside the model and save the model again")
    return path


def _blobs(folder: Path) -> tuple[Path, ...]:
    """The target of a snapshot's links in Hugging Face's cache: the same repository's blobs.

    The folder may lie below the snapshot, as `onnx/` does.
    """
    for snapshots in folder.parents:
        repository = snapshots.parent
        if snapshots.name == "snapshots" and "--" in repository.name:
            return (repository / "blobs",)
    return ()


def _integer(entries: dict[str, str], key: str) -> int | None:
    text = entries.get(key, "")
    return int(text) if text.isdigit() else None


def _check_length(tensor: ir.ExternalTensor, path: Path, where: str) -> None:
    end = (tensor.offset or 0) + tensor.nbytes
    size = path.stat().st_size
    if end > size or tensor.length not in (None, tensor.nbytes):
        message = f"{where}: initializer {tensor.name!r} needs {tensor.nbytes} bytes"
        raise GraphError(
            f"{message} at offset {tensor.offset or 0} of {path}, which has {size} bytes "
            f"and declares {tensor.length}; the external data is truncated or of another model"
        )
