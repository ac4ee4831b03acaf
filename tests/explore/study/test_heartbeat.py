"""Signs of life in storages that have no heartbeat of their own."""

from __future__ import annotations

from pathlib import Path

import optuna
from optuna.samplers import RandomSampler
from optuna.storages import BaseStorage
from optuna.trial import TrialState

from dse.explore.measure.trials import suggested
from dse.explore.study.heartbeat import BEAT, Heartbeat
from dse.explore.study.storage import shared
from dse.explore.study.study import claim, retry_lost, share_study
from tests.explore.measure.test_parallelism import wait_until
from tests.explore.synthetic import synthetic_problem

PROBLEM = synthetic_problem(3)
SILENCE_S = 0.4


def begun(storage: BaseStorage) -> tuple[optuna.Study, optuna.Trial, Heartbeat]:
    """A study with one trial that a process called `first` works on."""
    study = share_study(storage, "study", ["loss", "cost"], identity={}, join=False)
    study.sampler = RandomSampler(seed=0)
    heartbeat = Heartbeat(study, storage, silence_s=SILENCE_S)
    trial = study.ask()
    heartbeat.watch(trial)
    claim(trial, "first")
    suggested(trial, PROBLEM)
    return study, trial, heartbeat


class Clock:
    """Stands still until it is put forward."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_trial_is_left_alone_while_its_process_beats_and_taken_over_when_it_stops(
    tmp_path: Path,
) -> None:
    url, clock = str(tmp_path / "shared.log"), Clock()
    with shared(url) as storage, shared(url) as elsewhere:
        study, trial, heartbeat = begun(storage)
        joined = share_study(elsewhere, "study", ["loss", "cost"], identity={}, join=True)
        observer = Heartbeat(joined, elsewhere, silence_s=SILENCE_S, clock=clock)

        def states_after(seconds: float) -> list[TrialState]:
            clock.now += seconds
            observer.take_over()
            return [found.state for found in joined.trials]

        def beats() -> int:
            return int(joined.trials[0].system_attrs[BEAT])

        with heartbeat.beating():
            assert states_after(0.9 * SILENCE_S) == [TrialState.RUNNING]
            before = beats()
            wait_until(lambda: beats() > before)
            assert states_after(0.9 * SILENCE_S) == [TrialState.RUNNING]
        last = states_after(0.9 * SILENCE_S)  # it may have beaten once more before it stopped
        assert last == [TrialState.RUNNING]
        assert states_after(1.1 * SILENCE_S) == [TrialState.FAIL, TrialState.WAITING]
        again = joined.trials[1]
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
