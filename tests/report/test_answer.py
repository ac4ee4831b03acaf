from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from dse.report.answer import answer, caveats
from dse.report.quantities.baseline import gain, rivals
from dse.run.read import read_run
from dse.run.search_run import SearchRun


@pytest.fixture
def trials(finished: Path) -> pd.DataFrame:
    return pd.read_csv(finished / "trials.csv", index_col="trial")


def test_the_baseline_is_the_cheapest_uniform_of_no_greater_loss(
    run: SearchRun, trials: pd.DataFrame
) -> None:
    assert run.recommended is not None
    found = gain(run, run.recommended, "b200.latency_s")
    own = trials.loc[run.recommended.trial]
    uniform = trials[trials["source"] == "uniform"]
    error = (uniform["report_quality_stderr"] ** 2 + own["report_quality_stderr"] ** 2) ** 0.5
    fair = uniform[uniform["report_quality_loss"] <= own["report_quality_loss"] + 2 * error]
    assert found is not None
    assert found.baseline.trial == fair["b200.latency_s"].idxmin()
    assert found.factor == pytest.approx(fair["b200.latency_s"].min() / own["b200.latency_s"])


def test_a_point_is_no_rival_of_itself(run: SearchRun) -> None:
    for uniform in run.uniforms:
        assert uniform.trial not in {rival.trial for rival in rivals(run, uniform)}


def test_the_answer_counts_formats_and_quotes_gains(run: SearchRun, trials: pd.DataFrame) -> None:
    point = run.recommended
    assert point is not None
    text = answer(run)
    counts = pd.Series(run.choices[point.trial]).value_counts()
    whole = trials[trials["name"] == "bf16"]["b200.latency_s"].iloc[0]
    hopper = trials[trials["name"] == "w8a8_fp8_dynamic"]["h100.latency_s"].iloc[0]
    own = trials.loc[point.trial, "b200.latency_s"]
    assert text.startswith("On b200-sxm under vllm, ")
    assert f"{counts.iloc[0]} of 24 GEMM groups run in {counts.index[0]}" in text
    assert f"{whole / own:.2f}× faster than bf16" in text
    assert f"{hopper / own:.2f}× faster than w8a8_fp8_dynamic on h100" in text


def test_a_run_without_recommendation_says_so(folder: Path) -> None:
    (folder / "recommended.json").unlink()
    assert "has not recommended one" in answer(read_run(folder))


def test_where_each_region_has_one_choice_the_answer_says_so(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = read_run(folder)  # of its own: the shared one keeps what it computed
    monkeypatch.setattr(SearchRun, "searched", ())
    said = "On b200-sxm under vllm, every region takes its only choice at a loss of"
    assert answer(run).startswith(said)


def test_proxy_accuracy_and_unvalidated_devices_are_said(run: SearchRun) -> None:
    text = " ".join(caveats(run))
    assert "accuracy of byte-gpt, cost shape of llama-3-8b" in text
    assert "b200 and h100 are predictions, not validated against silicon" in text


def test_weights_that_were_quantised_before_are_said(folder: Path) -> None:
    path = folder / "manifest.json"
    content = json.loads(path.read_text())
    content["model"]["weights_note"] = "weights were quantised to 4 bits before"
    path.write_text(json.dumps(content))
    assert any("quantised to 4 bits before" in note for note in caveats(read_run(folder)))


def test_without_a_distribution_the_loss_is_no_divergence(folder: Path) -> None:
    assert "nats per position" in answer(read_run(folder))
    table = pd.read_csv(folder / "trials.csv").drop(columns="flip_rate")
    table.to_csv(folder / "trials.csv", index=False)
    text = answer(read_run(folder))
    assert "of the output's norm" in text
    assert "nats" not in text


def test_the_outputs_that_losses_are_read_from_are_said(folder: Path) -> None:
    path = folder / "manifest.json"
    content = json.loads(path.read_text())
    content["outputs"] = [
        {"name": "p", "value": "z", "kind": "logits", "title": "p: logits (before its Softmax)"}
    ]
    content["loss_unit"] = "of the reference's spread"
    path.write_text(json.dumps(content))
    run = read_run(folder)
    assert "Loss is read from p: logits (before its Softmax)." in caveats(run)
    assert "of the reference's spread" in answer(run)


@pytest.mark.parametrize(
    ("constant", "said"),
    [(1e-9, "Every point of the front is destroyed"), (50.0, ""), (0.05, "points of the front")],
)
def test_a_front_of_ruins_says_so(folder: Path, constant: float, said: str) -> None:
    path = folder / "manifest.json"
    content = json.loads(path.read_text())
    content["constant_loss"] = constant
    path.write_text(json.dumps(content))
    front = pd.read_csv(folder / "front.csv")
    front[front["report_quality_loss"] > 0].to_csv(folder / "front.csv", index=False)
    found = [text for text in caveats(read_run(folder)) if "destroyed" in text]
    assert len(found) == bool(said)
    assert said in "".join(found)


def test_without_bf16_the_uniform_that_loses_least_is_the_reference(folder: Path) -> None:
    table = pd.read_csv(folder / "trials.csv")
    table = table[(table["source"] != "reference") & (table["name"] != "bf16")]
    table.to_csv(folder / "trials.csv", index=False)
    run = read_run(folder)
    uniform = table[table["source"] == "uniform"].set_index("name")
    assert run.reference is not None
    assert run.reference.name == uniform["report_quality_loss"].idxmin()
    assert f"faster than {run.reference.name}" in answer(run)


@pytest.mark.parametrize(("share", "said"), [(0.8, True), (0.9999, False)])
def test_the_cheapest_uniform_is_told_of_only_where_it_is_faster(
    folder: Path, share: float, said: bool
) -> None:
    run = read_run(folder)
    assert run.recommended is not None
    table = pd.read_csv(folder / "trials.csv", index_col="trial")
    own = table.loc[run.recommended.trial, ["b200.latency_s", "report_quality_loss"]]
    uniform = table.index[table["name"] == "w4a4_mxfp4"][0]
    table.loc[table["source"] == "uniform", "b200.latency_s"] = 3 * own["b200.latency_s"]
    table.loc[uniform, "b200.latency_s"] = share * own["b200.latency_s"]
    table.loc[uniform, "report_quality_loss"] = 9 * own["report_quality_loss"]
    table.to_csv(folder / "trials.csv")
    text = answer(read_run(folder))
    assert ("everywhere would be 1.25× faster still, at 9.0 times the loss" in text) == said
    assert ("still" in text) == said
