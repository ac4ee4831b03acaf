"""`dse tune`: a trial of a finished run, distilled, kept and exported."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pandas as pd
import pytest
import torch
from onnx import helper, numpy_helper

from dse.errors import RunError
from dse.evaluate.setup import build_evaluator
from dse.execute.operators.step import Quantize
from dse.execute.quantizers import bound, with_emulators
from dse.export import export_trial
from dse.export.trial import RecipeSource, chosen_trial, recipe_of
from dse.graph.assignment_json import from_json
from dse.graph.ir.assignment import Assignment
from dse.model import open_model
from dse.numerics import load_states
from dse.run import files
from dse.run.entries import TunedTrial, TuningSettings
from dse.space.schema import Data
from dse.tune.distillation import Distillation
from dse.tune.learner import learners_of
from dse.tune.operand import operands_of
from dse.tune.tune import Start, tune_trial
from dse.zoo.split import Split, Splits
from hwmodels.formats import catalog
from tests.cli.conftest import Dse
from tests.tune.conftest import searched


def trial_of(run: Path, scheme: str) -> int:
    """The trial with one scheme everywhere."""
    front = pd.read_csv(run / "front.csv")
    (trial,) = front["trial"][front["name"] == scheme]
    return int(trial)


def settings(run: Path, scheme: str, **changes: object) -> TuningSettings:
    given = TuningSettings(
        trial=trial_of(run, scheme), learn="weights", steps=12, rate=1e-2, rank=2, seed=0
    )
    return given.model_copy(update=changes)


def start_of(run: Path, scheme: str) -> Start:
    chosen = chosen_trial(run, trial_of(run, scheme))
    source = RecipeSource.of(run)
    assignment = from_json(json.dumps(chosen.assignment), source.model.graph, catalog.quantizer)
    return Start.of(run, assignment, source)


def divergence(model: Path, reference: Path, x: np.ndarray) -> float:
    """Mean of KL over rows, of what ONNX Runtime computes without rewriting the graph."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    logs = []
    for path in (reference, model):
        session = onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])
        logits = session.run(None, {"x": x})[0].astype(np.float64)
        logs.append(logits - np.log(np.exp(logits).sum(-1, keepdims=True)))
    return float((np.exp(logs[0]) * (logs[0] - logs[1])).sum(-1).mean())


@pytest.mark.parametrize("learn", ["weights", "low-rank", "scales"])
def test_a_tuned_trial_loses_less_on_what_it_was_tuned_on(finished: Path, learn: str) -> None:
    start = start_of(finished, "w3")
    training = start.distillation(settings(finished, "w3", learn=learn, steps=40, rate=3e-3))
    before = start.evaluator.measure_bound(start.bound, "search").loss
    while not training.done:
        training.advance()
    learned = with_emulators(start.bound, training.learned())
    assert start.evaluator.measure_bound(learned, "search").loss < before


def test_tuned_weights_lose_less_on_data_that_they_were_not_tuned_on(tmp_path: Path) -> None:
    run = searched(tmp_path, 256)
    done = tune_trial(run, settings(run, "w3", steps=150, rate=3e-3))
    measured = pd.read_csv(run / "front.csv").set_index("name").loc["w3"]
    assert done.before == pytest.approx(measured["report_quality_loss"])
    assert done.before_stderr == pytest.approx(measured["report_quality_stderr"])
    assert done.recovered > 2 * done.recovered_stderr
    assert done.recovered == pytest.approx(done.before - done.after)
    kept = json.loads(files.tuned_record(run, done.settings.trial).read_text())
    assert TunedTrial.model_validate(kept) == done


def test_what_is_exported_loses_under_onnx_runtime_what_the_record_says(
    run: Path, finished: Path, tmp_path: Path
) -> None:
    done = tune_trial(run, settings(run, "w4a8", steps=30))
    out = tmp_path / "tuned.onnx"
    trial = done.settings.trial
    export_trial(run, trial=trial, target="onnx-qdq", out=out, verify=True, tuned=True)
    x = start_of(run, "w4a8").evaluator.splits.report.inputs["x"]
    reference = finished.parent / "mlp_float32_17.onnx"
    assert divergence(out, reference, x) == pytest.approx(done.after, rel=1e-3)
    plain = tmp_path / "plain.onnx"
    export_trial(run, trial=trial, target="onnx-qdq", out=plain)
    assert divergence(plain, reference, x) == pytest.approx(done.before, rel=1e-3)


