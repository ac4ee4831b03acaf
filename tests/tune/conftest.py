"""The command line, and a finished run of a small network."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from dse.explore import run_search
from tests.cli.conftest import dse
from tests.export.recipes import DEPTH, mlp

__all__ = ["dse"]

SPACE = """
model: mlp_float32_17.onnx
data: {source: data.npz, calibration: SAMPLES, search: SAMPLES, report: SAMPLES, batch: 16}
quality: {kind: logits}
scenario: {phases: {one: {dims: {batch: 1}}}}
targets: [{name: free, device: h100-sxm, runtime: free}]
candidates:
  - match: {}
    use:
      - bf16
      - {name: w4a8, weight: int4_channel, activation: "uint8:static"}
      - {name: w3, weight: "int3_channel:gptq", activation: bf16}
      - {name: fp4, weight: nvfp4, activation: nvfp4}
objectives: [quality_loss, weight_bytes]
search: {trials: 6, seed: 0, sensitivity_samples: 8, solver_budgets: 2}
"""


def searched(folder: Path, samples: int) -> Path:
    """The run folder of a search with so many samples a split."""
    mlp(folder)
    x = np.random.default_rng(0).standard_normal((5 * samples, DEPTH)).astype(np.float32)
    np.savez(folder / "data.npz", x=x)
    (folder / "space.yaml").write_text(SPACE.replace("SAMPLES", str(samples)))
    return run_search(folder / "space.yaml", out=folder / "run").folder


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder that no test changes."""
    return searched(tmp_path_factory.mktemp("tune"), 32)


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(finished, tmp_path / "run"))
