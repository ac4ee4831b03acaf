"""Trials of the study: measured through the evaluator, and read back as records."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from dse.evaluate.quality import Quality
from dse.explore.records import Record
from dse.explore.session import Session
from dse.explore.study import trial_point
from dse.space.problem import Point

REPORT_ATTRIBUTE = "report."
"""Prefix of the study attributes that hold what was measured on the report split, by digest:
Optuna does not let a finished trial change."""


def measure_trial(
    session: Session, study: optuna.Study, trial: optuna.Trial, point: Point
) -> None:
    """Measure a point on the search split and tell the study.

    A loss that is not finite (an overflow) marks the trial as failed, with the reason.
    """
    evaluator = session.evaluator
    before, started = evaluator.macs, time.monotonic()
    assignment = session.problem.assignment(point)
    quality = evaluator.measure(assignment)
    costs = session.costs.total(point)
    if "source" not in trial.user_attrs:
        trial.set_user_attr("source", "sampler")
    trial.set_user_attr("digest", assignment.digest)
    trial.set_user_attr("quality", _to_json(quality))
    trial.set_user_attr("macs", evaluator.macs - before)
    trial.set_user_attr("seconds", time.monotonic() - started)
    if math.isfinite(quality.loss):
        study.tell(trial, [quality.loss, *(costs[c] for c in session.objectives.costs)])
    else:
        trial.set_user_attr("error", f"quality_loss is {quality.loss}")
        study.tell(trial, state=TrialState.FAIL)


def measure_report(session: Session, study: optuna.Study, record: Record) -> None:
    """Measure a record on the report split and keep it in the study."""
    before = session.evaluator.macs
    quality = session.evaluator.measure(session.problem.assignment(record.point), "report")
    study.set_user_attr(
        f"{REPORT_ATTRIBUTE}{record.digest}",
        {"quality": _to_json(quality), "macs": session.evaluator.macs - before},
    )


def records_of(session: Session, study: optuna.Study) -> list[Record]:
    """Completed trials in order, with their report-split quality where it was measured."""
    trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    reports = study.user_attrs
    return [_record(session, trial, reports) for trial in trials]


def trial_macs(study: optuna.Study) -> dict[str, int]:
    """MACs executed so far: by source of the trials, and under `report`."""
    spent: dict[str, int] = {}
    for trial in study.get_trials(deepcopy=False):
        source = trial.user_attrs.get("source")
        if source is not None:
            spent[source] = spent.get(source, 0) + int(trial.user_attrs.get("macs", 0))
    spent["report"] = sum(
        int(value["macs"])
        for key, value in study.user_attrs.items()
        if key.startswith(REPORT_ATTRIBUTE)
    )
    return spent


def _record(session: Session, trial: FrozenTrial, reports: Mapping[str, Any]) -> Record:
    point = trial_point(trial, session.problem)
    digest = trial.user_attrs["digest"]
    report = reports.get(f"{REPORT_ATTRIBUTE}{digest}")
    return Record(
        trial=trial.number,
        point=point,
        source=trial.user_attrs["source"],
        name=trial.user_attrs.get("name", ""),
        digest=digest,
        search=_from_json(trial.user_attrs["quality"]),
        costs=session.costs.total(point),
        macs=int(trial.user_attrs["macs"]),
        report=_from_json(report["quality"]) if report else None,
    )


def _to_json(quality: Quality) -> dict[str, Any]:
    return {name: getattr(quality, name) for name in Quality.__dataclass_fields__}


def _from_json(content: Mapping[str, Any]) -> Quality:
    return Quality(**{**content, "losses": tuple(content["losses"])})
