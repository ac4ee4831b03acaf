"""A search's results as the tables of its run folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dse.execute.weights.calibrate import save_calibration
from dse.explore.measure.pruning import PRUNED_COLUMNS, Pruned
from dse.explore.measure.session import Session
from dse.explore.problem.design import Design
from dse.explore.problem.fronts import front_places, robust
from dse.explore.problem.records import (
    DETAIL_COLUMNS,
    QUALITY_COLUMNS,
    SCORE,
    Record,
    elsewhere_columns,
)
from dse.explore.problem.selection import tied_with_uniform
from dse.explore.recommend import recommend
from dse.explore.speedups import point_speedups
from dse.graph.assignment_json import to_json
from dse.run import write as run_writer
from dse.run.entries import FrontAssignment, Recommendation, RegionCost
from dse.run.files import STATE


def write_results(
    out: Path, session: Session, records: Sequence[Record], front: Sequence[Record]
) -> None:
    """Write every table of a finished search, and the calibrated scales."""
    save_calibration(session.evaluator.calibration, out / STATE)
    session.evaluator.weights.save(out / STATE)
    write_tables(out, session.design, records, front, metric=session.evaluator.task.metric)


def write_tables(
    out: Path, design: Design, records: Sequence[Record], front: Sequence[Record], *, metric: str
) -> None:
    """Write trials, fronts, choices, costs and what is recommended.

    Args:
        out: the run folder.
        design: what was searched.
        records: all trials.
        front: those on the front.
        metric: the task's metric; may be empty.
    """
    numbers = [
        *QUALITY_COLUMNS, *DETAIL_COLUMNS, *([metric] if metric else []),
        *elsewhere_columns(design.networks.apart, metric), *design.costs.columns,
        *sorted({name for record in records for name in record.costs if name.startswith(SCORE)}),
    ]  # fmt: skip
    points = {record.trial: record.point_entry(metric) for record in records}
    run_writer.write_trials(out, list(points.values()), numbers)
    tied = [
        points[record.trial].model_copy(
            update={"tied": tied_with_uniform(record, records, design.objectives)}
        )
        for record in front
    ]
    run_writer.write_front(out, tied, numbers)
    names = [variable.name for variable in design.problem.precision.variables]
    choices = {record.trial: design.problem.named(record.point) for record in records}
    run_writer.write_choices(
        out, {trial: {name: one[name] for name in names} for trial, one in choices.items()}, names
    )
    costs = [RegionCost.model_validate(row) for row in _cost_rows(design, front)]
    run_writer.write_costs(out, costs)
    run_writer.write_speedups(out, list(point_speedups(design, records, front)))
    assignments = [
        FrontAssignment(trial=r.trial, assignment=assignment_json(design, r), hardware=r.hardware)
        for r in front
    ]
    run_writer.write_front_assignments(out, assignments)
    _write_chosen(out, design, front)


def write_pruned(out: Path, design: Design, pruned: Sequence[Pruned]) -> None:
    """Write what ended after a first look; no file where nothing did."""
    columns = [*PRUNED_COLUMNS, *design.costs.columns, "digest"]
    run_writer.write_pruned(out, [one.row() for one in pruned], columns)


def assignment_json(design: Design, record: Record) -> dict[str, object]:
    """The assignment of a record, as users read it."""
    return to_json(design.problem.assignment(record.point), design.model.graph)


def _cost_rows(design: Design, front: Sequence[Record]) -> list[dict[str, object]]:
    """The cost tables; where hardware varies, with that of the recommended point."""
    if design.varied is None or not front:
        return design.costs.rows()
    record, _ = recommend(design, front)
    return design.varied.rows_on(design.varied.hardware_of(record.point))


def _write_chosen(out: Path, design: Design, front: Sequence[Record]) -> None:
    """The recommended point, and with several targets a front each and the robust assignment.

    Where nothing is feasible, what an earlier front recommended is removed.
    """
    several = bool(front and design.objectives.views)
    run_writer.write_fronts(out, front_places(design.objectives, front) if several else ())
    run_writer.write_recommendations(
        out,
        _recommendation(design, recommend(design, front)) if front else None,
        _recommendation(design, robust(design.objectives, front)) if several else None,
    )


def _recommendation(design: Design, found: tuple[Record, str]) -> Recommendation:
    record, reason = found
    return Recommendation(
        trial=record.trial,
        reason=reason,
        assignment=assignment_json(design, record),
        hardware=record.hardware,
    )
