"""The sensitivity table of a run: read, taken from the shared study, or scored now."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import optuna

from dse.explore.measure.executor import Executor, Job, outcomes
from dse.explore.measure.session import Session
from dse.explore.study.study import publish_table, published_table
from dse.files import write_atomically
from dse.run.files import SENSITIVITY
from dse.sensitivity.score import score
from dse.sensitivity.table import Sensitivity, measure, warn_of_flat

SENSITIVITY_MACS = "sensitivity_macs"
"""Prefix of the study attributes that hold what each process spent on sensitivities."""

Count = Callable[[int, int], None]
"""OutsideMeasurement how many choices are scored, of how many."""


def sensitivity_table(
    session: Session,
    out: Path,
    study: optuna.Study,
    executor: Executor,
    *,
    participant: str,
    shared: bool,
    progress: Count,
) -> Sensitivity:
    """Cost of every choice alone: kept in the run folder, and in a study that others share.

    A process that joins takes the table that it finds there. One that finds none scores itself,
    so that none waits for another.
    """
    path = out / SENSITIVITY
    if path.exists():
        return Sensitivity.read(path)
    table = published_table(study) if shared else ""
    if not table:
        scored, macs = _scored(session, executor, progress)
        warn_of_flat(scored)
        table = scored.to_csv()
        study.set_user_attr(f"{SENSITIVITY_MACS}.{participant}", macs)
        if shared:
            publish_table(study, table)
    write_atomically(path, table)
    return Sensitivity.read(path)


def sensitivity_macs(study: optuna.Study) -> int:
    """Effort of all processes for sensitivities."""
    spent = study.user_attrs.items()
    return sum(int(macs) for key, macs in spent if key.startswith(SENSITIVITY_MACS))


def _scored(session: Session, executor: Executor, progress: Count) -> tuple[Sensitivity, int]:
    """The table and the MACs it took. A user's metric has no gradient: choices are measured."""
    evaluator, search = session.evaluator, session.design.space.search
    if search.sensitivity == "direct" or evaluator.metric is not None:
        return _measured(session, executor, progress)
    before = evaluator.macs
    table = score(
        evaluator,
        session.design.scored,
        search.sensitivity,
        samples=search.sensitivity_samples,
        seed=search.seed,
        progress=progress,
    )
    return table, evaluator.macs - before


def _measured(session: Session, executor: Executor, progress: Count) -> tuple[Sensitivity, int]:
    """Every choice measured alone, by all workers; one that fails counts as an infinite loss."""
    problem, samples = session.design.scored, session.design.space.search.sensitivity_samples
    pairs = [
        (variable, choice)
        for variable, offered in enumerate(problem.variables)
        for choice in range(len(offered.choices))
    ]
    jobs = [
        Job(key=key, assignment=problem.changed(*pair), samples=samples)
        for key, pair in enumerate(pairs)
    ]
    found: dict[tuple[int, int], tuple[float, float, int]] = {}
    macs = 0
    for outcome in outcomes(executor, jobs):
        quality = outcome.quality
        macs += outcome.macs
        found[pairs[outcome.key]] = (
            (math.inf, math.inf, 0)
            if quality is None
            else (quality.loss, quality.stderr, quality.samples)
        )
        progress(len(found), len(jobs))
    return measure(problem, lambda variable, choice: found[variable, choice]), macs
