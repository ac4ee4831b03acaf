"""Targets that execute one assignment as different networks: each has its own loss."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pandas as pd
import pytest
from rich.console import Console

from dse.errors import RunError, SpaceError
from dse.explore import Overrides, run_search
from dse.explore.problem.design import open_design
from dse.explore.propose import propose
from dse.explore.reprice import reprice
from dse.explore.tell import tell
from dse.report.answer import answer, caveats
from dse.report.console import print_front
from dse.report.figures.pareto import staircase
from dse.report.html import write_report
from dse.report.table import front_table
from dse.run.read import read_manifest, read_run
from dse.space.load import load_space
from tests.bench import outputs

MODEL = """
<ir_version: 8, opset_import: ["" : 17]>
net (float[batch, 64] x) => (float[batch, 64] logits) {
  a = MatMul(x, w1)
  b = Relu(a)
  c = MatMul(b, w2)
  d = Relu(c)
  logits = MatMul(d, w3)
}
"""
SHAPES = {"w1": (64, 64), "w2": (64, 64), "w3": (64, 64)}
SPACE = """
model: m.onnx
data: {{source: d.npz, calibration: 4, search: 16, report: 16}}
quality: {{kind: logits}}
scenario: {{phases: {{call: {{share: 1, dims: {{batch: 16}}}}}}}}
targets: [{targets}]
candidates: [{{match: {{}}, use: [bf16, w8a8_fp8_dynamic, w4a16]}}]
objectives: [quality_loss, {objective}]
constraints: [{constraints}]
search: {{trials: {trials}, seed: 0}}
"""
H100 = "{name: h100, device: h100-sxm, runtime: vllm}"
A100 = "{name: a100, device: a100-sxm-80gb, runtime: vllm}"
"""Has no FP8: vLLM runs the weights with 16-bit activations."""

FP8 = 1
"""The choice that they run otherwise."""

Spaces = Callable[..., Path]


@pytest.fixture(scope="module")
def spaces(tmp_path_factory: pytest.TempPathFactory) -> Spaces:
    folder = tmp_path_factory.mktemp("spaces")
    rng = np.random.default_rng(0)
    model = onnx.parser.parse_model(MODEL)
    for name, shape in SHAPES.items():
        weight = rng.normal(size=shape).astype(np.float32) / 8
        model.graph.initializer.append(onnx.numpy_helper.from_array(weight, name))
    onnx.save(model, folder / "m.onnx")
    np.savez(folder / "d.npz", x=rng.normal(size=(40, 64)).astype(np.float32))

    def space(
        name: str,
        *targets: str,
        objective: str = "latency_s",
        constraints: str = "",
        trials: int = 8,
    ) -> Path:
        path = folder / f"{name}.yaml"
        text = SPACE.format(
            targets=", ".join(targets), objective=objective, constraints=constraints, trials=trials
        )
        path.write_text(text, encoding="utf-8")
        return path

    return space


@pytest.fixture(scope="module")
def runs(spaces: Spaces, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Each target alone, both, and both with a cost of one of them as the objective."""
    out = tmp_path_factory.mktemp("runs")
    run_search(spaces("h100", H100), out=out / "h100")
    run_search(spaces("a100", A100), out=out / "a100")
    run_search(spaces("both", H100, A100), out=out / "both")
    run_search(spaces("first", H100, A100, objective="h100.latency_s"), out=out / "first")
    run_search(spaces("second", H100, A100, objective="a100.latency_s"), out=out / "second")
    return out


def _trials(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "trials.csv")


def _uniform(folder: Path, column: str) -> dict[str, float]:
    trials = _trials(folder)
    found = trials[trials.source == "uniform"].set_index("name")[column]
    return {str(name): float(value) for name, value in found.items()}


def test_each_target_loses_what_it_loses_alone(runs: Path) -> None:
    h100 = _uniform(runs / "h100", "report_quality_loss")
    a100 = _uniform(runs / "a100", "report_quality_loss")
    assert h100["w8a8_fp8_dynamic"] > a100["w8a8_fp8_dynamic"]
    for run, first, other in (("both", h100, a100), ("first", h100, a100), ("second", a100, h100)):
        label = "h100" if run == "second" else "a100"
        assert _uniform(runs / run, "report_quality_loss") == first
        assert _uniform(runs / run, f"{label}.report_quality_loss") == other


def test_a_loss_of_every_target_in_the_objectives_is_measured_while_searching(runs: Path) -> None:
    trials = _trials(runs / "both")
    assert trials["a100.quality_loss"].notna().all()
    same = pd.read_csv(runs / "both" / "choices.csv").drop(columns="trial") != "w8a8_fp8_dynamic"
    equal = trials["a100.quality_loss"] == trials.quality_loss
    assert (equal == same.all(axis=1)).all()
    assert 0 < equal.sum() < len(trials)
    objectives = json.loads((runs / "both" / "manifest.json").read_text())["objectives"]
    assert objectives[:2] == ["report_quality_loss", "a100.report_quality_loss"]


