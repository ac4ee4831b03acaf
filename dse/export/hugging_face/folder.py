"""A Hugging Face folder written anew: configuration, tokenizer and other tensors."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from dse.errors import CheckpointError
from dse.export.hugging_face.layers import Layers
from dse.imports.checkpoint import INDEX, StoredTensor, read_json, tensors_by_file

CONFIG = "config.json"
HALVES = ("bfloat16", "float16")
LEFT_BEHIND = (
    ".safetensors", ".bin", ".pt", ".pth", ".h5", ".msgpack", ".ckpt", ".onnx", ".gguf", ".py",
)  # fmt: skip
"""Files of other weights, and code, which never runs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """Additions to a folder beside what it keeps."""

    layers: Layers
    packed: Mapping[str, Mapping[str, Tensor]]
    """Tensors of quantized layers by module and name (`weight_packed`)."""
    others: Mapping[str, Tensor] = field(default_factory=dict)
    """Further tensors by full name: scales of caches."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """Entries of `config.json`."""


def write_folder(source: Path, out: Path, contents: Contents) -> None:
    """Write a checkpoint with quantized layers, file by file as it was.

    Raises:
        OSError: it cannot be written there.
    """
    out.mkdir()
    for path in companions(source):
        shutil.copyfile(path, out / path.name)
    config = {**read_json(source / CONFIG), **contents.config}
    write_json(out / CONFIG, config)
    places: dict[str, str] = {}
    total = 0
    files = list(tensors_by_file(contents.layers.checkpoint))
    for number, (file, stored) in enumerate(files):
        tensors = dict(_tensors(source / file, stored, contents))
        if number == len(files) - 1:
            tensors |= contents.others
            tensors |= _tied(contents)
        save_file(tensors, out / file, metadata={"format": "pt"})
        places |= dict.fromkeys(tensors, file)
        total += sum(tensor.nbytes for tensor in tensors.values())
    if len(files) > 1:
        write_json(out / INDEX, {"metadata": {"total_size": total}, "weight_map": places})


def companions(source: Path) -> list[Path]:
    """Files that go along: tokenizer, templates, generation settings, licence."""
    return sorted(
        path
        for path in source.iterdir()
        if path.is_file()
        and path.suffix not in LEFT_BEHIND
        and path.name not in (CONFIG, INDEX)
        and not path.name.startswith(".")
    )


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file."""
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _tensors(
    path: Path, stored: list[StoredTensor], contents: Contents
) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a file under their names in the new one."""
    layers = contents.layers
    quantized = {
        layers.shared.get(module, layer.linear.weight): module
        for module, layer in layers.quantized.items()
        if not layer.linear.tied or module in layers.shared
    }
    with safe_open(path, framework="pt") as file:
        for tensor in stored:
            if tensor.name in quantized:
                yield from _named(quantized[tensor.name], contents)
            else:
                replaced = layers.replaced.get(tensor.name)
                kept = file.get_tensor(tensor.name) if replaced is None else replaced
                yield tensor.name, kept.contiguous()


def _named(module: str, contents: Contents) -> Iterator[tuple[str, Tensor]]:
    home = contents.layers.home(module)
    for name, tensor in contents.packed[module].items():
        yield f"{home}.{name}", tensor.clone()  # safetensors takes no shared memory


def _tied(contents: Contents) -> dict[str, Tensor]:
    """Layers whose weight was an embedding's tensor, which stays as it is."""
    return {
        name: tensor
        for module, layer in contents.layers.quantized.items()
        if layer.linear.tied and module not in contents.layers.shared
        for name, tensor in _named(module, contents)
    }


def network_entries(source: Path, layers: Layers) -> dict[str, Any]:
    """Entries of `config.json` that the layers change: the type it runs in, and tied weights.

    Kernels of packed weights compute in 16 bits, so a float32 checkpoint is set to bfloat16 unless
    the assignment says float16.
    """
    given = read_json(source / CONFIG)
    key = "torch_dtype" if "torch_dtype" in given else "dtype"
    had = str(given.get(key, "float32"))
    dtype = layers.dtype or (had if had in HALVES else HALVES[0])
    entries: dict[str, Any] = {key: dtype}
    apart = (module for module in layers.quantized if module not in layers.shared)
    if any(layers.quantized[module].linear.tied for module in apart):
        entries["tie_word_embeddings"] = False
    return entries


def read_tensors(folder: Path) -> dict[str, Tensor]:
    """Every tensor of a folder.

    Raises:
        CheckpointError: a file that is none.
    """
    found: dict[str, Tensor] = {}
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, framework="pt") as file:
                found |= {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except Exception as error:  # safetensors' own exceptions have no common base
            raise CheckpointError(f"{path}: cannot be read: {error}") from error
    return found