@pytest.mark.parametrize("scheme", ["w4a8", "w3", "fp4"])
@pytest.mark.parametrize("learn", ["weights", "low-rank"])
def test_before_the_first_step_it_is_the_recipe(finished: Path, scheme: str, learn: str) -> None:
    start = start_of(finished, scheme)
    x = torch.from_numpy(start.evaluator.splits.report.inputs["x"])
    operands = operands_of(start.bound, start.sites, start.evaluator.program)
    assert len(operands) == (4 if scheme == "w4a8" else 2)
    learners = learners_of(operands, learn, rank=2, seed=0)  # type: ignore[arg-type]
    standing = [(key, one) for one in learners for key in one.operand.sites]
    learned: dict[str, Quantize] = {key: one.learned() for key, one in standing}
    learning: dict[str, Quantize] = {**dict(standing)}
    for quantizers in ({**start.bound, **learned}, {**start.bound, **learning}):
        found = start.evaluator.program.run({"x": x}, quantizers).outputs
        expected = start.evaluator.program.run({"x": x}, start.bound).outputs
        assert torch.equal(found["y"].detach(), expected["y"])


def test_low_rank_changes_have_the_rank_and_weights_stay_where_scales_are_learned(
    finished: Path,
) -> None:
    start = start_of(finished, "w4a8")
    for learn, rank in (("low-rank", 2), ("scales", 0)):
        training = start.distillation(settings(finished, "w4a8", learn=learn))
        for _ in range(5):
            training.advance()
        for one in training.learners:
            if one.start is not None:
                change = one._latent(one.start).detach() - one.start
                assert torch.linalg.matrix_rank(change.flatten(1)) == rank
            assert one.growth is not None
            assert one.growth.detach().abs().max() > 0


def test_an_interrupted_tuning_goes_on_to_the_same_end(
    run: Path,
) -> None:
    wanted = settings(run, "w4a8")
    whole = tune_trial(run, wanted)
    states = files.tuned_states(run, wanted.trial)
    expected = load_states(states)

    def stop(step: int, loss: float) -> None:
        if step == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tune_trial(run, wanted, replace=True, listener=stop)
    assert files.tuning_checkpoint(run, wanted.trial).exists()
    with pytest.raises(RunError, match="steps: was begun with 12, expected 13"):
        tune_trial(run, wanted.model_copy(update={"steps": 13}), resume=True)
    steps: list[int] = []
    again = tune_trial(run, wanted, resume=True, listener=lambda step, _: steps.append(step))
    assert steps == list(range(6, 13))
    assert again.digest == whole.digest
    assert load_states(states).keys() == expected.keys()
    assert not files.tuning_checkpoint(run, wanted.trial).exists()


def test_the_command_prints_losses_and_its_export_takes_them(
    dse: Dse, run: Path, tmp_path: Path
) -> None:
    trial = trial_of(run, "w4a8")
    done = dse("tune", run, "--trial", trial, "--steps", 10, "--rate", 1e-2)
    assert done.code == 0
    assert all(word in done.out for word in ("before", "after", "recovered", "a minute"))
    record = json.loads(files.tuned_record(run, trial).read_text())
    (after,) = [line.split()[1] for line in done.out.splitlines() if line.startswith("after")]
    assert float(after) == pytest.approx(record["after"], rel=1e-3)
    out = tmp_path / "q.onnx"
    written = dse("export", run, "--trial", trial, "--tuned", "--to", "onnx-qdq", "-o", out,
                  "--verify")  # fmt: skip
    assert written.code == 0
    assert f"trial {trial}, tuned, as onnx-qdq" in written.out
    assert "outputs, largest difference" in written.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--trial", "999"), "trial 999 is not on the front"),
        (("bf16",), "nothing is quantized to fewer than 16 bits"),
        (("fp4", "--learn", "scales"), "no scale of its formats is a float of 16 bits or more"),
        (("w3", "--resume"), "there is nothing to go on with"),
        (("w3", "--resume", "--replace"), "give one"),
        (("w3", "--samples", "4000"), "calibration 4000"),
        (("w3", "--rate", "-1"), "expected a finite number above 0"),
    ],
)
def test_what_cannot_be_tuned_is_refused_in_one_message(
    dse: Dse, finished: Path, arguments: tuple[str, ...], message: str
) -> None:
    if not arguments[0].startswith("-"):
        arguments = ("--trial", str(trial_of(finished, arguments[0])), *arguments[1:])
    refused = dse("tune", finished, *arguments)
    assert refused.code == 2
    assert message in refused.err.replace("\n", " ")
    assert "Traceback" not in refused.err