def test_a_target_without_an_objective_is_measured_for_the_front_and_the_uniforms(
    runs: Path,
) -> None:
    trials = _trials(runs / "first")
    front = pd.read_csv(runs / "first" / "front.csv")
    assert front["a100.report_quality_loss"].notna().all()
    known = trials["a100.quality_loss"] == trials.quality_loss
    assert (trials["a100.quality_loss"].isna() | known).all()
    assert trials["a100.quality_loss"].isna().any()


def test_the_front_of_a_target_is_one_of_its_own_loss(runs: Path) -> None:
    fronts = pd.read_csv(runs / "both" / "fronts.csv")
    for label, loss in (("h100", "report_quality_loss"), ("a100", "a100.report_quality_loss")):
        own = fronts[fronts.front == label][[loss, f"{label}.latency_s"]].to_numpy()
        for row in own:
            assert not ((own <= row).all(axis=1) & (own < row).any(axis=1)).any()


def test_digests_and_exports_are_of_what_is_asked_for(
    runs: Path, spaces: Spaces, tmp_path: Path
) -> None:
    digests = [_trials(runs / name).set_index("trial").digest for name in ("first", "second")]
    assert set(digests[0][:3]) == set(digests[1][:3])
    # Narrow weights are fewer bytes on every device, whether they are faster or not.
    run_search(spaces("bytes", A100, H100, objective="weight_bytes"), out=tmp_path / "bytes")
    front = json.loads((tmp_path / "bytes" / "front.json").read_text())
    named = json.dumps([entry["assignment"]["sites"] for entry in front])
    assert "e4m3" in named
    choices = pd.read_csv(tmp_path / "bytes" / "choices.csv").set_index("trial")
    for entry in front:
        wanted = "w8a8_fp8_dynamic" in choices.loc[entry["trial"]].to_list()
        sites = {k: v for k, v in entry["assignment"]["sites"].items() if k.endswith("/in0")}
        assert ("e4m3" in json.dumps(sites)) is wanted


def test_a_run_that_is_continued_measures_nothing_twice(runs: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(runs / "both", tmp_path / "both"))
    (folder / "trials.csv").unlink()
    run_search(None, out=folder, resume=True)
    assert (folder / "trials.csv").read_text() == (runs / "both" / "trials.csv").read_text()


def test_a_run_that_is_extended_knows_both_losses(runs: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(runs / "both", tmp_path / "both"))
    run_search(None, overrides=Overrides(trials=10), out=folder, resume=True)
    assert _trials(folder)["a100.quality_loss"].notna().sum() == 10


def test_measurements_of_one_network_are_taken_over_wherever_it_runs(
    runs: Path, tmp_path: Path
) -> None:
    targets = tuple(f"{device}:vllm" for device in ("h100-sxm", "a100-sxm-80gb"))
    old = _trials(runs / "both")
    reprice(runs / "both", overrides=Overrides(targets=targets), out=tmp_path / "same")
    found = _trials(tmp_path / "same")
    assert found.quality_loss.tolist() == old.quality_loss.tolist()
    column = "a100-sxm-80gb.report_quality_loss"
    assert found[column].dropna().tolist() == old["a100.report_quality_loss"].dropna().tolist()
    reprice(runs / "both", overrides=Overrides(targets=targets[1:]), out=tmp_path / "other")
    assert _trials(tmp_path / "other").quality_loss.tolist() == old["a100.quality_loss"].tolist()


def test_what_losses_are_is_taken_over_with_them(runs: Path, tmp_path: Path) -> None:
    """Without it an error in shares of a spread was named one in shares of a norm."""
    reprice(runs / "h100", overrides=Overrides(targets=("b200-sxm:vllm",)), out=tmp_path / "new")
    old, new = (read_manifest(run) for run in (runs / "h100", tmp_path / "new"))
    assert old.loss_unit
    assert old.outputs
    assert old.constant_loss is not None
    for name in ("loss_unit", "outputs", "constant_loss", "constant_flip_rate", "ranges"):
        assert getattr(new, name) == getattr(old, name)


