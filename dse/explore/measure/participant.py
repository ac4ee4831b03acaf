"""This process as one of those that take part in a study."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import optuna
from optuna.storages import BaseStorage

from dse.explore.measure.executor import Executor
from dse.explore.measure.parallelism import Parallelism, participant_name, started
from dse.explore.measure.session import Session
from dse.explore.study.storage import translated
from dse.explore.study.study import open_study, retry_lost, share_study


@dataclass(frozen=True, slots=True, kw_only=True)
class Participant:
    """The means by which a process takes part."""

    study: optuna.Study
    storage: BaseStorage | None
    """Of a study that others share; None where it is in the run folder."""
    executor: Executor
    """Who measures for it."""
    name: str
    silence_s: int
    """The longest silence of others."""


@contextmanager
def taking_part(
    session: Session,
    out: Path,
    parallelism: Parallelism,
    storage: BaseStorage | None,
    *,
    identity: Mapping[str, object],
    resume: bool,
) -> Iterator[Participant]:
    """The participant with its workers started and its study open; they are stopped at the end.

    Args:
        session: what is searched.
        out: the run folder, locked.
        parallelism: who takes part.
        storage: of a shared study.
        identity: what all that share it have in common.
        resume: whether the run was begun before.

    Raises:
        RunError: no such study to join, one of that name to make, or it is another search's.
        StorageError: the storage or the disk fails, here or while the participant works.
    """
    objectives = session.design.objectives.names
    with (
        translated(parallelism.storage or str(out)),
        started(session.evaluator, parallelism) as executor,
    ):
        name = participant_name(out)
        title = parallelism.title(session.design.origin)
        if storage is None or title is None:
            study = open_study(out, objectives)
        else:
            begun = resume and title in optuna.get_all_study_names(storage)
            study = share_study(
                storage, title, objectives, identity=identity, join=parallelism.join or begun
            )
            retry_lost(study, name)
        yield Participant(
            study=study,
            storage=storage,
            executor=executor,
            name=name,
            silence_s=parallelism.silence_s,
        )
