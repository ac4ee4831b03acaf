"""A small sound Hugging Face folder and GGUF file, and the texts that are read with them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import yaml

from tests.imports import families
from tests.text import toy

ENCODER: Mapping[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
}
"""Of the network whose folder is damaged: the one that torch exports in the least time."""
SIZES: Mapping[str, Any] = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1,
         "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16,
         "max_position_embeddings": 256}  # fmt: skip
SPACE: Mapping[str, object] = {
    "model": "llama",
    "data": {"source": "text.txt", "sequence": 8, "calibration": 2, "search": 4, "report": 4,
             "batch": 4},
    "scenario": {"phases": {"prefill": {"dims": {"batch": 1, "sequence": 8, "past": 0}},
                            "decode": {"share": 8, "dims": {"batch": 1, "sequence": 1,
                                                            "past": 12}}}},
    "targets": ["h100-sxm:free"],
    "candidates": [{"match": {"name": "*"}, "use": [
        "bf16", "w8a8_fp8", {"name": "blocks", "weight": "int8_g32"}]}],
    "objectives": ["quality_loss", "weight_bytes"],
    "search": {"trials": 3, "seed": 1, "method": "random", "solver_budgets": 2},
}  # fmt: skip
"""A space of the folder."""
TOKENS = ("a", "b", "ab", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n", "o")
"""Of the GGUF file: a vocabulary for its one merge."""
TASKS = {"tasks": [
    {"name": "text", "kind": "perplexity", "data": "case.text.txt", "length": 16},
    {"name": "choice", "kind": "multiple_choice", "data": "case.choices.jsonl"},
    {"name": "said", "kind": "generation", "data": "case.choices.jsonl", "max_tokens": 2},
]}  # fmt: skip
RECORDS = [
    {"prompt": "the cat sat on the", "choices": [" mat", " log"], "answer": 0},
    {"prompt": "and the dog sat on", "choices": [" the", " log"], "answer": "B"},
]


def save(folder: Path) -> None:
    """Writes all of them; tasks read what a case has made of the texts."""
    families.save("llama", folder / "llama", **SIZES)
    toy.save(folder / "llama")
    families.save("bert", folder / "encoder", **ENCODER)
    (folder / "text.txt").write_text(toy.TEXT * 40)
    (folder / "choices.jsonl").write_text("\n".join(map(json.dumps, RECORDS)))
    (folder / "tasks.yaml").write_text(yaml.safe_dump(TASKS, sort_keys=False))
    _write_gguf(folder / "llama.gguf")


def _write_gguf(path: Path) -> None:
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(32)
    writer.add_embedding_length(32)
    writer.add_block_count(1)
    writer.add_feed_forward_length(32)
    writer.add_head_count(2)
    writer.add_head_count_kv(1)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(TOKENS)
    writer.add_token_merges(["a b"])
    shapes = {
        "token_embd": (16, 32), "output_norm": (32,), "output": (16, 32),
        "blk.0.attn_norm": (32,), "blk.0.ffn_norm": (32,), "blk.0.attn_q": (32, 32),
        "blk.0.attn_k": (16, 32), "blk.0.attn_v": (16, 32), "blk.0.attn_output": (32, 32),
        "blk.0.ffn_gate": (32, 32), "blk.0.ffn_up": (32, 32), "blk.0.ffn_down": (32, 32),
    }  # fmt: skip
    for name, shape in shapes.items():
        writer.add_tensor(f"{name}.weight", np.full(shape, 0.1, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
