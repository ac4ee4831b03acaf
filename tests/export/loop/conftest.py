"""A finished search of a tiny folder, whose space has formats of several runtimes."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from dse.explore.run import run_search
from tests.export import folders
from tests.export.gguf.test_exporter import SIZES, tokenizer

SHARPNESS = 8
SPACE = """
model: m
data: {source: data.npz, calibration: 4, search: 4, report: 4}
scenario: {phases: {one: {share: 1, dims: {batch: 1, sequence: 16}}}}
targets:
  - {name: cpu, device: xeon-8480, runtime: llama-cpp}
  - {name: gpu, device: h100-sxm, runtime: vllm}
candidates:
  - match: {kind: gemm}
    use:
      - bf16
      - {name: q4, weight: q4_k, activation: bf16}
      - w8a16
      - {name: q8, weight: q8_0, activation: bf16}
  - {match: {}, use: [bf16]}
objectives: [quality_loss, gpu.weight_bytes]
search: {trials: 6, seed: 0}
"""


def _sharpen(path: Path) -> None:
    """Confident answers: those of random weights are so flat that nothing changes them."""
    tensors = load_file(path)
    tensors["model.norm.weight"] *= SHARPNESS
    save_file(tensors, path, metadata={"format": "pt"})


@pytest.fixture(scope="session")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("loop")
    folders.folder("llama", where / "m", **SIZES)  # type: ignore[arg-type]
    tokenizer(where / "m", 300)
    _sharpen(where / "m" / "model.safetensors")
    tokens = np.random.default_rng(0).integers(3, 300, (12, 16))
    np.savez(where / "data.npz", input_ids=tokens)
    (where / "space.yaml").write_text(SPACE)
    run_search(where / "space.yaml", out=where / "run")
    return where / "run"


@pytest.fixture
def run(searched: Path, tmp_path: Path) -> Path:
    """A copy of its own."""
    return Path(shutil.copytree(searched, tmp_path / "run"))
