"""A network of 70 B parameters is imported in little memory, and none of its bytes is copied."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from typing import cast

import transformers

from dse.imports.folder import open_folder
from studies.large_imports import sparse

LLAMA_70B = {
    "hidden_size": 8192, "intermediate_size": 28672, "num_hidden_layers": 80,
    "num_attention_heads": 64, "num_key_value_heads": 8, "vocab_size": 128256,
}  # fmt: skip
PARAMETERS = 70_553_706_496
PROGRAM = """
import sys
from pathlib import Path
from dse.imports.folder import open_folder
from studies.large_imports.memory import peak_bytes
open_folder(Path(sys.argv[1]))
print(peak_bytes())
"""


def test_seventy_billion_parameters(tmp_path: Path) -> None:
    config = transformers.LlamaConfig(**LLAMA_70B, architectures=["LlamaForCausalLM"])
    folder = sparse.save(config, tmp_path / "llama-70b")
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(folder)], capture_output=True, text=True, check=True
    )
    assert int(run.stdout.split()[-1]) < 2e9
    graph = open_folder(folder)  # from the cache
    stored = [item for item in graph.initializers.values() if item.type.dtype == "bfloat16"]
    assert (
        sum(math.prod(cast("tuple[int, ...]", item.type.shape or ())) for item in stored)
        == PARAMETERS
    )
    assert all(item.has_data for item in stored)
    used = sum(path.stat().st_blocks * 512 for path in folder.iterdir())
    assert used < 10_000_000
