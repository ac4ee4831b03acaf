"""A search's results as the tables of its run folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dse.execute.weights.calibrate import save_calibration
from dse.explore.measure.pruning import PRUNED_COLUMNS, Pruned
from dse.explore.measure.session import Session
from dse.explore.problem.design import Design
from dse.explore.problem.fronts import COLUMNS, front_rows, robust
from dse.explore.problem.records import DETAIL_COLUMNS, QUALITY_COLUMNS, Record
from dse.explore.problem.selection import tied_with_uniform
from dse.explore.solve.front import knee
from dse.graph.assignment_json import to_json
from dse.run import folder as run_folder


def write_results(
    out: Path, session: Session, records: Sequence[Record], front: Sequence[Record]
) -> None:
    """Write every table of a finished search, and the calibrated scales."""
    save_calibration(session.evaluator.calibration, out / run_folder.STATE)
    session.evaluator.weights.save(out / run_folder.STATE)
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
    columns = [
        "trial", "source", "name", *QUALITY_COLUMNS, *DETAIL_COLUMNS,
        *([metric] if metric else []), *design.costs.columns, "digest", "state",
    ]  # fmt: skip
    rows = {record.trial: record.row(metric) for record in records}
    if any(record.told for record in records):
        columns.append("told")
    run_folder.write_table(out / run_folder.TRIALS, list(rows.values()), columns)
    tied = [
        {**rows[record.trial], "tied": tied_with_uniform(record, records, design.objectives)}
        for record in front
    ]
    run_folder.write_table(out / run_folder.FRONT, tied, [*columns, "tied"])
    names = [variable.name for variable in design.problem.variables]
    choices = [
        {"trial": r.trial, **dict(zip(names, design.problem.choices(r.point), strict=True))}
        for r in records
    ]
    run_folder.write_table(out / run_folder.CHOICES, choices, ["trial", *names])
    costs = design.costs.rows()
    run_folder.write_table(out / run_folder.COSTS, costs, list(costs[0]))
    assignments = [{"trial": r.trial, "assignment": assignment_json(design, r)} for r in front]
    run_folder.write_json(out / run_folder.FRONT_ASSIGNMENTS, assignments)
    _write_chosen(out, design, front)


def write_pruned(out: Path, design: Design, pruned: Sequence[Pruned]) -> None:
    """Write what ended after a first look; no file where nothing did."""
    if pruned:
        columns = [*PRUNED_COLUMNS, *design.costs.columns, "digest"]
        rows = [one.row() for one in pruned]
        run_folder.write_table(out / run_folder.PRUNED, rows, columns)


def assignment_json(design: Design, record: Record) -> dict[str, object]:
    """The assignment of a record, as users read it."""
    return to_json(design.problem.assignment(record.point), design.model.graph)


def _write_chosen(out: Path, design: Design, front: Sequence[Record]) -> None:
    """What is recommended, and with several targets a front each and the robust assignment.

    Where nothing is feasible, what an earlier front recommended is removed.
    """
    for name in (run_folder.RECOMMENDED, run_folder.FRONTS, run_folder.ROBUST):
        (out / name).unlink(missing_ok=True)
    if not front:
        return
    run_folder.write_json(out / run_folder.RECOMMENDED, _recommended(design, front))
    if design.objectives.views:
        rows = front_rows(design.objectives, front)
        columns = [*COLUMNS, *design.objectives.costs, *design.objectives.excess_columns]
        run_folder.write_table(out / run_folder.FRONTS, rows, columns)
        record, reason = robust(design.objectives, front)
        content = {
            "trial": record.trial, "reason": reason, "assignment": assignment_json(design, record)
        }  # fmt: skip
        run_folder.write_json(out / run_folder.ROBUST, content)


def _recommended(design: Design, front: Sequence[Record]) -> dict[str, object]:
    """The knee of the front on the report split."""
    record = front[knee(design.objectives.report_values(front))]
    columns = " and ".join(["report_quality_loss", *design.objectives.costs])
    return {
        "trial": record.trial,
        "reason": f"knee of the front: least sum of {columns}, each scaled to [0, 1] over the "
        f"front's {len(front)} points",
        "assignment": assignment_json(design, record),
    }
