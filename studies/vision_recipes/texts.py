"""Encoders and language models of the zoo as tasks: windows of text that training did not see."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from pydoc_data.topics import topics

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dse.zoo.catalogue import resolve
from dse.zoo.data import limited, windows
from dse.zoo.export import export
from dse.zoo.held_out import SPLITS

Tokens = NDArray[np.int64]
NETWORKS = ("minilm-l6-v2", "byte-gpt")
SIZES = {"calibration": 64, "search": 48, "report": 128}
"""Windows."""
LENGTH = 64
"""Tokens of a window of the encoder, its marks at both ends included: no padding."""
BYTES = 128
"""Of a window of the language model."""


class Unpadded(nn.Module):
    """A sentence encoder whose mask lets everything through, so that there is one input."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, tokens: Tensor) -> Tensor:
        """(batch, 384) embeddings of (batch, LENGTH) tokens."""
        found: Tensor = self.encoder(tokens, torch.ones_like(tokens))
        return found


def write(name: str, path: Path) -> None:
    """The network as a file with one input, `tokens`."""
    if name == "byte-gpt":
        shutil.copy(resolve(name).path, path)
        return
    # Needs transformers and the package with the weights.
    from dse.zoo.minilm import load_minilm  # noqa: PLC0415

    tokens = torch.ones((2, LENGTH), dtype=torch.int64)
    module = Unpadded(load_minilm()).eval()
    export(module, {"tokens": tokens}, path, outputs=("embedding",), dims={"tokens": {0: "batch"}})


def read(name: str) -> dict[str, Tokens]:
    """Windows (count, length) of each part; the encoder's are of Python's help topics."""
    if name == "byte-gpt":
        found = {part: limited(windows(SPLITS[part], BYTES), SIZES[part]) for part in SIZES}
        return {part: split.inputs["tokens"] for part, split in found.items()}
    rows = {part: list(_of_topics(number)) for number, part in enumerate(SIZES)}
    return {part: _some(np.stack(rows[part]), SIZES[part]) for part in SIZES}


def _some(rows: Tokens, count: int) -> Tokens:
    return rows[np.linspace(0, len(rows) - 1, count).round().astype(int)]


def _of_topics(part: int) -> Iterator[Tokens]:
    """Every third topic, cut into windows; a topic is in one part."""
    from transformers import AutoTokenizer  # noqa: PLC0415

    from dse.zoo.minilm import model_folder  # noqa: PLC0415

    tokenizer = AutoTokenizer.from_pretrained(model_folder())
    for topic in sorted(topics)[part :: len(SIZES)]:
        words = tokenizer(topics[topic], add_special_tokens=False)["input_ids"]
        for start in range(0, len(words) - LENGTH + 3, LENGTH - 2):
            inside = words[start : start + LENGTH - 2]
            if len(inside) == LENGTH - 2:
                ends = (tokenizer.cls_token_id, tokenizer.sep_token_id)
                yield np.array([ends[0], *inside, ends[1]], np.int64)
