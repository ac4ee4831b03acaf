"""A run made with relative paths, used from another folder than it was made in."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx.parser
import pytest

from tests.cli.conftest import Dse

TEXT = """<ir_version: 8, opset_import: ["" : 17]>
g (float[n, 16] x) => (float[n, 16] y) { y = MatMul(x, w) }"""


def test_a_run_is_used_from_another_folder(
    dse: Dse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = np.random.default_rng(0).normal(size=(16, 16)).astype(np.float32)
    model = onnx.parser.parse_model(TEXT)
    model.graph.initializer.append(onnx.numpy_helper.from_array(weights, "w"))
    onnx.save(model, tmp_path / "m.onnx")
    np.savez(tmp_path / "d.npz", x=np.ones((48, 16), np.float32) * np.arange(48)[:, None])
    monkeypatch.chdir(tmp_path)
    assert dse("init", "--device", "gpu", "-o", "chip.yaml").code == 0
    searched = ("--data", "d.npz", "--device", "chip.yaml", "--trials", "2", "--out", "runs/a")
    assert dse("search", "m.onnx", *searched).code == 0
    beside = json.loads((tmp_path / "runs/a/manifest.json").read_text())["beside"]
    assert beside == "../..", "where the folder is, whatever the machine's own paths"

    other = tmp_path / "other"
    other.mkdir()
    monkeypatch.chdir(other)
    for name, run in (("a", "../runs/a"), ("b", tmp_path / "runs/a")):
        found = dse("export", run, "--to", "onnx-qdq", "-o", f"{name}.onnx")
        assert found.code == 0, found.err
        found = dse("annotate", run, "-o", f"{name}-annotated.onnx")
        assert found.code == 0, found.err
    found = dse("search", "--out", "../runs/a", "--resume", "--trials", "3")
    assert found.code == 0, found.err

    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs/a").rename(tmp_path / "moved")
    found = dse("annotate", "moved", "-o", "z.onnx")
    assert found.code == 0, "a run that was moved finds its files where it is called from"
