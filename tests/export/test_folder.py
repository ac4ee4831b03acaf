"""From a Hugging Face folder to a measured front, and from there to folders that load."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
import transformers

from tests.cli.conftest import Dse
from tests.export import folders

SPACE = """
model: tiny
data: {source: tokens.npz, calibration: 4, search: 4, report: 4}
scenario: {phases: {decode: {dims: {batch: 1, sequence: 16}}}}
targets: [{name: server, device: h100-sxm, runtime: vllm}]
candidates:
  - match: {role: head}
    use: [bf16]
  - match: {}
    use:
      - bf16
      - {name: fp8, weight: e4m3_channel, activation: e4m3_token}
      - {name: fp4, weight: "nvfp4:gptq", activation: bf16}
objectives: [quality_loss, weight_bytes]
search: {trials: 4, seed: 0, sensitivity_samples: 4, solver_budgets: 2}
"""


def test_every_trial_of_a_searched_folder_becomes_a_folder_that_loads(
    dse: Dse, tmp_path: Path
) -> None:
    folders.folder("llama", tmp_path / "tiny")
    np.savez(tmp_path / "tokens.npz", input_ids=np.tile(folders.TOKENS, (4, 1)))
    (tmp_path / "space.yaml").write_text(SPACE)
    run = tmp_path / "run"
    assert dse("search", tmp_path / "space.yaml", "--out", run).code == 0
    front = json.loads((run / "front.json").read_text())
    packed = 0
    for number in (entry["trial"] for entry in front):
        out = tmp_path / f"out{number}"
        done = dse("export", run, "--trial", number, "--to", "compressed-tensors", "-o", out,
                   "--verify")  # fmt: skip
        assert done.code == 0, done.err
        assert "outputs, largest difference" in done.out
        assert f"serve it: vllm serve {out}" in done.out.replace("\n", " ")
        network = transformers.LlamaForCausalLM.from_pretrained(out, dtype=torch.bfloat16)
        assert network(torch.from_numpy(folders.TOKENS)).logits.isfinite().all()
        packed += "quantization_config" in json.loads((out / "config.json").read_text())
    assert packed
