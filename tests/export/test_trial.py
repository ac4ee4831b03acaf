"""`dse export` of a finished run: what it writes is what the run measured."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pandas as pd
import pytest
import tokenizers
from torch import Tensor

from dse.errors import RunError
from dse.explore import run_search
from dse.export import EXPORTERS, export_trial
from dse.export.trial import calibration_feeds
from dse.zoo.data import splits
from tests.export import folders
from tests.text import toy

SPACE = """
# May weights go to 4 bits?
model: zoo:fashion-resnet
data: {source: zoo:fashion-resnet, calibration: 8, search: 8, report: 8, batch: 8}
scenario: {phases: {frame: {dims: {batch: 1}}}}
targets: [{name: free, device: h100-sxm, runtime: free}]
candidates:
  - match: {name: "blocks.5/*"}
    use: [bf16, POSIT]
  - match: {}
    use:
      - {name: w8a8, weight: int8_channel, activation: "uint8:static"}
      - {name: w4a8, weight: "int4_channel:gptq", activation: "uint8:static"}
ties:
  - {match: {name: "blocks.[01234]/*"}, name: early}
  - {match: {name: "blocks.5/*"}, name: late}
objectives: [quality_loss, weight_bytes]
search: {trials: 6, seed: 0, sensitivity_samples: 8, solver_budgets: 2}
"""


def run_of(folder: Path, other: str) -> Path:
    path = folder / "space.yaml"
    path.write_text(SPACE.replace("POSIT", other))
    return run_search(path, out=folder / "run").folder


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_of(tmp_path_factory.mktemp("export"), "fp16")


def trials(folder: Path) -> list[int]:
    return [entry["trial"] for entry in json.loads((folder / "front.json").read_text())]


def divergence(path: Path, reference: Path) -> float:
    """Of a model's outputs on the report images, under ONNX Runtime."""
    images = splits("fashion-resnet", limits={"report": 8}).report.inputs["image"]
    logs = []
    for model in (reference, path):
        options = onnxruntime.SessionOptions()
        level = onnxruntime.GraphOptimizationLevel
        options.graph_optimization_level = level.ORT_DISABLE_ALL
        session = onnxruntime.InferenceSession(str(model), options, ["CPUExecutionProvider"])
        logits = session.run(None, {"image": images.astype(np.float32)})[0].astype(np.float64)
        logs.append(logits - np.log(np.exp(logits).sum(-1, keepdims=True)))
    return float((np.exp(logs[0]) * (logs[0] - logs[1])).sum(-1).mean())


def test_every_exported_trial_loses_what_the_run_measured(finished, tmp_path):
    front = pd.read_csv(finished / "front.csv").set_index("trial")
    reference = Path("dse/zoo/fashion-resnet/model.onnx")
    for trial in trials(finished):
        path = tmp_path / f"{trial}.onnx"
        assert export_trial(finished, trial=trial, target="onnx-qdq", out=path).trial == trial
        expected = front.loc[trial, "report_quality_loss"]
        assert divergence(path, reference) == pytest.approx(expected, rel=0.05, abs=1e-6)


def test_the_recommended_trial_is_the_default(finished, tmp_path):
    recommended = json.loads((finished / "recommended.json").read_text())
    out = tmp_path / "recipe.json"
    done = export_trial(finished, trial=None, target="recipe", out=out)
    assert done.trial == recommended["trial"]
    written = json.loads(out.read_text())
    assert written["sites"] == recommended["assignment"]["sites"]
    assert written["model"] == recommended["assignment"]["model"]


def test_verification_runs_on_samples_of_the_run(finished, tmp_path):
    done = export_trial(
        finished, trial=None, target="onnx-qdq", out=tmp_path / "q.onnx", verify=True
    )
    found = {check.checker.split()[0]: check for check in done.checks}
    assert found["onnx"].difference == 0
    assert found["ONNX"].compared == "outputs"


def test_the_command_says_what_it_wrote(dse, finished, tmp_path):
    out = tmp_path / "recipe.json"
    trial = trials(finished)[0]
    outcome = dse("export", finished, "--trial", trial, "--to", "recipe", "--out", out)
    assert (outcome.code, outcome.out.split()[1], outcome.out.splitlines()[-1]) == (
        0, str(trial), str(out)
    )  # fmt: skip


