"""A Hugging Face folder as Q/DQ: its weights are the checkpoint's own bytes, in 16 bits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from dse.evaluate.setup import build_evaluator
from dse.export import deliver
from dse.model import open_model
from dse.space.schema import Data
from dse.space.uniform import uniform_assignment
from dse.zoo.split import Split, Splits
from tests.export.recipes import recipe_of
from tests.imports import families

TOKENS = {"input_ids": np.arange(32).reshape(2, 16) % 128}


@pytest.mark.parametrize("scheme", ["w8a8_fp8"])
def test_a_checkpoint_of_16_bits_gives_a_valid_model_with_its_values(
    scheme: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = families.save("llama", tmp_path / "llama", dtype=torch.bfloat16)
    model = open_model(str(folder))
    given = {
        name: TOKENS.get(name, np.ones((2, 16), dtype=np.int64)) for name in model.graph.inputs
    }
    split = Split(inputs=given, labels=None, kind="tokens")
    chosen = uniform_assignment(model.analysis.regions, scheme)
    evaluator = build_evaluator(
        model.analysis,
        Data(source="given", calibration=2, search=2, report=2),
        model.analysis.by_key,
        tuple(chosen),
        splits=Splits(calibration=split, search=split, report=split),
    )
    checks = deliver(recipe_of(evaluator, chosen), "onnx-qdq", tmp_path / "q.onnx", verify=True)
    assert checks[1].difference == 0
    assert checks[2].compared == "outputs"
    assert onnx.load(tmp_path / "q.onnx").graph.node
