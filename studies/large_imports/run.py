"""Published decoders imported from folders whose weights are holes: parameters, cache, cost.

`python -m studies.large_imports.run [NAME ...]` writes `results/imports.csv`. Every model is
imported in a new interpreter with an empty cache: configuration and headers are those of the
published checkpoint, contents are not read.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

from studies.large_imports.memory import peak_bytes

HERE = Path(__file__).parent
LLAMA = {"num_key_value_heads": 8, "vocab_size": 128256, "num_attention_heads": 32,
         "max_position_embeddings": 8192}  # fmt: skip
MODELS: Mapping[str, tuple[str, dict[str, Any]]] = {
    "SmolLM2-135M": ("Llama", {
        "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
        "num_attention_heads": 9, "num_key_value_heads": 3, "vocab_size": 49152,
        "tie_word_embeddings": True,
    }),
    "Qwen3-0.6B": ("Qwen3", {
        "hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 28,
        "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128,
        "vocab_size": 151936, "tie_word_embeddings": True,
    }),
    "Phi-3-mini-4k": ("Phi3", {
        "hidden_size": 3072, "intermediate_size": 8192, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": 32, "vocab_size": 32064,
        "sliding_window": 2047, "max_position_embeddings": 4096, "pad_token_id": 32000,
    }),
    "Llama-3-8B": ("Llama", {
        **LLAMA, "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
    }),
    "Phi-4": ("Phi3", {
        "hidden_size": 5120, "intermediate_size": 17920, "num_hidden_layers": 40,
        "num_attention_heads": 40, "num_key_value_heads": 10, "vocab_size": 100352,
        "max_position_embeddings": 16384, "pad_token_id": 100349,
    }),
    "DeepSeek-V2-Lite": ("DeepseekV2", {
        "hidden_size": 2048, "intermediate_size": 10944, "moe_intermediate_size": 1408,
        "num_hidden_layers": 27, "num_attention_heads": 16, "num_key_value_heads": 16,
        "n_shared_experts": 2, "n_routed_experts": 64, "num_experts_per_tok": 6,
        "kv_lora_rank": 512, "q_lora_rank": None, "qk_nope_head_dim": 128,
        "qk_rope_head_dim": 64, "v_head_dim": 128, "first_k_dense_replace": 1,
        "vocab_size": 102400, "topk_method": "greedy", "n_group": 1, "topk_group": 1,
    }),
    "Mixtral-8x7B": ("Mixtral", {
        "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 32000,
        "num_local_experts": 8, "num_experts_per_tok": 2, "sliding_window": None,
    }),
    "Llama-3-70B": ("Llama", {
        **LLAMA, "hidden_size": 8192, "intermediate_size": 28672, "num_hidden_layers": 80,
        "num_attention_heads": 64,
    }),
    "Llama-3.1-405B": ("Llama", {
        **LLAMA, "hidden_size": 16384, "intermediate_size": 53248, "num_hidden_layers": 126,
        "num_attention_heads": 128,
    }),
}  # fmt: skip
"""Family and sizes, from `config.json` of the published checkpoints."""
DECODE = {"batch": 1, "sequence": 1, "past": 8191}
COLUMNS = ("model", "parameters", "kv_bytes", "sites_s", "served_s", "price_s", "latency_s",
           "peak_gb", "load")  # fmt: skip


def main() -> None:
    """Measures every model, or those that are named, and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help=", ".join(MODELS))
    parser.add_argument("--one", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(measured(Path(given.one))))
        return
    path = HERE / "results" / "imports.csv"
    rows = {row["model"]: row for row in _read(path)}
    for name in given.names or MODELS:
        rows[name] = {"model": name, **_in_a_process(name)}
        print(rows[name], flush=True)
        with path.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, COLUMNS)
            writer.writeheader()
            writer.writerows(rows[name] for name in MODELS if name in rows)


def _read(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def _in_a_process(name: str) -> dict[str, Any]:
    import transformers  # noqa: PLC0415

    from studies.large_imports import sparse  # noqa: PLC0415

    family, sizes = MODELS[name]
    config = getattr(transformers, f"{family}Config")(
        **sizes, architectures=[f"{family}ForCausalLM"]
    )
    with TemporaryDirectory() as scratch:
        folder = sparse.save(config, Path(scratch) / name)
        run = subprocess.run(
            [sys.executable, "-m", "studies.large_imports.run", "--one", str(folder)],
            env={**os.environ, "XDG_CACHE_HOME": f"{scratch}/cache"},
            capture_output=True, text=True, check=True,
        )  # fmt: skip
    found: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    return found


def measured(folder: Path) -> dict[str, Any]:
    """Seconds of processor of both forms and of a price, and what they say."""
    from dse.imports.folder import open_folder  # noqa: PLC0415
    from dse.predict import Usage, predict  # noqa: PLC0415

    start = time.process_time()
    plain = open_folder(folder)
    sites_s = time.process_time() - start
    start = time.process_time()
    served = open_folder(folder, served=True)
    served_s = time.process_time() - start
    start = time.process_time()
    (found,) = predict(served, ["b200-sxm:vllm"], (), usage=Usage(dims=DECODE))
    price_s = time.process_time() - start
    stored = [item for item in plain.initializers.values() if item.type.dtype == "bfloat16"]
    sizes = (math.prod(cast("tuple[int, ...]", item.type.shape)) for item in stored)
    return {
        "parameters": sum(sizes),
        "kv_bytes": found.cost.kv_bytes,
        "sites_s": round(sites_s, 1),
        "served_s": round(served_s, 1),
        "price_s": round(price_s, 1),
        "latency_s": round(found.cost.latency_s, 5),
        "peak_gb": round(peak_bytes() / 1e9, 2),
        "load": round(os.getloadavg()[0], 1),
    }


if __name__ == "__main__":
    main()
