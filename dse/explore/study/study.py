"""The Optuna study of a run: in the run folder or shared, safe against sudden ends."""

from __future__ import annotations

import fcntl
import os
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from dse.errors import RunError, nearest
from dse.explore.study.storage import open_journal, retry
from dse.run.folder import check_own, mismatch
from dse.space.problem import Point, Problem

STUDY_NAME = "dse"
PROPOSED = "sampler"
"""The source of a trial that a search method proposed."""
JOURNAL = "study.log"
LOCK = ".lock"
IDENTITY = "dse"
"""Study attribute: version, model and space."""
TABLE = "sensitivity"
"""Study attributes: the sensitivity table in parts, and how many."""
PART = 20_000
"""Characters; MySQL's TEXT holds 65,535 bytes."""
PARTICIPANT = "peer"
"""Trial attribute: the process that asked for it, and the trial's number."""
ERROR = "error"
"""Trial attribute: why a measurement failed."""
RIVAL = "rival"
"""Trial attribute: the number of the trial that its first samples are compared with, or None."""
ESTIMATE = "estimate"
"""Trial attribute of what ended after its first samples: the loss that is expected of all."""


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a run folder for this process; the operating system lets go when the process ends.

    Raises:
        RunError: another process holds it, or something in it is a symbolic link.
    """
    check_own(folder)
    handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    with os.fdopen(handle, "w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunError(f"{folder}: another process is running this search") from None
        yield


def open_study(
    folder: Path, objectives: Sequence[str], sampler: BaseSampler | None = None
) -> optuna.Study:
    """The study of a run folder, created or continued.

    The caller holds the folder's lock. Trials that were in flight are queued again.
    """
    study = optuna.create_study(
        storage=open_journal(folder / JOURNAL),
        sampler=sampler,
        study_name=STUDY_NAME,
        load_if_exists=True,
        directions=["minimize"] * len(objectives),
    )
    _name_metrics(study, objectives)
    retry_lost(study)
    return study


def share_study(
    storage: BaseStorage,
    name: str,
    objectives: Sequence[str],
    *,
    identity: Mapping[str, object],
    join: bool,
) -> optuna.Study:
    """A study in a storage that several processes share: made here, or joined.

    Args:
        storage: where.
        name: of the study.
        objectives: columns that are minimised.
        identity: what all that take part must have in common.
        join: whether it must exist already, or must not.

    Raises:
        RunError: no such study to join, one of that name to make, or it is of another version,
            model or space.
    """
    known = optuna.get_all_study_names(storage)
    if join and name not in known:
        raise RunError(
            f"--join: the storage has no study {name!r}{nearest(name, known)}; begin one without "
            "--join, or name it with --study"
        )
    if not join:
        try:
            study = optuna.create_study(
                storage=storage, study_name=name, directions=["minimize"] * len(objectives)
            )
        except optuna.exceptions.DuplicatedStudyError:
            raise RunError(
                f"--storage: has a study {name!r} already; take part in it with --join, or name "
                "another with --study"
            ) from None
        _name_metrics(study, objectives)
        study.set_user_attr(IDENTITY, dict(identity))
    study = optuna.load_study(storage=storage, study_name=name)
    if other := mismatch(_identity(study), identity):
        raise RunError(
            f"--join: study {name!r} is another search: {other}; name another with --study"
        )
    return study


def publish_table(study: optuna.Study, text: str) -> None:
    """Put a table into a shared study, in parts that every database takes."""
    parts = [text[start : start + PART] for start in range(0, len(text), PART)]
    for number, part in enumerate(parts):
        study.set_user_attr(f"{TABLE}.{number}", part)
    study.set_user_attr(TABLE, len(parts))


def published_table(study: optuna.Study) -> str:
    """The table that another process has put there, or nothing."""
    known = study.user_attrs
    return "".join(known[f"{TABLE}.{number}"] for number in range(known.get(TABLE, 0)))


def retry_lost(study: optuna.Study, participant: str | None = None) -> None:
    """Queue what a process left behind when it died, in the order in which it was asked.

    Args:
        study: where.
        participant: the process; by default whatever is running belonged to it.
    """
    again = retry()
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if participant is None or owner(trial) == participant:
            study.tell(trial.number, state=TrialState.FAIL)
            if trial.params:
                again(study, trial)


def claim(trial: optuna.Trial, participant: str) -> None:
    """Write down which process a trial belongs to."""
    trial.set_user_attr(PARTICIPANT, [participant, trial.number])


def owner(trial: FrozenTrial) -> str | None:
    """The process that a trial belongs to, if it has said so.

    A trial that was queued again brings along what its forerunner's process had said.
    """
    participant, number = trial.user_attrs.get(PARTICIPANT, (None, None))
    return participant if number == trial.number else None


def distributions(problem: Problem) -> dict[str, BaseDistribution]:
    """One categorical a variable, over choice names."""
    return {
        variable.name: CategoricalDistribution([choice.name for choice in variable.choices])
        for variable in problem.variables
    }


def trial_point(trial: FrozenTrial, problem: Problem) -> Point:
    """The point that a trial measured.

    Raises:
        RunError: one of another search.
    """
    return _point(trial, trial.params, problem)


def _point(trial: FrozenTrial, choices: Mapping[str, str], problem: Problem) -> Point:
    try:
        return problem.point(choices)
    except KeyError as error:
        raise RunError(
            f"trial {trial.number} of the study takes variables or choices that the space does "
            f"not have ({error.args[0]!r}): it is another search's, or damaged"
        ) from error


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


def is_settled(trial: FrozenTrial) -> bool:
    """Whether a trial's point needs no further trial: complete, pruned, or failed by itself."""
    return trial.state == TrialState.COMPLETE or is_pruned(trial) or _has_failed(trial)


