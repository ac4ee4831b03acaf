"""Measurements: told to the study, and read back as records."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from dse.evaluate.hurdle import Hurdle
from dse.evaluate.quality import Quality
from dse.explore.measure.executor import Executor, Job, Outcome, outcomes
from dse.explore.problem.design import Design
from dse.explore.problem.records import Elsewhere, Record
from dse.explore.study.outside import outside_measurements, with_measurements
from dse.explore.study.storage import undamaged
from dse.explore.study.study import ERROR, ESTIMATE, trial_point
from dse.graph.ir.assignment import Assignment
from dse.space.problem import Point

REPORT_ATTRIBUTE = "report."
"""Prefix of the study attributes that hold what was measured on the report split, by the digest
of the network: Optuna does not let a finished trial change."""
MEASURED = "measured"
"""Trial attribute: the digest of the network that its quality is of."""
OTHERS = "others"
"""Trial attribute: the qualities of further networks, by digest."""
MEASUREMENT = ("quality", MEASURED, OTHERS)
"""The trial attributes that say what was measured."""


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
        digest = design.problem.assignment(point).digest
        trial.set_user_attr("digest", digest)
        trial.set_user_attr("macs", outcome.macs)
        trial.set_user_attr("seconds", outcome.seconds)
        quality = outcome.quality
        if quality is not None:
            for name, content in measured_attributes(design, point, quality, outcome.others):
                trial.set_user_attr(name, content)
        if error := outcome.error or _not_finite(outcome):
            trial.set_user_attr(ERROR, error)
            study.tell(trial, state=TrialState.FAIL, skip_if_finished=True)
        elif hurdle is not None and quality is not None and quality.samples < len(hurdle.rival):
            trial.set_user_attr(ESTIMATE, hurdle.estimate(quality.losses))
            study.tell(trial, state=TrialState.PRUNED, skip_if_finished=True)
        elif quality is not None:
            known = {design.networks.measured(point).digest: quality, **outcome.others}
            values = objective_values(design, point, known)
            study.tell(trial, values, skip_if_finished=True)


def _not_finite(outcome: Outcome) -> str:
    """Says which loss is no number, if one is."""
    found = [one.loss for one in (outcome.quality, *outcome.others.values()) if one is not None]
    return next((f"quality_loss is {loss}" for loss in found if not math.isfinite(loss)), "")


def measured_attributes(
    design: Design, point: Point, quality: Quality, others: Mapping[str, Quality]
) -> Iterator[tuple[str, Any]]:
    """The attributes of a trial that say what was measured, and of which networks."""
    yield "quality", quality_json(quality)
    measured = design.networks.measured(point).digest
    if measured != design.problem.assignment(point).digest:
        yield MEASURED, measured
    if others:
        yield OTHERS, {digest: quality_json(one) for digest, one in others.items()}


def measured_digest(trial: FrozenTrial) -> str:
    """The digest of the network that a trial's quality is of."""
    return str(trial.user_attrs.get(MEASURED, trial.user_attrs["digest"]))


def measured_qualities(trial: FrozenTrial) -> dict[str, Quality]:
    """Digest of a network -> its quality on the search split, of all that a trial has measured."""
    known = trial.user_attrs
    found = {digest: _from_json(one) for digest, one in known.get(OTHERS, {}).items()}
    return {measured_digest(trial): _from_json(known["quality"]), **found}


def objective_values(design: Design, point: Point, known: Mapping[str, Quality]) -> list[float]:
    """The values that Optuna is told of a point: its losses, then its costs.

    Args:
        design: what is searched.
        point: choice indices.
        known: qualities by the digest of the network; those of the objectives among them.
    """
    labels = (design.networks.primary, *design.objectives.searched)
    found = design.networks.elsewhere(point, labels).values()
    costs = design.total(point)
    return [
        *(known[network.digest].loss for network in found),
        *(costs[column] for column in design.objectives.costs),
    ]


Wanted = tuple[int, Assignment]
"""A trial, and a network that it is about."""


def measure_report(study: optuna.Study, executor: Executor, wanted: Sequence[Wanted]) -> None:
    """Measure networks on the report split and keep what came of it in the study."""
    jobs = [
        Job(key=key, assignment=network, split="report") for key, (_, network) in enumerate(wanted)
    ]
    for outcome in outcomes(executor, jobs):
        trial, network = wanted[outcome.key]
        quality = outcome.quality
        content: dict[str, Any] = {"macs": outcome.macs}
        if quality is None:
            content |= {"error": outcome.error, "trial": trial}
        else:
            content["quality"] = quality_json(quality)
        study.set_user_attr(f"{REPORT_ATTRIBUTE}{network.digest}", content)


def unreported(study: optuna.Study, wanted: Iterable[Wanted]) -> list[Wanted]:
    """The networks that the report split has not seen, successfully or not; each once."""
    known = study.user_attrs
    missing = {
        network.digest: (trial, network)
        for trial, network in wanted
        if f"{REPORT_ATTRIBUTE}{network.digest}" not in known
    }
    return list(missing.values())


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
    point, networks, known = trial_point(trial, design.problem), design.networks, trial.user_attrs
    with undamaged(f"trial {trial.number} of the study", "the attributes of a measured one"):
        searched, own = measured_qualities(trial), measured_digest(trial)
        digest, source, macs = known["digest"], known["source"], int(known["macs"])

    def measured(digest: str) -> Elsewhere:
        report = reports.get(f"{REPORT_ATTRIBUTE}{digest}", {})
        return Elsewhere(
            search=searched.get(digest),
            report=_from_json(report["quality"]) if "quality" in report else None,
            same=digest == own,
        )

    return Record(
        trial=trial.number,
        point=point,
        source=source,
        name=known.get("name", ""),
        digest=digest,
        search=searched[own],
        costs=design.total(point),
        hardware=design.hardware_labels(point),
        macs=macs,
        report=measured(own).report,
        elsewhere={
            label: measured(network.digest)
            for label, network in networks.elsewhere(point, networks.apart).items()
        },
    )


def quality_json(quality: Quality) -> dict[str, Any]:
    """A quality as a trial's attribute."""
    return {name: getattr(quality, name) for name in Quality.__dataclass_fields__}


def _from_json(content: Mapping[str, Any]) -> Quality:
    with undamaged("study", "the fields of a measured quality"):
        return Quality(**{**content, "losses": tuple(content["losses"])})
