"""`dse solve`: scores in, an assignment out."""

from __future__ import annotations

import json
from pathlib import Path

from tests.cli.conftest import Dse

SPACE = """\
model: zoo:fashion-resnet
data: {source: zoo:fashion-resnet, calibration: 8, search: 8, report: 8, batch: 8}
scenario: {phases: {call: {dims: {batch: 32}}}}
targets: [{device: h100-sxm, runtime: free}]
candidates: [{use: [bf16, w8a8_int8]}]
search: {trials: 3, sensitivity_samples: 4}
"""


def test_a_run_scores_its_own_model_for_another_budget(dse: Dse, tmp_path: Path) -> None:
    space, run, out = tmp_path / "space.yaml", tmp_path / "run", tmp_path / "assignment.json"
    space.write_text(SPACE)
    assert dse("search", str(space), "--out", str(run), "--quiet").code == 0
    asked = ("solve", str(space), "--constraint", "weight_bytes<=1e6", "-o", str(out))
    by_run = json.loads(dse(*asked, "--scores", str(run), "--json").out)
    assert by_run["weight_bytes"] <= 1e6
    assert by_run["gap"] <= 1e-3
    assert by_run["predicted_loss"] > 0
    assert "int8_channel" in set(json.loads(out.read_text())["sites"].values())
    by_table = dse(*asked, "--scores", str(run / "sensitivity.csv"), "--json")
    assert json.loads(by_table.out)["weight_bytes"] <= 1e6
    nothing = dse("solve", str(space), "--scores", str(run))
    assert nothing.code == 2
    assert "nothing limits a cost" in nothing.err
    manifest = json.loads((run / "manifest.json").read_text())
    (run / "manifest.json").write_text(json.dumps({**manifest, "model_digest": "0" * 64}))
    changed = dse(*asked, "--scores", str(run))
    assert changed.code == 2
    assert "is not the one that was searched" in changed.err