def test_what_a_new_target_runs_otherwise_is_left_out_and_counted(
    runs: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    overrides = Overrides(targets=("h100-sxm:vllm", "a100-sxm-80gb:vllm"))
    reprice(runs / "h100", overrides=overrides, out=tmp_path / "new")
    kept = pd.read_csv(tmp_path / "new" / "choices.csv").drop(columns="trial")
    assert not (kept == "w8a8_fp8_dynamic").any(axis=None)
    assert "are left out" in caplog.text


def test_proposals_predict_a_loss_a_network_and_take_both_back(runs: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(runs / "both", tmp_path / "both"))
    found = propose(folder, 3, tmp_path / "next")
    differs = [
        one for one in found if one.losses["quality_loss"] != one.losses["a100.quality_loss"]
    ]
    assert differs
    results = tmp_path / "results.csv"
    results.write_text(f"digest,quality_loss\n{differs[0].digest},0.5\n")
    with pytest.raises(RunError, match=r"a100\.quality_loss"):
        tell(folder, results)
    results.write_text(f"digest,quality_loss,a100.quality_loss\n{differs[0].digest},0.5,0.25\n")
    assert tell(folder, results).new == 1
    row = _trials(folder).set_index("digest").loc[differs[0].digest]
    assert (row.quality_loss, row["a100.quality_loss"]) == (0.5, 0.25)


def test_losses_of_both_networks_may_be_told_one_after_the_other(
    runs: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(runs / "both", tmp_path / "both"))
    first, second, *_ = (
        one.digest for one in propose(folder, 6, tmp_path / "next") if FP8 in one.point
    )
    results = tmp_path / "results.csv"
    results.write_text(f"digest,a100.quality_loss\n{first},0.25\n")
    assert tell(folder, results).new == 0
    results.write_text(f"digest,quality_loss\n{first},0.5\n")
    assert tell(folder, results).new == 1
    tools = tmp_path / "tools"
    outputs.llama_perplexity(tools / second, 7.0, 0.1, " 0.5 ± 0.001", base=6.9)
    lesson = tell(folder, tools, target="h100")
    assert lesson.new == 0
    assert any(f"{second}: quality_loss without a100.quality_loss" in r for r in lesson.remarks)
    outputs.llama_perplexity(tools / second, 7.0, 0.1, " 0.25 ± 0.001", base=6.9)
    lesson = tell(folder, tools, target="a100")
    assert lesson.new == 1
    trials = _trials(folder).set_index("digest").loc[[first, second]]
    assert trials.quality_loss.tolist() == [0.5, 0.5]
    assert trials["a100.quality_loss"].tolist() == [0.25, 0.25]


def test_a_bound_on_the_loss_holds_on_every_target(spaces: Spaces, tmp_path: Path) -> None:
    path = spaces("bounded", H100, A100, constraints='"quality_loss<=1e9"')
    design = open_design(load_space(path), origin="s.yaml", folder=path.parent)
    assert [one.column for one in design.constraints] == ["quality_loss", "a100.quality_loss"]
    path = spaces(
        "refused", H100, A100, objective="h100.latency_s", constraints='"a100.quality_loss<=1"'
    )
    with pytest.raises(SpaceError, match="make a cost of a100 an objective"):
        open_design(load_space(path), origin="s.yaml", folder=path.parent)


def test_targets_that_run_the_same_network_share_a_loss(spaces: Spaces) -> None:
    path = spaces("three", H100, A100, "{name: l4, device: l4, runtime: vllm}")
    design = open_design(load_space(path), origin="s.yaml", folder=path.parent)
    assert design.objectives.losses == ("quality_loss", "a100.quality_loss")
    assert design.networks.apart == ("a100",)
    assert design.objectives.place("l4.latency_s") == 0
    assert design.objectives.place("a100.latency_s") == 1


def test_the_report_puts_each_loss_beside_its_costs(runs: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(runs / "both", tmp_path / "both"))
    run = read_run(folder)
    headings = front_table(run).headings
    assert headings.index("a100 loss") + 1 == headings.index("a100 latency")
    assert "h100 loss" in headings
    assert "On a100 the same" in answer(run) or "another network" in answer(run)
    assert any("a100 has no kernel for w8a8_fp8_dynamic" in one for one in caveats(run))
    steps = staircase(run.points, "a100.latency_s", owner="a100")
    losses = [point.columns["a100.report_quality_loss"] for point in steps if point.on_report]
    assert losses == sorted(losses, reverse=True)
    assert "quality loss on a100" in write_report(folder).read_text()
    stream = io.StringIO()
    print_front(folder, Console(file=stream, width=60))
    assert "…" not in stream.getvalue()


def test_fp32_without_a_kernel_loses_what_bf16_loses_there(spaces: Spaces, tmp_path: Path) -> None:
    eager = "{name: eager, device: h100-sxm, runtime: torch-eager}"
    path = spaces("wide", eager, "{name: vllm, device: h100-sxm, runtime: vllm}", trials=3)
    text = path.read_text().replace("[bf16, w8a8_fp8_dynamic, w4a16]", "[bf16, fp32]")
    path.write_text(text)
    run_search(path, out=tmp_path / "run")
    here = _uniform(tmp_path / "run", "report_quality_loss")
    there = _uniform(tmp_path / "run", "vllm.report_quality_loss")
    assert here["fp32"] == 0 < here["bf16"] == there["bf16"] == there["fp32"]
    found = read_run(tmp_path / "run")
    (said,) = (one for one in caveats(found) if "no kernel" in one)
    assert said == (
        "vllm has no kernel for fp32 and runs bf16 in its place: "
        "what vllm loses is in vllm.quality_loss."
    )


def test_the_report_says_what_no_target_runs_as_asked(spaces: Spaces, tmp_path: Path) -> None:
    path = spaces("narrow", A100, trials=3)
    text = path.read_text().replace("w4a16]", "fp32]")
    path.write_text(text)
    run_search(path, out=tmp_path / "run")
    losses = _uniform(tmp_path / "run", "report_quality_loss")
    assert losses["fp32"] == losses["bf16"]
    said = (
        "a100 has no kernel for w8a8_fp8_dynamic and runs those weights with 16-bit "
        "activations, nor for fp32 and runs bf16 in its place: losses and costs are of that."
    )
    assert said in caveats(read_run(tmp_path / "run"))