def is_pruned(trial: FrozenTrial) -> bool:
    """Whether a trial ended after its first samples, and was not given up as a repetition."""
    return trial.state == TrialState.PRUNED and ESTIMATE in trial.user_attrs


def known_loss(trial: FrozenTrial) -> float | None:
    """The first loss of a trial that was measured, in full or in part; None of any other."""
    found = known_losses(trial, 1)
    return None if found is None else found[0]


def known_losses(trial: FrozenTrial, count: int) -> tuple[float, ...] | None:
    """The losses of a trial that was measured, in full or in part; None of any other.

    Args:
        trial: of a study.
        count: how many losses are objectives; only with one do trials end after a first look.
    """
    if trial.state == TrialState.COMPLETE:
        return tuple(trial.values[:count])
    return (float(trial.user_attrs[ESTIMATE]),) if is_pruned(trial) else None


def _has_failed(trial: FrozenTrial) -> bool:
    """Whether it failed for a reason of its own, not with its process."""
    return trial.state == TrialState.FAIL and ERROR in trial.user_attrs


def failed_points(trials: Iterable[FrozenTrial], problem: Problem) -> set[Point]:
    """Points that failed for a reason of their own: another try would fail as well."""
    return {trial_point(trial, problem) for trial in trials if _has_failed(trial)}


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
        if trial.state != TrialState.FAIL or _has_failed(trial):
            named = trial.params or trial.system_attrs.get("fixed_params")
            if named and len(named) == len(problem.variables):
                known.add(_point(trial, named, problem))
    space = distributions(problem)
    for point, source in points.items():
        if point not in known:
            queue(study, problem.named(point), space, source=source, name=names.get(point, ""))


def queue(
    study: optuna.Study,
    choices: Mapping[str, str],
    space: Mapping[str, BaseDistribution],
    *,
    source: str,
    name: str = "",
) -> None:
    """Queue one point with all its parameters.

    A trial that asks a sampler gets its parameters one at a time, and Optuna copies those before
    with each and writes them to the storage alone: thousands take seconds.

    Args:
        study: where to.
        choices: by variable name.
        space: the distribution of every variable.
        source: who proposes it.
        name: of a uniform point.
    """
    study.add_trial(
        optuna.trial.create_trial(
            state=TrialState.WAITING,
            params=dict(choices),
            distributions=dict(space),
            user_attrs={"source": source, "name": name},
        )
    )


def _name_metrics(study: optuna.Study, objectives: Sequence[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study.set_metric_names(list(objectives))


def _identity(study: optuna.Study) -> Mapping[str, object]:
    """The entry of the study's founder, who may have made the study a moment ago."""
    for _ in range(10):
        found = study.user_attrs.get(IDENTITY)
        if isinstance(found, Mapping):
            return found
        time.sleep(0.5)
    raise RunError(f"--join: study {study.study_name!r} was not made by dse; name another")
