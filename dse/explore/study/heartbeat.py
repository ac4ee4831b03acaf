"""Signs of life: what tells a slow process from a dead one in a study that several share."""

from __future__ import annotations

import itertools
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import optuna
from optuna.storages import BaseStorage, RDBStorage, fail_stale_trials
from optuna.trial import TrialState

from dse.errors import StorageError
from dse.explore.study.patience import at_once
from dse.explore.study.storage import BEATS, SILENCE_S, retry, translated
from dse.explore.study.study import owner

BEAT = "beat"
"""Trial attribute that counts up while its process lives, where a storage has no heartbeat."""


class Heartbeat:
    """Beats for this process's trials, and takes over those whose process fell silent.

    Databases have Optuna's own heartbeat. Journals (Redis, files) have none: there a counter in
    the trial's attributes stands for it, and a trial is lost when its counter has not moved for
    `silence_s` by the observer's clock, so that clocks of machines need not agree.

    Args:
        study: what is shared.
        storage: where it is kept.
        silence_s: what a trial may be silent for.
        clock: seconds that only grow.
    """

    def __init__(
        self,
        study: optuna.Study,
        storage: BaseStorage,
        *,
        silence_s: float = SILENCE_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._study = study
        self._storage = storage
        self._study_id = storage.get_study_id_from_name(study.study_name)
        self._native = storage if isinstance(storage, RDBStorage) else None
        self._interval = silence_s / BEATS
        self._silence_s = silence_s
        self._count = itertools.count()
        self._mine: dict[int, int] = {}
        self._stop = threading.Event()
        self._seen: dict[int, tuple[object, float]] = {}
        self._clock = clock
        self._looked = clock()

    def watch(self, trial: optuna.Trial) -> None:
        """Beat for a trial from now on."""
        identifier = self._storage.get_trial_id_from_study_id_trial_number(
            self._study_id, trial.number
        )
        self._beat(identifier)
        self._mine[trial.number] = identifier

    def forget(self, trial: optuna.Trial) -> None:
        """A trial is told."""
        self._mine.pop(trial.number, None)

    def take_over(self) -> None:
        """Queue again what silent processes left; looks at most once a beat."""
        if self._clock() - self._looked < self._interval:
            return
        self._looked = self._clock()
        if self._native is not None:
            # Its own trials are no lost ones, however late the last beat is on a busy machine.
            for identifier in list(self._mine.values()):
                self._beat(identifier)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                fail_stale_trials(self._study)
        for number in self._silent():
            trial = self._study.tell(number, state=TrialState.FAIL, skip_if_finished=True)
            if trial.state == TrialState.FAIL and trial.params:
                retry()(self._study, trial)

    @contextmanager
    def beating(self) -> Iterator[None]:
        """Beat in the background meanwhile."""
        thread = threading.Thread(target=self._run, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._stop.set()
            thread.join()

    def _silent(self) -> list[int]:
        """Trials without a sign of life for too long, of those that no native heartbeat covers.

        Beside a native one that is a trial whose process died before its first beat.
        """
        now = self._clock()
        seen: dict[int, tuple[object, float]] = {}
        for trial in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            covered = self._native is not None and owner(trial) is not None
            if trial.number not in self._mine and not covered:
                sign = trial.system_attrs.get(BEAT)
                before = self._seen.get(trial.number)
                seen[trial.number] = before if before and before[0] == sign else (sign, now)
        self._seen = seen
        return [number for number, (_, since) in seen.items() if now - since > self._silence_s]

    def _run(self) -> None:
        while not self._stop.wait(self._interval):
            for identifier in list(self._mine.values()):
                # What is wrong with the storage the main thread will find out, and say.
                with suppress(StorageError, optuna.exceptions.UpdateFinishedTrialError), at_once():
                    self._beat(identifier)

    def _beat(self, identifier: int) -> None:
        with translated(self._study.study_name):
            if self._native is not None:
                self._native.record_heartbeat(identifier)
            else:
                self._storage.set_trial_system_attr(identifier, BEAT, next(self._count))
