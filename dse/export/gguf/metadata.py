"""Metadata that llama.cpp needs beside the tensors: family, sizes, rotary positions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dse.export.base import Refusal
from dse.imports.network import read_config


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """llama.cpp's way to compute a family of `transformers`."""

    arch: str
    """Its architecture there."""
    halves_apart: bool = False
    """Rotary pairs are neighbours there, and halves of a head here: rows change places."""
    own_experts: bool = False
    """Experts are as wide as `moe_intermediate_size` says."""


FAMILIES: Mapping[str, Family] = {
    "llama": Family(arch="llama", halves_apart=True),
    "mistral": Family(arch="llama", halves_apart=True),
    "qwen2": Family(arch="qwen2"),
    "qwen3": Family(arch="qwen3"),
    "mixtral": Family(arch="llama", halves_apart=True),
    "qwen3_moe": Family(arch="qwen3moe", own_experts=True),
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

    @property
    def experts(self) -> int:
        """Experts of a layer; 0 without a mixture."""
        names = ("num_local_experts", "num_experts")
        return int(next((n for n in (getattr(self.config, k, None) for k in names) if n), 0))

    @property
    def unread(self) -> str:
        """The part of a file that transformers 5 does not read; empty where it reads all."""
        if _kind(rotary_of(self.config)) != "default":
            return "scalings of rotary positions"
        if self.experts and self.family.arch == "llama":
            return "experts of this family"
        return ""

    @property
    def frequency_factors(self) -> npt.NDArray[np.float32] | None:
        """Factors that wavelengths of rotary positions are multiplied by, (head size / 2,).

        Llama 3.1 stretches long waves by the factor, leaves short ones, and goes smoothly from
        the ones to the others.
        """
        rotary = rotary_of(self.config)
        if _kind(rotary) != "llama3":
            return None
        theta, half = float(rotary["rope_theta"]), self.head_size // 2
        wavelengths = 2 * np.pi * theta ** (np.arange(half) / half)
        turns = float(rotary["original_max_position_embeddings"]) / wavelengths
        low, high = float(rotary["low_freq_factor"]), float(rotary["high_freq_factor"])
        kept = np.clip((turns - low) / (high - low), 0, 1)
        return (1 / (kept + (1 - kept) / float(rotary["factor"]))).astype(np.float32)

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
    rotary = rotary_of(config)
    kind = _kind(rotary)
    known = SCALED.get(kind)
    if known is None:
        return f"rotary positions are scaled ({kind})"
    if unsaid := rotary.keys() - known - PLAIN:
        return f"rotary positions are scaled ({kind} with {', '.join(sorted(unsaid))})"
    if config.hidden_act not in ("silu", "swish"):
        return f"the activation is {config.hidden_act}, not silu"
    window = getattr(config, "sliding_window", None)
    if window and getattr(config, "use_sliding_window", True):
        return f"attention sees a window of {window} tokens"
    if not getattr(config, "norm_topk_prob", True):
        return "weights of the chosen experts do not sum to 1 (norm_topk_prob)"
    if getattr(config, "mlp_only_layers", None) or getattr(config, "decoder_sparse_step", 1) != 1:
        return "some layers have no experts"
    return ""


PLAIN = frozenset({"rope_type", "type", "rope_theta"})
SCALED: Mapping[str, frozenset[str]] = {
    "default": frozenset(),
    "linear": frozenset({"factor"}),
    "llama3": frozenset({
        "factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings",
    }),
    "yarn": frozenset({"factor", "original_max_position_embeddings"}),
}  # fmt: skip
"""Scalings of rotary positions that llama.cpp computes as `transformers` does, with their numbers;
others, or more numbers, it has no keys for, or other defaults."""


def rotary_of(config: Any) -> dict[str, Any]:
    """The parameters of rotary positions, `rope_theta` among them; what is None is left out."""
    given = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None)
    found = {key: value for key, value in dict(given or {}).items() if value is not None}
    found.setdefault("rope_theta", getattr(config, "rope_theta", None) or 10000.0)
    if _kind(found) == "yarn":
        found.setdefault("original_max_position_embeddings", config.max_position_embeddings)
    return found


def _kind(rotary: Mapping[str, Any]) -> str:
    return str(rotary.get("rope_type") or rotary.get("type") or "default")


def write_metadata(writer: Any, network: Network, name: str) -> None:
    """Put the keys of the architecture into a writer of gguf-py."""
    config = network.config
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
    writer.add_vocab_size(config.vocab_size)
    _write_rotary(writer, rotary_of(config))
    if network.experts:
        writer.add_expert_count(network.experts)
        writer.add_expert_used_count(config.num_experts_per_tok)
    if network.family.own_experts:
        writer.add_expert_feed_forward_length(config.moe_intermediate_size)


def _write_rotary(writer: Any, rotary: Mapping[str, Any]) -> None:
    """Base and scaling; Llama 3.1's is a tensor (`Network.frequency_factors`)."""
    import gguf  # noqa: PLC0415 (an extra)

    writer.add_rope_freq_base(float(rotary["rope_theta"]))
    kind = _kind(rotary)
    if kind in ("linear", "yarn"):
        writer.add_rope_scaling_type(gguf.RopeScalingType(kind))
        writer.add_rope_scaling_factor(float(rotary["factor"]))
    if kind == "yarn":
        writer.add_rope_scaling_orig_ctx_len(int(rotary["original_max_position_embeddings"]))
