"""Measurements: told to the study, and read back as records."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from dse.evaluate.hurdle import Hurdle
from dse.evaluate.quality import Quality
from dse.explore.measure.executor import Executor, Job, Outcome, outcomes
from dse.explore.problem.design import Design
from dse.explore.problem.records import Record
from dse.explore.study.outside import outside_measurements, with_measurements
from dse.explore.study.study import ERROR, ESTIMATE, trial_point
from dse.space.problem import Point

REPORT_ATTRIBUTE = "report."
"""Prefix of the study attributes that hold what was measured on the report split, by digest:
Optuna does not let a finished trial change."""


def tell(
    design: Design,
    study: optuna.Study,
    trial: optuna.Trial,
    point: Point,
    outcome: Outcome,
    *,
    hurdle: Hurdle | None = None,
) -> None:
    """Tell the study what came of a trial on the search split.

    A measurement that failed, and a loss that is not finite (an overflow), mark the trial as
    failed, with the reason; one that has not cleared its hurdle as pruned. What another process
    has told meanwhile, which had taken this one for dead, is left as it is.
    """
    with suppress(optuna.exceptions.UpdateFinishedTrialError):
        trial.set_user_attr("digest", design.problem.assignment(point).digest)
        trial.set_user_attr("macs", outcome.macs)
        trial.set_user_attr("seconds", outcome.seconds)
        quality = outcome.quality
        if quality is not None:
            trial.set_user_attr("quality", quality_json(quality))
        if quality is None or not math.isfinite(quality.loss):
            loss = "" if quality is None else f"quality_loss is {quality.loss}"
            trial.set_user_attr(ERROR, outcome.error or loss)
            study.tell(trial, state=TrialState.FAIL, skip_if_finished=True)
        elif hurdle is not None and quality.samples < len(hurdle.rival):
            trial.set_user_attr(ESTIMATE, hurdle.estimate(quality.losses))
            study.tell(trial, state=TrialState.PRUNED, skip_if_finished=True)
        else:
            costs = design.total(point)
            values = [quality.loss, *(costs[column] for column in design.objectives.costs)]
            study.tell(trial, values, skip_if_finished=True)


def measure_report(
    design: Design, study: optuna.Study, executor: Executor, records: Sequence[Record]
) -> None:
    """Measure records on the report split and keep what came of it in the study."""
    digests = {record.trial: record.digest for record in records}
    jobs = [
        Job(key=one.trial, assignment=design.problem.assignment(one.point), split="report")
        for one in records
    ]
    for outcome in outcomes(executor, jobs):
        quality = outcome.quality
        content: dict[str, Any] = {"macs": outcome.macs}
        if quality is None:
            content |= {"error": outcome.error, "trial": outcome.key}
        else:
            content["quality"] = quality_json(quality)
        study.set_user_attr(f"{REPORT_ATTRIBUTE}{digests[outcome.key]}", content)


def reported(study: optuna.Study, record: Record) -> bool:
    """Whether a record was measured on the report split, successfully or not."""
    return f"{REPORT_ATTRIBUTE}{record.digest}" in study.user_attrs


def records_of(design: Design, study: optuna.Study) -> list[Record]:
    """Completed trials in order, with their report-split quality where it was measured.

    What users measured outside and told stands in place of what was measured or predicted here.
    """
    trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    reports = study.user_attrs
    records = [_record(design, trial, reports) for trial in trials]
    return with_measurements(records, outside_measurements(reports, design.problem))


def failures_of(study: optuna.Study) -> dict[int, str]:
    """Trial -> why it failed, for a reason of its own; those lost with a process are retried."""
    failed = {
        trial.number: str(trial.user_attrs[ERROR])
        for trial in study.get_trials(deepcopy=False, states=(TrialState.FAIL,))
        if ERROR in trial.user_attrs
    }
    reports = {
        int(content["trial"]): f"report split: {content['error']}"
        for key, content in study.user_attrs.items()
        if key.startswith(REPORT_ATTRIBUTE) and "error" in content
    }
    return dict(sorted((failed | reports).items()))


def trial_macs(study: optuna.Study) -> dict[int, int]:
    """Trial -> MACs that were executed for it on the search split."""
    return {
        trial.number: int(trial.user_attrs.get("macs", 0))
        for trial in study.get_trials(deepcopy=False)
        if trial.state.is_finished()
    }


def stage_macs(study: optuna.Study) -> dict[str, int]:
    """MACs executed so far: by source of the trials, and under `report`."""
    spent: dict[str, int] = {}
    macs = trial_macs(study)
    for trial in study.get_trials(deepcopy=False):
        source = trial.user_attrs.get("source")
        if source is not None and trial.number in macs:
            spent[source] = spent.get(source, 0) + macs[trial.number]
    spent["report"] = sum(
        int(value["macs"])
        for key, value in study.user_attrs.items()
        if key.startswith(REPORT_ATTRIBUTE)
    )
    return spent


def _record(design: Design, trial: FrozenTrial, reports: Mapping[str, Any]) -> Record:
    point = trial_point(trial, design.problem)
    digest = trial.user_attrs["digest"]
    report = reports.get(f"{REPORT_ATTRIBUTE}{digest}")
    return Record(
        trial=trial.number,
        point=point,
        source=trial.user_attrs["source"],
        name=trial.user_attrs.get("name", ""),
        digest=digest,
        search=_from_json(trial.user_attrs["quality"]),
        costs=design.total(point),
        macs=int(trial.user_attrs["macs"]),
        report=_from_json(report["quality"]) if report and "quality" in report else None,
    )


def quality_json(quality: Quality) -> dict[str, Any]:
    """A quality as a trial's attribute."""
    return {name: getattr(quality, name) for name in Quality.__dataclass_fields__}


def _from_json(content: Mapping[str, Any]) -> Quality:
    return Quality(**{**content, "losses": tuple(content["losses"])})
