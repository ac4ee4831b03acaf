"""Folders of large networks: headers and empty files, which take no space on disk."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
import transformers

SHARD_BYTES = 5_000_000_000


def save(config: Any, folder: Path) -> Path:
    """Saves a network of zeros in bfloat16, in shards of 5 GB that are holes."""
    folder.mkdir()
    cls = getattr(transformers, config.architectures[0])
    with torch.device("meta"):
        network = cls(config)
    config.save_pretrained(folder)
    shards: list[dict[str, Any]] = [{}]
    size = 0
    for name, tensor in network.state_dict().items():
        length = 2 * math.prod(tensor.shape)
        if size and size + length > SHARD_BYTES:
            shards.append({})
            size = 0
        offsets = [size, size + length]
        shards[-1][name] = {"dtype": "BF16", "shape": list(tensor.shape), "data_offsets": offsets}
        size += length
    places: dict[str, str] = {}
    for number, header in enumerate(shards, start=1):
        file = f"model-{number:05}-of-{len(shards):05}.safetensors"
        text = json.dumps(header).encode()
        end = max(entry["data_offsets"][1] for entry in header.values())
        with (folder / file).open("wb") as stream:
            stream.write(len(text).to_bytes(8, "little") + text)
            stream.truncate(8 + len(text) + end)
        places |= dict.fromkeys(header, file)
    index = {"metadata": {}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder
