"""A search of a folder ends with a GGUF file."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import pandas as pd

from tests.cli.conftest import Dse
from tests.export import folders
from tests.export.gguf.test_exporter import SIZES, tokenizer

SPACE = """
model: m
data: {{source: data.npz, calibration: 4, search: 4, report: 4}}
scenario: {{phases: {{one: {{share: 1, dims: {{batch: 1, sequence: 16}}}}}}}}
targets:
  - {{name: h100, device: h100-sxm, runtime: llama-cpp}}
candidates:
  - match: {match}
    use: {use}
  - {{match: {{}}, use: [bf16]}}
objectives: [quality_loss, weight_bytes]
search: {{trials: 4, seed: 0}}
"""
Q4, Q6, Q8 = (
    f"{{name: {name}, weight: {weight}, activation: bf16}}"
    for name, weight in (("q4", "q4_k"), ("q6", "q6_k"), ("q8", "q8_0"))
)
VOCABULARY, WIDTH = 300, 256


def asked(where: Path, match: str, *uses: str) -> Path:
    """A folder whose head is its table of tokens, and a space that searches some products."""
    folders.folder("llama", where / "m", **SIZES)  # type: ignore[arg-type]
    tokenizer(where / "m", VOCABULARY)
    tokens = np.random.default_rng(0).integers(3, VOCABULARY, (12, 16))
    np.savez(where / "data.npz", input_ids=tokens)
    text = SPACE.format(match=match, use=f"[bf16, {', '.join(uses)}]")
    (where / "space.yaml").write_text(text)
    return where / "space.yaml"


def test_a_tied_table_is_priced_as_the_file_has_it(dse: Dse, tmp_path: Path) -> None:
    space, run = asked(tmp_path, "{role: head}", Q8, Q6), tmp_path / "run"
    searched = dse("search", space, "--out", run, "--quiet")
    assert searched.code == 0, searched.err
    trials = pd.read_csv(run / "trials.csv").set_index("name")
    out = tmp_path / "q8.gguf"
    done = dse("export", run, "--trial", trials.loc["q8", "trial"], "--to", "gguf", "-o", out)
    assert done.code == 0, done.err
    tensors = {one.name: one for one in gguf.GGUFReader(out).tensors}
    assert "output.weight" not in tensors
    assert tensors["token_embd.weight"].tensor_type.name == "Q8_0"
    assert tensors["token_embd.weight"].n_bytes == VOCABULARY * WIDTH // 32 * 34
    matrices = sum(one.n_bytes for one in tensors.values() if len(one.shape) > 1)
    vectors = sum(int(one.n_elements) for one in tensors.values() if len(one.shape) == 1)
    # Vectors are priced in 16 bits; llama.cpp keeps them in float32.
    priced = trials["weight_bytes"].to_dict()
    assert priced["q8"] == matrices + 2 * vectors
    assert priced["bf16"] - priced["q8"] == 72_000


def test_a_search_of_a_folder_ends_with_a_file(dse: Dse, tmp_path: Path) -> None:
    space = asked(tmp_path, "{kind: gemm}", Q4, Q8)
    run, out = tmp_path / "run", tmp_path / "out.gguf"
    searched = dse("search", space, "--out", run, "--quiet")
    assert searched.code == 0, searched.err
    done = dse("export", run, "--to", "gguf", "-o", out, "--verify")
    assert done.code == 0, done.err
    assert "tensors, largest difference 0\n" in done.out
    assert f"llama-server -m {out}" in done.out
    types = {tensor.tensor_type.name for tensor in gguf.GGUFReader(out).tensors}
    assert types & {"Q4_K", "Q8_0"}


def test_matrices_of_one_input_have_types_of_their_own(dse: Dse, tmp_path: Path) -> None:
    space = asked(tmp_path, "{role: '[kg]*'}", Q4)
    run, out = tmp_path / "run", tmp_path / "out.gguf"
    space.write_text(f"matrices: apart\n{space.read_text()}")
    searched = dse("search", space, "--out", run, "--quiet")
    assert searched.code == 0, searched.err
    trials = pd.read_csv(run / "trials.csv").set_index("name")
    done = dse(
        "export", run, "--trial", trials.loc["q4", "trial"], "--to", "gguf", "-o", out, "--verify"
    )
    assert done.code == 0, done.err
    types = {one.name: one.tensor_type.name for one in gguf.GGUFReader(out).tensors}
    narrow = {name.split(".")[2] for name, type in types.items() if type == "Q4_K"}
    assert narrow == {"attn_k", "ffn_gate"}
