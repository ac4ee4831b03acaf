"""The Optuna study of a run: journal storage in the run folder, safe against sudden ends."""

from __future__ import annotations

import fcntl
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import optuna
from optuna.distributions import CategoricalDistribution
from optuna.samplers import BaseSampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial, TrialState

from dse.errors import RunError
from dse.space.problem import Point, Problem

STUDY_NAME = "dse"
JOURNAL = "study.log"
LOCK = ".lock"
ERROR = "error"
"""Trial attribute: why a measurement failed."""


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a run folder for this process; the operating system lets go when the process ends.

    Raises:
        RunError: another process holds it.
    """
    with (folder / LOCK).open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunError(f"{folder}: another process is running this search") from None
        yield


def open_study(folder: Path, objectives: Sequence[str], sampler: BaseSampler) -> optuna.Study:
    """The study of a run folder, created or continued.

    The caller holds the folder's lock. What a killed process can leave is repaired first: a torn
    last line of the journal is cut off, the journal's own lock is removed, and the trial that was
    in flight is marked as failed.
    """
    journal = (folder / JOURNAL).absolute()
    _cut_torn_line(journal)
    # The backend makes its lock beside the file, and finds a stale one by absolute path only.
    Path(f"{journal}.lock").unlink(missing_ok=True)
    storage = JournalStorage(
        JournalFileBackend(str(journal), lock_obj=JournalFileOpenLock(str(journal)))
    )
    study = optuna.create_study(
        storage=storage,
        sampler=sampler,
        study_name=STUDY_NAME,
        load_if_exists=True,
        directions=["minimize"] * len(objectives),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study.set_metric_names(list(objectives))
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL)
    return study


def distributions(problem: Problem) -> dict[str, CategoricalDistribution]:
    """One categorical a variable, over choice names."""
    return {
        variable.name: CategoricalDistribution([choice.name for choice in variable.choices])
        for variable in problem.variables
    }


def trial_point(trial: FrozenTrial, problem: Problem) -> Point:
    """The point that a trial measured."""
    return problem.point(trial.params)


def running_points(
    trials: Iterable[FrozenTrial], problem: Problem, *, but: int | None = None
) -> set[Point]:
    """Points that are being measured, apart from the trial of that number."""
    return {
        trial_point(trial, problem)
        for trial in trials
        if trial.state == TrialState.RUNNING
        and trial.number != but
        and len(trial.params) == len(problem.variables)
    }


def failed_points(trials: Iterable[FrozenTrial], problem: Problem) -> set[Point]:
    """Points that failed for a reason of their own: another try would fail as well."""
    return {
        trial_point(trial, problem)
        for trial in trials
        if trial.state == TrialState.FAIL and ERROR in trial.user_attrs
    }


def enqueue(
    study: optuna.Study,
    problem: Problem,
    points: Mapping[Point, str],
    *,
    names: Mapping[Point, str],
) -> None:
    """Queue points that the study has not seen.

    Args:
        study: where to.
        problem: the decision variables.
        points: point -> source (`uniform`, `surrogate`).
        names: scheme names of the uniform points.
    """
    known = set()
    for trial in study.get_trials(deepcopy=False):
        if trial.state == TrialState.COMPLETE:
            known.add(trial_point(trial, problem))
        elif trial.state == TrialState.WAITING:
            known.add(problem.point(trial.system_attrs["fixed_params"]))
    for point, source in points.items():
        if point not in known:
            params = {
                variable.name: name
                for variable, name in zip(problem.variables, problem.choices(point), strict=True)
            }
            attributes = {"source": source, "name": names.get(point, "")}
            study.enqueue_trial(params, user_attrs=attributes)


def _cut_torn_line(journal: Path) -> None:
    """Drop what follows the last line end: a line that was being written when the process died."""
    if not journal.exists():
        return
    content = journal.read_bytes()
    if content and not content.endswith(b"\n"):
        with journal.open("r+b") as stream:
            stream.truncate(content.rfind(b"\n") + 1)
