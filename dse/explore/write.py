"""A search's results as the files of its run folder."""

from __future__ import annotations

import math
import platform
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import dse
from dse.execute.calibrate import save_calibration
from dse.explore import folder as run_folder
from dse.explore.decision import tied_with_uniform
from dse.explore.front import knee
from dse.explore.history import history
from dse.explore.records import DETAIL_COLUMNS, QUALITY_COLUMNS, Record
from dse.explore.session import Session
from dse.graph.assignment_json import to_json

PACKAGES = ("torch", "optuna", "onnx", "onnx-ir", "numpy", "scipy", "numba")


def write_results(
    out: Path, session: Session, records: Sequence[Record], front: Sequence[Record]
) -> None:
    """Write every table of a finished search."""
    metric = session.evaluator.task.metric
    columns = [
        "trial", "source", "name", *QUALITY_COLUMNS, *DETAIL_COLUMNS,
        *([metric] if metric else []), *session.costs.columns, "digest", "state",
    ]  # fmt: skip
    rows = {record.trial: record.row(metric) for record in records}
    run_folder.write_table(out / run_folder.TRIALS, list(rows.values()), columns)
    tied = [
        {**rows[record.trial], "tied": tied_with_uniform(record, records, session.objectives)}
        for record in front
    ]
    run_folder.write_table(out / run_folder.FRONT, tied, [*columns, "tied"])
    names = [variable.name for variable in session.problem.variables]
    choices = [
        {"trial": r.trial, **dict(zip(names, session.problem.choices(r.point), strict=True))}
        for r in records
    ]
    run_folder.write_table(out / run_folder.CHOICES, choices, ["trial", *names])
    costs = session.costs.rows()
    run_folder.write_table(out / run_folder.COSTS, costs, list(costs[0]))
    save_calibration(session.evaluator.calibration, out / run_folder.STATE)
    assignments = [{"trial": r.trial, "assignment": _assignment(session, r)} for r in front]
    run_folder.write_json(out / run_folder.FRONT_ASSIGNMENTS, assignments)
    if front:
        run_folder.write_json(out / run_folder.RECOMMENDED, _recommended(session, front))


def write_manifest(
    out: Path,
    session: Session,
    identity: Mapping[str, object],
    *,
    status: str,
    records: Sequence[Record] = (),
) -> None:
    """Write what the run is; at its end also the effort it took."""
    task, evaluator = session.evaluator.task, session.evaluator
    content: dict[str, object] = {
        "format": 1,
        "dse": dse.__version__,
        "versions": _versions(),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "status": status,
        "seed": session.space.search.seed,
        "question": session.space.question,
        "space_file": session.origin,
        **identity,
        "model": {
            "name": session.model.name,
            "digest": session.model.graph.digest,
            "description": session.model.description,
            "weights_note": session.model.weights_note,
        },
        "cost_model": _cost_model(session),
        "proxy": _proxy(session),
        "objectives": ["report_quality_loss", *session.objectives.costs],
        "constraints": [str(constraint) for constraint in session.constraints],
        "metric": task.metric,
        "metric_goal": task.goal,
        "targets": session.costs.describe_targets(),
        "phases": [
            {"name": name, "share": phase.share, "dims": phase.dims}
            for name, phase in session.space.scenario.phases.items()
        ],
        "variables": _variables(session),
        "samples": {
            part: len(next(iter(getattr(evaluator.splits, part).inputs.values())))
            for part in ("calibration", "search", "report")
        },
        "elapsed_s": {
            **session.stage_seconds,
            "total": time.monotonic() - session.started,
        },
    }
    if records:
        content |= _effort(session, records)
    run_folder.write_json(out / run_folder.MANIFEST, content)


def _effort(session: Session, records: Sequence[Record]) -> dict[str, object]:
    """Forward-equivalents by stage, the hypervolume they bought, and the reference's metric."""
    unit = session.evaluator.forward_macs("search")
    spent = {stage: macs / unit for stage, macs in session.stage_macs.items()}
    before = spent.get("reference", 0.0) + spent.get("sensitivity", 0.0)
    reference = session.evaluator.reference("report").metric
    return {
        "forward_equivalents": {**spent, "total": sum(spent.values())},
        "hypervolume": history(
            records,
            session.objectives,
            before=before,
            efforts=[record.macs / unit for record in records],
        ),
        "reference_metric": reference if math.isfinite(reference) else None,
    }


def _variables(session: Session) -> list[dict[str, object]]:
    return [
        {
            "name": variable.name,
            "kind": variable.kind,
            "role": variable.role,
            "block": variable.block,
            "relative_depth": variable.relative_depth,
            "choices": [choice.name for choice in variable.choices],
        }
        for variable in session.problem.variables
    ]


def _assignment(session: Session, record: Record) -> dict[str, object]:
    return to_json(session.problem.assignment(record.point), session.model.graph)


def _recommended(session: Session, front: Sequence[Record]) -> dict[str, object]:
    """The knee of the front on the report split."""
    record = front[knee(session.objectives.report_values(front))]
    columns = " and ".join(["report_quality_loss", *session.objectives.costs])
    return {
        "trial": record.trial,
        "reason": f"knee of the front: least sum of {columns}, each scaled to [0, 1] over the "
        f"front's {len(front)} points",
        "assignment": _assignment(session, record),
    }


def _cost_model(session: Session) -> dict[str, object] | None:
    if session.cost_model is None:
        return None
    return {"name": session.cost_model.name, "digest": session.cost_model.graph.digest}


def _proxy(session: Session) -> str:
    if session.cost_model is None:
        return ""
    return f"accuracy of {session.model.name}, cost shape of {session.cost_model.name}"


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