def test_data_that_have_changed_since_the_search_are_refused(dse: Dse, run: Path) -> None:
    """Else it would be tuned on, and both losses would be those of, other samples than the run."""
    path = run / "manifest.json"
    content = json.loads(path.read_text())
    assert content["data_digest"]
    path.write_text(json.dumps({**content, "data_digest": "0" * 16}))
    for more in ((), ("--samples", "40")):
        refused = dse("tune", run, "--trial", trial_of(run, "w3"), "--steps", 1, *more)
        assert refused.code == 2
        assert "holds other samples than the run measured with" in refused.err.replace("\n", " ")
    del content["data_digest"]  # of a version that took none
    path.write_text(json.dumps(content))
    assert dse("tune", run, "--trial", trial_of(run, "w3"), "--steps", 1).code == 0


def test_what_is_there_is_not_done_again_unasked(dse: Dse, run: Path) -> None:
    line = ("tune", run, "--trial", trial_of(run, "w3"), "--steps", 1)
    assert dse(*line).code == 0
    refused = dse(*line)
    assert refused.code == 2
    assert "--replace does it again" in refused.err
    assert dse(*line, "--replace").code == 0


def test_an_unfinished_run_and_an_untuned_trial_are_refused(
    dse: Dse, run: Path, tmp_path: Path
) -> None:
    refused = dse("export", run, "--trial", trial_of(run, "w3"), "--tuned", "--to", "recipe",
                  "-o", tmp_path / "x")  # fmt: skip
    assert refused.code == 2
    assert "the trial was not tuned; tune it with: dse tune" in refused.err.replace("\n", " ")
    (run / "front.json").unlink()
    assert "the run is not finished" in dse("tune", run, "--trial", 1).err
    assert "not a run folder" in dse("tune", tmp_path, "--trial", 1).err


def test_torn_states_are_refused(run: Path) -> None:
    wanted = settings(run, "w3", steps=1)
    tune_trial(run, wanted)
    record = files.tuned_record(run, wanted.trial)
    record.write_text(record.read_text().replace('"digest": "', '"digest": "0'))
    with pytest.raises(RunError, match="is not what"):
        recipe_of(run, wanted.trial, tuned=True)


def network(folder: Path, *, last: str) -> Path:
    """x @ w, then an operator."""
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((32, 8)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "w"], ["h"], name="product"),
            helper.make_node(last, ["h"], ["y"], name="last"),
        ],
        "net",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["batch", 32])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["batch", 8])],
        [numpy_helper.from_array(weight, "w")],
    )
    path = folder / "net.onnx"
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)
    return path


def test_a_graph_without_gradients_says_so(tmp_path: Path) -> None:
    model = open_model(str(network(tmp_path, last="Round")))
    assignment = Assignment.of({"product/in1": catalog.quantizer("int3_channel")})
    x = np.random.default_rng(1).standard_normal((8, 32)).astype(np.float32)
    split = Split(inputs={"x": x}, labels=None, kind="images")
    evaluator = build_evaluator(
        model.analysis,
        Data(source="given", calibration=8, search=8, report=8),
        model.analysis.by_key,
        tuple(assignment),
        splits=Splits(calibration=split, search=split, report=split),
    )
    standing = bound(assignment, evaluator.sites, evaluator.calibration, evaluator.weights)
    operands = operands_of(standing, evaluator.sites, evaluator.program)
    training = Distillation(
        evaluator=evaluator, bound=standing, data=split, steps=1, rate=1e-3, seed=0,
        learners=learners_of(operands, "weights", rank=1, seed=0),
    )  # fmt: skip
    with pytest.raises(RunError, match="no gradient reaches what is to be learned"):
        training.advance()


def test_matrices_with_one_scale_keep_one(finished: Path) -> None:
    start = start_of(finished, "w4a8")
    first, *others = [
        one
        for one in operands_of(start.bound, start.sites, start.evaluator.program)
        if one.weight is not None
    ]
    shared = replace(first.emulator, state=first.state)
    pair = [replace(one, emulator=shared, state=first.state) for one in (first, first)]
    left, right = learners_of(pair, "weights", rank=1, seed=0)
    assert left.growth is right.growth
    apart = learners_of([first, *others], "weights", rank=1, seed=0)
    assert apart[0].growth is not apart[1].growth