def test_a_trial_off_the_front_is_refused_with_those_on_it(finished, tmp_path):
    with pytest.raises(RunError, match="trial 999 is not on the front") as refused:
        export_trial(finished, trial=999, target="recipe", out=tmp_path / "x.json")
    assert all(str(trial) in str(refused.value) for trial in trials(finished))


def test_a_run_of_another_model_is_refused(finished, tmp_path):
    changed = tmp_path / "run"
    changed.mkdir()
    for name in ("front.json", "recommended.json"):
        (changed / name).write_text((finished / name).read_text())
    manifest = json.loads((finished / "manifest.json").read_text())
    (changed / "manifest.json").write_text(json.dumps({**manifest, "model_digest": "other"}))
    with pytest.raises(RunError, match="another"):
        export_trial(changed, trial=None, target="onnx-qdq", out=tmp_path / "x.onnx")


def test_what_was_learned_must_be_in_the_run(finished, tmp_path):
    states = finished / "state" / "weights.safetensors"
    kept = states.read_bytes()
    learned = next(
        entry["trial"]
        for entry in json.loads((finished / "front.json").read_text())
        if "gptq" in json.dumps(entry)
    )
    states.unlink()
    try:
        with pytest.raises(RunError, match="does not hold what calibration learned"):
            export_trial(finished, trial=learned, target="onnx-qdq", out=tmp_path / "x.onnx")
    finally:
        states.write_bytes(kept)


def test_a_format_without_an_onnx_type_is_refused(dse, tmp_path):
    run = run_of(tmp_path, "posit8_1")
    choices = pd.read_csv(run / "choices.csv").set_index("trial")
    trial = next(number for number in trials(run) if choices.loc[number, "late"] == "posit8_1")
    before = sorted(tmp_path.rglob("*"))
    refused = dse("export", run, "--trial", trial, "--to", "onnx-qdq", "-o", tmp_path / "x" / "y")
    assert refused.code == 2
    assert "posit8_1_tensor:static at blocks.5" in refused.err
    assert sorted(tmp_path.rglob("*")) == before
    done = dse("export", run, "--trial", trial, "--to", "recipe", "-o", tmp_path / "r", "--verify")
    assert done.code == 0
    assert "emulated only, no runtime has them: posit8_1" in done.out


def test_an_unknown_target_is_refused_with_the_nearest(dse, finished, tmp_path):
    outcome = dse("export", finished, "--to", "onnx-qqd", "-o", tmp_path / "x")
    assert outcome.code == 2
    assert "did you mean 'onnx-qdq'" in outcome.err


def test_help_names_every_target(dse):
    shown = dse("export", "--help").out
    assert all(name in shown for name in EXPORTERS)


TEXTS = """
model: tiny
data: {source: told.txt, sequence: 16, calibration: 2, search: 2, report: 2}
scenario: {phases: {one: {dims: {batch: 1, sequence: 16}}}}
targets: [{name: server, device: h100-sxm, runtime: vllm}]
candidates:
  - {match: {role: down}, use: [bf16, {name: fp8, weight: e4m3_channel, activation: e4m3_token}]}
  - {match: {}, use: [bf16]}
objectives: [quality_loss, weight_bytes]
search: {trials: 2, seed: 0, sensitivity_samples: 2, solver_budgets: 2}
"""


def test_a_text_is_read_by_the_models_tokenizer_for_checks_and_calibration(tmp_path: Path) -> None:
    model = folders.folder("llama", tmp_path / "tiny", num_hidden_layers=1)
    toy.save(model)
    text = toy.TEXT * 8
    (tmp_path / "told.txt").write_text(text)
    (tmp_path / "space.yaml").write_text(TEXTS)
    run = run_search(tmp_path / "space.yaml", out=tmp_path / "run").folder

    read = tokenizers.Tokenizer.from_file(str(model / "tokenizer.json"))
    (feeds,) = calibration_feeds(run)()
    tokens = feeds["input_ids"]
    assert isinstance(tokens, Tensor)
    assert tokens.shape == (2, 16)
    assert all(read.decode(row) in text for row in tokens.tolist())

    trial = max(trials(run))
    done = export_trial(
        run, trial=trial, target="compressed-tensors", out=tmp_path / "out", verify=True
    )
    assert "outputs" in [check.compared for check in done.checks]
