"""Tiny folders of many families with random weights, as `transformers` saves them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers

SIZES = {
    "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 4,
    "num_attention_heads": 4, "vocab_size": 128, "max_position_embeddings": 128,
}  # fmt: skip
GROUPED = {**SIZES, "num_key_value_heads": 2}
WIDE = {**GROUPED, "head_dim": 32}
"""Heads that are together wider than the network."""
MIXTURE = {"num_experts": 4, "num_experts_per_tok": 2}

CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", {**GROUPED, "tie_word_embeddings": True}),
    "mistral": ("Mistral", {**WIDE, "sliding_window": 4}),
    "qwen2": ("Qwen2", GROUPED),
    "qwen3": ("Qwen3", {**WIDE, "tie_word_embeddings": True}),
    "gemma2": ("Gemma2", {**WIDE, "sliding_window": 4, "query_pre_attn_scalar": 16}),
    "phi3": ("Phi3", {**GROUPED, "pad_token_id": 0}),
    "phi4": ("Phi3", {**GROUPED, "rope_theta": 250000.0, "pad_token_id": 0}),
    "phi4_mini": ("Phi3", {
        **GROUPED, "tie_word_embeddings": True, "pad_token_id": 0, "partial_rotary_factor": 0.75,
        "original_max_position_embeddings": 64, "rope_scaling": {
            "type": "longrope", "short_factor": [1.0, 1.1, 1.2, 1.3, 1.4, 1.5],
            "long_factor": [1.0, 1.5, 2.0, 4.0, 8.0, 16.0],
        },
    }),
    "gpt2": ("GPT2", {"n_embd": 64, "n_layer": 4, "n_head": 4, "vocab_size": 128,
                      "n_positions": 128}),
    "gpt_oss": ("GptOss", {**WIDE, "num_local_experts": 4, "num_experts_per_tok": 2,
                           "sliding_window": 4}),
    "mixtral": ("Mixtral", {**WIDE, "num_local_experts": 4, "num_experts_per_tok": 2}),
    "qwen3_moe": ("Qwen3Moe", {**WIDE, **MIXTURE, "moe_intermediate_size": 48}),
    "olmoe": ("Olmoe", {**GROUPED, **MIXTURE}),
    "deepseek_v2": ("DeepseekV2", {
        **SIZES, "num_key_value_heads": 4, "kv_lora_rank": 32, "q_lora_rank": None,
        "qk_nope_head_dim": 16, "qk_rope_head_dim": 8, "v_head_dim": 24, "n_routed_experts": 4,
        "num_experts_per_tok": 2, "moe_intermediate_size": 48, "first_k_dense_replace": 1,
        "n_shared_experts": 1, "n_group": 1, "topk_group": 1, "topk_method": "greedy",
    }),
    "gemma3_text": ("Gemma3Text", {**WIDE, "sliding_window": 4, "query_pre_attn_scalar": 16,
                                   "sliding_window_pattern": 2}),
    "llama4_text": ("Llama4Text", {
        **WIDE, "intermediate_size_mlp": 96, "num_local_experts": 4, "num_experts_per_tok": 1,
        "attention_chunk_size": 8, "interleave_moe_layer_step": 1, "pad_token_id": 0,
    }),
    "smollm3": ("SmolLM3", {**GROUPED, "no_rope_layer_interval": 2, "pad_token_id": 0}),
    "qwen2_moe": ("Qwen2Moe", {**GROUPED, **MIXTURE, "moe_intermediate_size": 48,
                               "shared_expert_intermediate_size": 32}),
    "bert": ("Bert", SIZES),
    "roberta": ("Roberta", {**SIZES, "max_position_embeddings": 130, "pad_token_id": 1}),
    "whisper": ("Whisper", {
        "d_model": 64, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
        "decoder_attention_heads": 4, "encoder_ffn_dim": 96, "decoder_ffn_dim": 96,
        "vocab_size": 128, "max_source_positions": 8, "max_target_positions": 64,
        "num_mel_bins": 8, "decoder_start_token_id": 1, "pad_token_id": 0, "bos_token_id": 1,
        "eos_token_id": 2,
    }),
    "clip": ("CLIP", {
        "text_config": {**SIZES, "eos_token_id": 2},
        "vision_config": {**SIZES, "image_size": 32, "patch_size": 8}, "projection_dim": 32,
    }),
    "vit": ("ViT", {**SIZES, "image_size": 32, "patch_size": 8, "num_labels": 10}),
}  # fmt: skip
HEADS = {
    "bert": "Model",
    "clip": "Model",
    "roberta": "Model",
    "vit": "ForImageClassification",
    "gpt2": "LMHeadModel",
    "whisper": "ForConditionalGeneration",
    "gemma3_text": "ForCausalLM",
    "llama4_text": "ForCausalLM",
}


def depth(family: str) -> str:
    """The configuration's name of the number of layers."""
    return "n_layer" if family == "gpt2" else "num_hidden_layers"


def save(family: str, folder: Path, *, dtype: torch.dtype = torch.float32, **changes: Any) -> Path:
    """Saves a tiny network of a family; its weights are large enough to matter everywhere."""
    name, sizes = CONFIGS[family]
    config = getattr(transformers, f"{name}Config")(**{**sizes, **changes})
    head = HEADS.get(family, "ForCausalLM")
    torch.manual_seed(0)
    network = getattr(transformers, f"{name.removesuffix('Text')}{head}")(config).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=parameter.shape[-1] ** -0.5)
            else:
                parameter.add_(0.1 * torch.randn_like(parameter))
    transformers.logging.disable_progress_bar()
    network.to(dtype).save_pretrained(folder)
    return folder


def reference(folder: Path) -> Any:
    """The folder's network as `transformers` runs it, in float32."""
    config = transformers.AutoConfig.from_pretrained(folder)
    cls = getattr(transformers, config.architectures[0])
    return cls.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
