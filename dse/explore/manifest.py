"""What a run is, with what it was made and what it took: `manifest.json`."""

from __future__ import annotations

import math
import platform
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from itertools import pairwise
from pathlib import Path

import dse
from dse.explore.measure.session import Effort, Session
from dse.explore.problem.design import Design
from dse.explore.problem.history import history
from dse.explore.problem.records import Record
from dse.run import folder as run_folder

PACKAGES = ("torch", "optuna", "onnx", "onnx-ir", "numpy", "scipy", "numba")


def described(design: Design) -> dict[str, object]:
    """What a manifest says of the design, and when and with what it was written."""
    return {
        "format": run_folder.FORMAT,
        "dse": dse.__version__,
        "versions": _versions(),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "seed": design.space.search.seed,
        "question": design.space.question,
        "space_file": design.origin,
        "model": {
            "name": design.model.name,
            "digest": design.model.graph.digest,
            "description": design.model.description,
            "weights_note": design.model.weights_note,
        },
        "cost_model": _cost_model(design),
        "proxy": _proxy(design),
        "objectives": ["report_quality_loss", *design.objectives.costs],
        "constraints": [str(constraint) for constraint in design.constraints],
        "targets": design.costs.describe_targets(),
        "phases": [
            {"name": name, "share": phase.share, "dims": phase.dims}
            for name, phase in design.space.scenario.phases.items()
        ],
        "variables": _variables(design),
    }


def write_manifest(
    out: Path,
    session: Session,
    effort: Effort,
    identity: Mapping[str, object],
    *,
    status: str,
    records: Sequence[Record] = (),
) -> None:
    """Write what the run is; at its end also the effort it took."""
    task, evaluator = session.evaluator.task, session.evaluator
    content: dict[str, object] = {
        **described(session.design),
        **identity,
        "status": status,
        "metric": task.metric,
        "metric_goal": task.goal,
        "samples": {
            part: len(next(iter(getattr(evaluator.splits, part).inputs.values())))
            for part in ("calibration", "search", "report")
        },
        "elapsed_s": {
            **effort.stage_seconds,
            "total": time.monotonic() - effort.started,
        },
    }
    if records:
        content |= _effort(session, effort, records)
    run_folder.write_json(out / run_folder.MANIFEST, content)


def _effort(session: Session, effort: Effort, records: Sequence[Record]) -> dict[str, object]:
    """Forward-equivalents by stage, the hypervolume they bought, and the reference's metric."""
    unit = session.evaluator.forward_macs("search")
    spent = {stage: macs / unit for stage, macs in effort.stage_macs.items()}
    before = sum(spent.get(stage, 0.0) for stage in ("calibration", "reference", "sensitivity"))
    reference = session.evaluator.reference("report").metric
    return {
        "forward_equivalents": {**spent, "total": sum(spent.values())},
        "hypervolume": history(
            records,
            session.design.objectives,
            before=before,
            efforts=[spent / unit for spent in _until_each(records, effort.trial_macs)],
        ),
        "reference_metric": reference if math.isfinite(reference) else None,
    }


def _until_each(records: Sequence[Record], macs: Mapping[int, int]) -> list[int]:
    """MACs of each record's trial, and of those since the record before that have none."""
    numbers = [-1, *(record.trial for record in records)]
    return [
        sum(spent for trial, spent in macs.items() if before < trial <= number)
        for before, number in pairwise(numbers)
    ]


def _variables(design: Design) -> list[dict[str, object]]:
    return [
        {
            "name": variable.name,
            "kind": variable.kind,
            "role": variable.role,
            "block": variable.block,
            "relative_depth": variable.relative_depth,
            "choices": [choice.name for choice in variable.choices],
        }
        for variable in design.problem.variables
    ]


def _cost_model(design: Design) -> dict[str, object] | None:
    if design.cost_model is None:
        return None
    return {"name": design.cost_model.name, "digest": design.cost_model.graph.digest}


def _proxy(design: Design) -> str:
    if design.cost_model is None:
        return ""
    return f"accuracy of {design.model.name}, cost shape of {design.cost_model.name}"


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
