"""Metadata that llama.cpp needs beside the tensors: family, sizes, rotary positions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dse.export.base import Refusal
from dse.imports.network import read_config


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """llama.cpp's way to compute a family of `transformers`."""

    arch: str
    """Its architecture there."""
    halves_apart: bool = False
    """Rotary pairs are neighbours there, and halves of a head here: rows change places."""


FAMILIES: Mapping[str, Family] = {
    "llama": Family(arch="llama", halves_apart=True),
    "mistral": Family(arch="llama", halves_apart=True),
    "qwen2": Family(arch="qwen2"),
    "qwen3": Family(arch="qwen3"),
}
"""By `model_type`; the others' converters in llama.cpp compute with tensors, not only rename."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """A configuration as far as a file says it."""

    config: Any
    family: Family

    @property
    def heads(self) -> int:
        """Attention heads."""
        return int(self.config.num_attention_heads)

    @property
    def kv_heads(self) -> int:
        """Heads of keys and values."""
        return int(getattr(self.config, "num_key_value_heads", None) or self.heads)

    @property
    def head_size(self) -> int:
        """Elements of a head."""
        given = getattr(self.config, "head_dim", None)
        return int(given or self.config.hidden_size // self.heads)

    @property
    def layers(self) -> int:
        """Blocks."""
        return int(self.config.num_hidden_layers)

    def permuted_heads(self, name: str) -> int:
        """Heads whose rows change places in a stored tensor; 0 where none do."""
        if not self.family.halves_apart:
            return 0
        module = name.rpartition(".")[0].rpartition(".")[2]
        return {"q_proj": self.heads, "k_proj": self.kv_heads}.get(module, 0)


def network_of(folder: Path) -> Network | Refusal:
    """The network of a Hugging Face folder, or why llama.cpp would compute another one.

    Raises:
        CheckpointError: the configuration cannot be read.
    """
    config = read_config(folder)
    family = FAMILIES.get(config.model_type)
    if family is None:
        return Refusal(
            reason=f"llama.cpp has other tensors for the family {config.model_type} than the "
            "checkpoint, which its own converter computes",
            instead=f"{', '.join(FAMILIES)} are written",
        )
    strange = _strange(config)
    if strange:
        return Refusal(
            reason=f"llama.cpp computes {config.model_type} networks otherwise: {strange}",
            instead="a network without is written",
        )
    return Network(config=config, family=family)


def _strange(config: Any) -> str:
    """A trait that the file would lose; empty where there is none."""
    rotary = _rotary(config)
    kind = rotary.get("rope_type", rotary.get("type", "default"))
    if kind not in ("default", None):
        return f"rotary positions are scaled ({kind})"
    if config.hidden_act not in ("silu", "swish"):
        return f"the activation is {config.hidden_act}, not silu"
    window = getattr(config, "sliding_window", None)
    if window and getattr(config, "use_sliding_window", True):
        return f"attention sees a window of {window} tokens"
    return ""


def _rotary(config: Any) -> dict[str, Any]:
    found = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None)
    return dict(found or {})


def write_metadata(writer: Any, network: Network, name: str) -> None:
    """Put the keys of the architecture into a writer of gguf-py."""
    config = network.config
    rotary = _rotary(config)
    theta = rotary.get("rope_theta") or getattr(config, "rope_theta", None) or 10000.0
    writer.add_name(name)
    writer.add_block_count(network.layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(network.heads)
    writer.add_head_count_kv(network.kv_heads)
    writer.add_key_length(network.head_size)
    writer.add_value_length(network.head_size)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(network.head_size)
    writer.add_rope_freq_base(float(theta))
    writer.add_vocab_size(config.vocab_size)
