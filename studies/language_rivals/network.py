"""SmolLM2-135M with its channels in another order, as every tool of the study wants it.

The package's weights are 4-bit blocks of 32 inputs (GGUF Q4_1): a tool that happens to cut rows
where these blocks were cut would find them again without an error. So channels of the residual
stream, of every feed-forward layer and inside every head of values are put in a random order. The
network computes the same; a block of any tool holds values of many old ones.

`relabelled.onnx` is the zoo's graph (weights as (inputs, outputs)), `hf/` a Hugging Face folder.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from safetensors.torch import save_file

from dse.zoo.catalogue import resolve
from dse.zoo.smollm2 import gguf_file

MODEL = "smollm2-135m"
WIDTH, FFN, HEADS, KV_HEADS, HEAD, LAYERS = 576, 1536, 9, 3, 64, 30
RESIDUAL_INPUTS = ("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj")
EMBEDDING = "model.embed_tokens.weight"
Floats = NDArray[np.float32]


class Orders:
    """The new order of every group of channels, from a seed."""

    def __init__(self, seed: int = 0) -> None:
        draw = np.random.default_rng(seed)
        self.residual = draw.permutation(WIDTH)
        self.ffn = [draw.permutation(FFN) for _ in range(LAYERS)]
        self.heads = [
            np.stack([draw.permutation(HEAD) for _ in range(KV_HEADS)]) for _ in range(LAYERS)
        ]

    def relabelled(self, name: str, weight: Floats) -> Floats:
        """A weight of a Hugging Face name, as (inputs, outputs), in the new order."""
        if name == EMBEDDING:
            return weight[:, self.residual]
        if "norm" in name:
            return weight[self.residual]
        layer, kind = int(name.split(".")[2]), name.split(".")[4]
        if kind in RESIDUAL_INPUTS:
            weight = weight[self.residual]
        if kind in ("gate_proj", "up_proj"):
            return weight[:, self.ffn[layer]]
        if kind == "down_proj":
            return weight[self.ffn[layer]][:, self.residual]
        if kind == "v_proj":
            return weight[:, self._values(layer, KV_HEADS)]
        if kind == "o_proj":
            return weight[self._values(layer, HEADS)][:, self.residual]
        return weight

    def _values(self, layer: int, heads: int) -> NDArray[np.int64]:
        """The order of channels of all heads that read the same values."""
        shared = heads // KV_HEADS
        return np.concatenate([
            head * HEAD + self.heads[layer][head // shared] for head in range(heads)
        ])  # fmt: skip


def write(folder: Path) -> None:
    """Both forms, if they are not there."""
    folder.mkdir(parents=True, exist_ok=True)
    orders = Orders()
    if not (folder / "relabelled.onnx").exists():
        _write_onnx(folder / "relabelled.onnx", orders)
    if not (folder / "hf" / "model.safetensors").exists():
        _write_folder(folder / "hf", weights_of(folder / "relabelled.onnx"))


def weights_of(path: Path) -> dict[str, Floats]:
    """Every initializer of an ONNX file that is a parameter of the network, by its name."""
    graph = onnx.load(str(path)).graph
    return {
        one.name: numpy_helper.to_array(one)
        for one in graph.initializer
        if one.name.endswith(".weight")
    }


def _write_onnx(path: Path, orders: Orders) -> None:
    model = onnx.load(str(resolve(MODEL).path))
    for one in model.graph.initializer:
        if one.name.endswith(".weight"):
            values = orders.relabelled(one.name, numpy_helper.to_array(one))
            one.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(values), one.name))
    onnx.save(model, str(path))


def _write_folder(folder: Path, weights: Mapping[str, Floats]) -> None:
    from transformers import AutoTokenizer, LlamaConfig  # noqa: PLC0415

    folder.mkdir(exist_ok=True)
    config = LlamaConfig(
        vocab_size=49152, hidden_size=WIDTH, intermediate_size=FFN, num_hidden_layers=LAYERS,
        num_attention_heads=HEADS, num_key_value_heads=KV_HEADS, max_position_embeddings=8192,
        rms_norm_eps=1e-5, rope_theta=100000.0, tie_word_embeddings=True, bos_token_id=1,
        eos_token_id=2, pad_token_id=2, dtype="float32", architectures=["LlamaForCausalLM"],
    )  # fmt: skip
    config.save_pretrained(folder)
    source = gguf_file()
    AutoTokenizer.from_pretrained(str(source.parent), gguf_file=source.name).save_pretrained(
        folder
    )
    state = {
        name: torch.from_numpy(np.ascontiguousarray(turned(name, weight)))
        for name, weight in weights.items()
    }
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})


def turned(name: str, weight: Floats) -> Floats:
    """(inputs, outputs) as (outputs, inputs) and back; tables and vectors as they are."""
    return weight.T if weight.ndim == 2 and name != EMBEDDING else weight
