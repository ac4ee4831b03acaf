"""The main job on the smoke space: what a run folder promises, and what a sudden end costs."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.spatial.distance import pdist

from dse.errors import InfeasibleError, RunError, SpaceError
from dse.evaluate import target_costs
from dse.explore import Overrides, run_search
from dse.explore.problem.design import open_design
from dse.explore.run import parse_targets
from dse.run.read import read_manifest, read_run
from dse.space.load import load_space

SMOKE = Path("spaces/smoke.yaml")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "smoke"
    run_search(SMOKE, out=folder)
    return folder


def _front(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "front.csv")


def test_every_uniform_assignment_is_measured_on_both_splits(finished: Path) -> None:
    trials = pd.read_csv(finished / "trials.csv")
    uniform = trials[trials.source == "uniform"]
    assert set(uniform.name) == {"bf16", "w8a8_fp8", "w4a4_nvfp4"}
    assert uniform.report_quality_loss.notna().all()


def test_no_point_of_the_front_is_dominated_or_worse_than_a_uniform(finished: Path) -> None:
    objectives = json.loads((finished / "manifest.json").read_text())["objectives"]
    front = _front(finished)[objectives].to_numpy()
    for row in front:
        assert not ((front <= row).all(axis=1) & (front < row).any(axis=1)).any()
    trials = pd.read_csv(finished / "trials.csv")
    for _, uniform in trials[trials.source == "uniform"].iterrows():
        for _, point in _front(finished).iterrows():
            if uniform.latency_s <= point.latency_s:
                slack = point.report_quality_stderr + 1e-12
                assert point.report_quality_loss <= uniform.report_quality_loss + slack


def test_speedups_are_ratios_of_latencies_surer_than_the_two_latencies(finished: Path) -> None:
    run = read_run(finished)
    latency = {trial: point.columns["latency_s"] for trial, point in run.by_trial.items()}
    assert {one.trial for one in run.speedups} >= {point.trial for point in run.front}
    for one in run.speedups:
        assert one.speedup == pytest.approx(latency[one.base] / latency[one.trial])
        assert one.low < one.speedup < one.high
    ends = pd.read_csv(finished / "costs.csv").groupby("choice")[["low_s", "high_s"]].sum()
    named = {point.name: point for point in run.uniforms}
    for name in ("w8a8_fp8", "w4a4_nvfp4"):
        found = run.speedup(named[name], named["bf16"], "latency_s")
        assert found is not None
        low, high = (ends.loc[name] + ends.loc["fixed"]).to_numpy()
        slow_low, slow_high = (ends.loc["bf16"] + ends.loc["fixed"]).to_numpy()
        assert found.high / found.low < 0.6 * (slow_high / low) / (slow_low / high)


def test_neighbours_on_the_front_and_its_ties_are_told(finished: Path) -> None:
    run = read_run(finished)
    ordered = sorted(run.front, key=lambda point: point.columns["latency_s"])
    for faster, slower in pairwise(ordered):
        assert run.speedup(faster, slower, "latency_s") is not None
    tied = [(one, other) for one in run.front for other in run.tied(one, "latency_s")]
    assert all((other, one) in tied for one, other in tied)


@pytest.mark.parametrize("runtime", ["free", "onnxruntime"])
def test_errors_are_the_same_however_many_points_are_priced_together(
    runtime: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    targets = parse_targets([f"h100-sxm:{runtime}"])
    space = load_space(SMOKE).model_copy(update={"targets": targets})
    costs = open_design(space, origin=str(SMOKE), folder=SMOKE.parent).costs
    generator = np.random.default_rng(0)
    counts = [len(variable.choices) for variable in costs.problem.variables]
    points = [tuple(int(generator.integers(count)) for count in counts) for _ in range(5)]
    together = pdist(costs.latency_errors(points)["latency_s"])
    monkeypatch.setattr(target_costs, "AT_ONCE", 2)
    assert pdist(costs.latency_errors(points)["latency_s"]) == pytest.approx(together)
    assert together.min() > 0


def test_files_agree_with_each_other(finished: Path) -> None:
    trials = pd.read_csv(finished / "trials.csv").set_index("trial")
    front = _front(finished)
    assignments = json.loads((finished / "front.json").read_text())
    assert [entry["trial"] for entry in assignments] == front.trial.tolist()
    assert (trials.loc[front.trial, "digest"].to_numpy() == front.digest.to_numpy()).all()
    recommended = json.loads((finished / "recommended.json").read_text())
    assert recommended["trial"] in front.trial.tolist()
    choices = pd.read_csv(finished / "choices.csv").set_index("trial")
    costs = pd.read_csv(finished / "costs.csv", keep_default_na=False)
    latencies = trials["latency_s"].to_dict()
    for trial, row in choices.iterrows():
        chosen = costs[
            (costs.choice == "fixed") | (costs.choice == costs.variable.map(row.to_dict()))
        ]
        total = chosen.latency_s.astype(float).sum()
        assert total == pytest.approx(latencies[trial], rel=1e-6)


def test_effort_is_counted_in_forward_equivalents(finished: Path) -> None:
    manifest = json.loads((finished / "manifest.json").read_text())
    effort = manifest["forward_equivalents"]
    assert effort["reference"] == 1.0
    assert effort["uniform"] == pytest.approx(3.0)
    assert 0 < effort["sensitivity"] < 3 * len(manifest["variables"])
    assert effort["total"] == pytest.approx(
        sum(value for key, value in effort.items() if key != "total")
    )
    share = [value for _, value in manifest["hypervolume"]]
    assert share == sorted(share)


def test_a_native_front_holds_nothing_that_is_emulated(tmp_path: Path) -> None:
    run_search(SMOKE, overrides=Overrides(constraints=("native-only",)), out=tmp_path / "run")
    front = _front(tmp_path / "run")
    assert len(front)
    assert (front.native_share == 1).all()
    trials = pd.read_csv(tmp_path / "run" / "trials.csv")
    assert (trials.native_share[trials.source != "uniform"] == 1).all()


def test_the_same_seed_gives_the_same_front(finished: Path, tmp_path: Path) -> None:
    run_search(SMOKE, out=tmp_path / "again")
    pd.testing.assert_frame_equal(_front(finished), _front(tmp_path / "again"))


def test_an_existing_folder_is_not_overwritten(finished: Path) -> None:
    with pytest.raises(RunError, match="--resume"):
        run_search(SMOKE, out=finished)


def test_a_run_of_another_space_cannot_be_resumed(finished: Path) -> None:
    with pytest.raises(RunError, match=r"space differs.*seed: was 0, is 1"):
        run_search(SMOKE, out=finished, resume=True, overrides=Overrides(seed=1))


def test_a_run_of_other_data_cannot_be_resumed(finished: Path, tmp_path: Path) -> None:
    """The file may have the same name: losses on its old and new samples are not one table."""
    folder = Path(shutil.copytree(finished, tmp_path / "other"))
    assert re.fullmatch(r"[0-9a-f]{16}", read_manifest(folder).data_digest)
    path = folder / "manifest.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "data_digest": "0" * 16}))
    with pytest.raises(RunError, match=r"its data hold other samples .*digest 0000000000000000"):
        run_search(SMOKE, out=folder, resume=True)
    del content["data_digest"]  # of a version that took none
    path.write_text(json.dumps(content))
    run_search(SMOKE, out=folder, resume=True)
    pd.testing.assert_frame_equal(_front(finished), _front(folder))


def test_a_run_that_is_not_there_cannot_be_resumed(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"nowhere: no run is there; begin one without --resume"):
        run_search(SMOKE, out=tmp_path / "nowhere", resume=True)
    assert not (tmp_path / "nowhere").exists()


def test_a_finished_run_is_extended_and_knows_its_own_space(
    finished: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(finished, tmp_path / "more"))
    before = (folder / "trials.csv").read_text().splitlines()
    run_search(None, out=folder, resume=True, overrides=Overrides(trials=13))
    after = (folder / "trials.csv").read_text().splitlines()
    assert len(after) == 1 + 13
    assert [line.split(",")[0] for line in after[:11]] == [line.split(",")[0] for line in before]
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["space"]["search"]["trials"] == 13
    assert manifest["status"] == "complete"


def test_a_run_folder_of_before_the_open_methods_is_read_and_resumed(
    finished: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(finished, tmp_path / "old"))
    manifest = json.loads((folder / "manifest.json").read_text())
    search = manifest["space"]["search"]
    search["sampler"] = search.pop("method")
    del search["arguments"], manifest["told"], manifest["unreported"], manifest["updated"]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    front = _front(folder)
    run_search(SMOKE, out=folder, resume=True)
    pd.testing.assert_frame_equal(_front(folder), front)


@pytest.mark.parametrize("trials_before_the_end", [0, 4])
def test_a_killed_run_resumes_and_ends_as_it_would_have(
    finished: Path, tmp_path: Path, trials_before_the_end: int
) -> None:
    folder = tmp_path / "killed"
    _kill_after(folder, trials_before_the_end)
    before = _completed(folder)
    run_search(SMOKE, out=folder, resume=True)
    assert _completed(folder)[: len(before)] == before
    columns = [c for c in _front(folder).columns if c != "trial"]
    pd.testing.assert_frame_equal(_front(finished)[columns], _front(folder)[columns])


@pytest.mark.parametrize(
    ("overrides", "error", "says"),
    [
        (Overrides(objectives=("quality_loss", "latancy_s")), SpaceError, "latency_s"),
        (Overrides(objectives=("latency_s", "quality_loss")), SpaceError, "quality_loss"),
        (Overrides(constraints=("weight_byte<=3",)), SpaceError, "weight_bytes"),
        (Overrides(constraints=("weight_bytes<3",)), SpaceError, "<="),
        (Overrides(constraints=("weight_bytes<=3",)), InfeasibleError, "least that any"),
        (
            Overrides(constraints=("native-only", "weight_bytes<=6e5")),
            InfeasibleError,
            r"native_share>=1, weight_bytes<=600000: each can hold.*nearest has .* relax",
        ),
    ],
)
def test_wrong_objectives_and_constraints_are_refused_before_anything_is_written(
    tmp_path: Path, overrides: Overrides, error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        run_search(SMOKE, out=tmp_path / "run", overrides=overrides)
    assert not (tmp_path / "run").exists()


def test_constraints_hold_on_the_front(finished: Path, tmp_path: Path) -> None:
    weights = pd.read_csv(finished / "trials.csv").weight_bytes
    limit = float(np.quantile(weights, 0.4))
    run_search(
        SMOKE, out=tmp_path / "run", overrides=Overrides(constraints=(f"weight_bytes<={limit}",))
    )
    front = _front(tmp_path / "run")
    assert len(front)
    assert (front.weight_bytes <= limit).all()


def _kill_after(folder: Path, trials: int) -> None:
    """Run the search in a process that is killed as soon as it has that many trials."""
    code = (
        "import os, signal\n"
        "from pathlib import Path\n"
        "from dse.explore import run_search\n"
        "def watch(status):\n"
        f"    if status.stage == 'trials' and status.done >= {trials}:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        f"run_search({str(SMOKE)!r}, out=Path({str(folder)!r}), progress=watch)\n"
    )
    killed = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not (folder / "front.csv").exists()


def _completed(folder: Path) -> list[str]:
    """Digests of the completed trials in the journal, in order."""
    lines = (folder / "study.log").read_text().splitlines()
    digests: dict[int, str] = {}
    done: list[int] = []
    for line in lines:
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            continue
        if "digest" in record.get("user_attr", {}):
            digests[record["trial_id"]] = record["user_attr"]["digest"]
        if record.get("state") == 1 and "trial_id" in record:
            done.append(record["trial_id"])
    return [digests[trial] for trial in done]
