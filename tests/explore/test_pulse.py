"""Signs of life in storages that have no heartbeat of their own."""

from __future__ import annotations

import time
from pathlib import Path

import optuna
from optuna.samplers import RandomSampler
from optuna.storages import BaseStorage
from optuna.trial import TrialState

from dse.explore.pulse import Pulse
from dse.explore.storage import shared
from dse.explore.study import own, retry_lost, share_study
from dse.explore.trials import suggested
from tests.explore.synthetic import synthetic_problem

PROBLEM = synthetic_problem(3)
SILENCE_S = 0.4


def begun(storage: BaseStorage) -> tuple[optuna.Study, optuna.Trial, Pulse]:
    """A study with one trial that a process called `first` works on."""
    study = share_study(storage, "study", ["loss", "cost"], identity={}, join=False)
    study.sampler = RandomSampler(seed=0)
    pulse = Pulse(study, storage, silence_s=SILENCE_S)
    trial = study.ask()
    pulse.watch(trial)
    own(trial, "first")
    suggested(trial, PROBLEM)
    return study, trial, pulse


def watched(observer: Pulse, seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        observer.take_over()
        time.sleep(SILENCE_S / 8)


def test_a_trial_is_left_alone_while_its_process_beats_and_taken_over_when_it_stops(
    tmp_path: Path,
) -> None:
    url = str(tmp_path / "shared.log")
    with shared(url) as storage, shared(url) as elsewhere:
        study, trial, pulse = begun(storage)
        joined = share_study(elsewhere, "study", ["loss", "cost"], identity={}, join=True)
        observer = Pulse(joined, elsewhere, silence_s=SILENCE_S)
        with pulse.beating():
            watched(observer, 3 * SILENCE_S)
            assert [t.state for t in joined.trials] == [TrialState.RUNNING]
        watched(observer, 2 * SILENCE_S)
        lost, again = joined.trials
        assert (lost.state, again.state) == (TrialState.FAIL, TrialState.WAITING)
        assert again.params == trial.params
        assert study.ask().number == again.number


def test_a_process_that_comes_back_takes_only_its_own_trials_over(tmp_path: Path) -> None:
    with shared(str(tmp_path / "shared.log")) as storage:
        study, trial, _ = begun(storage)
        retry_lost(study, "second")
        assert [t.state for t in study.trials] == [TrialState.RUNNING]
        retry_lost(study, "first")
        assert [t.state for t in study.trials] == [TrialState.FAIL, TrialState.WAITING]
        assert study.trials[1].params == trial.params
