"""Trials that end after a first look: which, what they count, and that nothing else changes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import optuna
import pandas as pd
import pytest
from optuna.trial import FrozenTrial, TrialState

from dse.errors import SpaceError
from dse.evaluate.hurdle import first_rows
from dse.evaluate.metric import Run
from dse.explore.loop import run
from dse.explore.measure.parallelism import Parallelism
from dse.explore.measure.session import Session
from dse.explore.problem.progress import Status
from dse.explore.propose import propose
from dse.explore.study.storage import open_journal
from dse.explore.study.study import ESTIMATE, RIVAL, STUDY_NAME, known_loss, trial_point
from dse.explore.tell import tell
from dse.space.load import parse_space
from dse.zoo.split import Split
from tests.explore import metrics
from tests.explore.measure import test_parallelism

SMOKE = Path("spaces/smoke.yaml")
TRIALS, SAMPLES, BATCH, SHARE = 12, 32, 4, 0.5


def session(
    function: Callable[..., object] = metrics.steady, *, share: float | None = SHARE
) -> Session:
    """A small space with random proposals, most of which something cheaper beats."""
    return test_parallelism.session(
        function,
        TRIALS,
        data={"search": SAMPLES, "batch": BATCH},
        search={"sampler": "random", "prune_at": share, "sensitivity_samples": BATCH},
    )


def trials(folder: Path) -> list[FrozenTrial]:
    study = optuna.load_study(study_name=STUDY_NAME, storage=open_journal(folder / "study.log"))
    return study.get_trials()


def pruned(folder: Path) -> list[FrozenTrial]:
    return [trial for trial in trials(folder) if ESTIMATE in trial.user_attrs]


def outcome(folder: Path) -> list[tuple[object, ...]]:
    """What became of every point, in no order."""
    measured = [trial for trial in trials(folder) if known_loss(trial) is not None]
    return sorted((*one.params.values(), one.state.name, known_loss(one)) for one in measured)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "whole"
    run(session(), folder)
    return folder


def test_what_ends_early_is_worse_than_something_cheaper_on_its_first_samples(
    whole: Path,
) -> None:
    known = {trial.number: trial for trial in trials(whole)}
    found, rows = pruned(whole), list(first_rows(SAMPLES, BATCH, SHARE))
    assert found
    prepared = session()
    for trial in found:
        rival = known[trial.user_attrs[RIVAL]]
        point = trial_point(trial, prepared.design.problem)
        assert rival.values[1] <= prepared.design.objective_costs(np.array([point]))[0, 0]
        full = prepared.evaluator.measure(prepared.design.problem.assignment(point))
        part = trial.user_attrs["quality"]["losses"]
        assert part == [full.losses[row] for row in rows]
        assert full.loss > rival.values[0]
        estimate = trial.user_attrs[ESTIMATE]
        assert estimate == pytest.approx(full.loss, rel=0.5)
    assert all(trial.user_attrs["source"] != "uniform" for trial in found)


def test_what_is_measured_in_full_has_the_loss_that_it_has_anyway(whole: Path) -> None:
    prepared = session(share=None)
    complete = [trial for trial in trials(whole) if trial.state == TrialState.COMPLETE]
    for trial in complete:
        assignment = prepared.design.problem.assignment(
            trial_point(trial, prepared.design.problem)
        )
        assert prepared.evaluator.measure(assignment).loss == trial.values[0]


def test_an_early_end_counts_as_the_share_that_it_took(whole: Path) -> None:
    complete = sum(trial.state == TrialState.COMPLETE for trial in trials(whole))
    spent = complete + SHARE * len(pruned(whole))
    assert TRIALS - 1 < spent <= TRIALS
    effort = json.loads((whole / "manifest.json").read_text())
    stages = effort["forward_equivalents"]
    before = sum(stages[stage] for stage in ("calibration", "reference", "sensitivity"))
    trials_spent = sum(stages[stage] for stage in ("uniform", "surrogate", "sampler"))
    assert before < effort["hypervolume"][-1][0] <= before + trials_spent + 1e-9
    macs = {one.number: one.user_attrs["macs"] for one in trials(whole)}
    most = max(macs.values())
    for trial in pruned(whole):
        assert macs[trial.number] < 0.6 * most


def test_tables_tell_what_ended_early_and_where_it_stood(whole: Path) -> None:
    table = pd.read_csv(whole / "pruned.csv")
    assert table.trial.tolist() == [trial.number for trial in pruned(whole)]
    assert (table.samples == SAMPLES * SHARE).all()
    complete = pd.read_csv(whole / "trials.csv").set_index("trial")
    assert (table.estimated_loss.to_numpy() > complete.quality_loss[table.rival].to_numpy()).all()
    assert not set(table.digest) & set(complete.digest)
    found = propose(whole, 3, whole.parent / "next")
    assert not {one.digest for one in found} & set(table.digest)


def test_what_ended_early_can_be_measured_outside(whole: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(whole, tmp_path / "run"))
    row = pd.read_csv(folder / "pruned.csv").iloc[0]
    results = tmp_path / "results.csv"
    results.write_text(f"trial,quality_loss\n{row.trial},0.5\n")
    assert tell(folder, results).new == 1
    found = pd.read_csv(folder / "trials.csv").set_index("digest").loc[row.digest]
    assert (found.source, found.quality_loss) == ("user", 0.5)


def interrupt(status: Status) -> None:
    if status.stage == "trials" and status.done >= TRIALS // 2:
        raise KeyboardInterrupt


def test_a_run_that_was_interrupted_ends_as_it_would_have(whole: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(session(), tmp_path / "run", progress=interrupt)
    run(session(), tmp_path / "run", resume=True)
    assert outcome(tmp_path / "run") == outcome(whole)


def test_two_workers_repeat_themselves_whatever_the_timing_and_when_interrupted(
    tmp_path: Path,
) -> None:
    two = Parallelism(workers=2)
    run(session(metrics.unevenly_steady), tmp_path / "uneven", parallelism=two)
    with pytest.raises(KeyboardInterrupt):
        run(session(), tmp_path / "even", parallelism=two, progress=interrupt)
    run(session(), tmp_path / "even", parallelism=two, resume=True)
    assert pruned(tmp_path / "even")
    assert outcome(tmp_path / "even") == outcome(tmp_path / "uneven")


def mean(run: Run, data: Split) -> float:
    return float(metrics.steady(run, data).mean())


def test_a_metric_without_samples_is_always_measured_in_full(tmp_path: Path) -> None:
    run(session(mean), tmp_path / "run")
    assert not pruned(tmp_path / "run")
    assert not (tmp_path / "run" / "pruned.csv").exists()
    assert len(pd.read_csv(tmp_path / "run" / "trials.csv")) == TRIALS


def test_a_first_look_needs_several_batches() -> None:
    text = SMOKE.read_text().replace("{trials: 10,", "{trials: 10, prune_at: 0.5,")
    with pytest.raises(SpaceError, match=r"prune_at.*data.batch is 32.*less than data.search, 32"):
        parse_space(text, origin="smoke.yaml")
