"""A folder of safetensors files: where every tensor lies, without reading one."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dse.errors import CheckpointError

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
FOREIGN = ("*.bin", "*.pt", "*.pth", "*.h5", "*.msgpack", "*.ckpt")
"""Weights in other containers: pickles, or formats of other frameworks."""
LENGTH = struct.Struct("<Q")
LARGEST_HEADER = 100_000_000
"""The limit of the safetensors library."""

BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8,
    "U16": 16, "I16": 16, "F16": 16, "BF16": 16,
    "U32": 32, "I32": 32, "F32": 32, "U64": 64, "I64": 64, "F64": 64,
}  # fmt: skip
"""Width of an element by the name of its type in safetensors."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredTensor:
    """One tensor of a checkpoint: a reference to bytes of a file."""

    name: str
    dtype: str
    """As safetensors calls it: `BF16`, `F32`, ..."""
    shape: tuple[int, ...]
    file: str
    """Name of the file inside the folder."""
    offset: int
    """Of the first byte, from the start of the file."""
    length: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """Every tensor of a folder, by name, in the order of the files."""

    folder: Path
    tensors: Mapping[str, StoredTensor]


def read_checkpoint(folder: Path) -> Checkpoint:
    """The tensors of a folder; reads headers only.

    Raises:
        CheckpointError: No safetensors, a missing shard, a file that is truncated or none, an
            index that names tensors that are not there.
    """
    index = folder / INDEX
    if index.is_file():
        return _sharded(folder, index)
    if (folder / SINGLE).is_file():
        return Checkpoint(folder=folder, tensors=_tensors(folder, SINGLE))
    files = sorted(path.name for path in folder.glob("*.safetensors"))
    if len(files) == 1:
        return Checkpoint(folder=folder, tensors=_tensors(folder, files[0]))
    found = sorted(path.name for pattern in FOREIGN for path in folder.glob(pattern))
    got = ", ".join(files or found) or "no weights"
    raise CheckpointError(
        f"{folder}: expected {SINGLE}, or shards with {INDEX}; got {got}"
        + ("; save them as safetensors (transformers: save_pretrained)" if found else "")
    )


def is_shape(folder: Path) -> bool:
    """Whether a folder has no weights at all, in any container: a configuration alone."""
    patterns = ("*.safetensors", INDEX, *FOREIGN)
    return not any(next(folder.glob(pattern), None) for pattern in patterns)


def absent_checkpoint(
    folder: Path, tensors: Mapping[str, tuple[str, tuple[int, ...]]]
) -> Checkpoint:
    """The tensors that a folder without weights would have, in a file that is not there.

    Args:
        folder: has a configuration alone.
        tensors: type and shape by name.
    """
    found: dict[str, StoredTensor] = {}
    offset = 0
    for name, (dtype, shape) in tensors.items():
        length = math.prod(shape) * BITS[dtype] // 8
        found[name] = StoredTensor(
            name=name, dtype=dtype, shape=shape, file=SINGLE, offset=offset, length=length
        )
        offset += length
    return Checkpoint(folder=folder, tensors=found)


def _sharded(folder: Path, index: Path) -> Checkpoint:
    content = read_json(index)
    places = content.get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(v, str) for v in places.values()):
        raise CheckpointError(f"{index}: expected 'weight_map', from tensors to file names")
    files = list(dict.fromkeys(places.values()))
    missing = [name for name in files if not (folder / name).is_file()]
    if missing:
        raise CheckpointError(
            f"{folder}: {len(missing)} of {len(files)} shards are missing: "
            f"{', '.join(missing[:3])}{' ...' if len(missing) > 3 else ''}; download them again"
        )
    stored = {name: _tensors(folder, name) for name in files}
    absent = [name for name, file in places.items() if name not in stored[file]]
    if absent:
        raise CheckpointError(
            f"{folder}: {places[absent[0]]} lacks {absent[0]!r}, which {INDEX} says is in it; "
            "the files are of different models"
        )
    return Checkpoint(
        folder=folder, tensors={name: stored[file][name] for name, file in places.items()}
    )


def read_json(path: Path) -> dict[str, Any]:
    """The mapping in a JSON file.

    Raises:
        CheckpointError: The file is missing, not JSON or no mapping.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: not JSON: {error}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: expected a mapping, got {type(content).__name__}")
    return content


def _tensors(folder: Path, file: str) -> dict[str, StoredTensor]:
    path = folder / file
    if "/" in file or "\\" in file:
        raise CheckpointError(f"{folder}: {INDEX} names {file!r}; expected files of the folder")
    header, start, size = _header(path)
    found = {name: _stored(entry, name, file, start, path) for name, entry in header.items()}
    short = next((one for one in found.values() if one.offset + one.length > size), None)
    if short is not None:
        raise CheckpointError(
            f"{path}: truncated: {short.name!r} ends at byte {short.offset + short.length}, the "
            f"file has {size}; download it again"
        )
    return found


def _header(path: Path) -> tuple[dict[str, Any], int, int]:
    """Entries by tensor, the byte where data begin, and the size of the file."""
    size = path.stat().st_size
    with path.open("rb") as stream:
        start = stream.read(LENGTH.size)
        length = LENGTH.unpack(start)[0] if len(start) == LENGTH.size else LARGEST_HEADER + 1
        text = stream.read(length) if length <= min(size, LARGEST_HEADER) else b""
    try:
        header = json.loads(text)
    except (ValueError, RecursionError):
        header = None
    if not isinstance(header, dict):
        raise CheckpointError(
            f"{path}: not a safetensors file, or truncated ({size} bytes); a Git LFS pointer is "
            "fetched with: git lfs pull"
        )
    header.pop("__metadata__", None)
    return header, LENGTH.size + length, size


def _stored(entry: Any, name: str, file: str, start: int, path: Path) -> StoredTensor:
    try:
        first, last = (int(at) for at in entry["data_offsets"])
        shape = tuple(int(size) for size in entry["shape"])
        dtype = str(entry["dtype"])
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise CheckpointError(f"{path}: tensor {name!r}: not a safetensors entry") from error
    elements = 1
    for size in shape:
        elements *= size
    if first < 0 or dtype not in BITS or last - first != elements * BITS[dtype] // 8:
        raise CheckpointError(
            f"{path}: tensor {name!r}: {dtype} {list(shape)} in bytes {first} to {last}"
        )
    return StoredTensor(
        name=name, dtype=dtype, shape=shape, file=file, offset=start + first, length=last - first
    )


def tensors_by_file(checkpoint: Checkpoint) -> Iterator[tuple[str, list[StoredTensor]]]:
    """The tensors of each file."""
    files: dict[str, list[StoredTensor]] = {}
    for tensor in checkpoint.tensors.values():
        files.setdefault(tensor.file, []).append(tensor)
    yield from files.items()
