"""A run, with what it was made and what it took: `manifest.json`."""

from __future__ import annotations

import math
import os
import platform
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from itertools import pairwise
from pathlib import Path
from typing import Any

from dse.evaluate.outputs.output import Output
from dse.explore.measure.session import Effort, Session
from dse.explore.problem.design import Design
from dse.explore.problem.history import history
from dse.explore.problem.objectives import report_losses
from dse.explore.problem.records import Record
from dse.run.files import FORMAT
from dse.run.manifest import (
    HardwareEntry,
    Manifest,
    ModelEntry,
    OutputEntry,
    ParameterEntry,
    PhaseEntry,
    Samples,
    Status,
    TargetEntry,
    VariableEntry,
)

BEFORE = ("calibration", "ranges", "reference", "sensitivity")
"""Stages before the first trial."""
PACKAGES = ("torch", "optuna", "onnx", "onnx-ir", "numpy", "scipy", "numba")


def described(design: Design, out: Path, identity: Mapping[str, object], **facts: Any) -> Manifest:
    """The manifest of a design.

    Args:
        design: what is searched.
        out: the run folder.
        identity: version, model digest and space, as two runs are told apart by; and where the
            study is shared.
        facts: further fields of the manifest.
    """
    model = design.model
    return Manifest(
        format=FORMAT,
        versions=_versions(),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        seed=design.space.search.seed,
        question=design.space.question,
        space_file=design.origin,
        beside=os.path.relpath(design.folder, out),
        model=ModelEntry(
            name=model.name,
            digest=model.graph.digest,
            description=model.description,
            weights_note=model.weights_note,
        ),
        cost_model=_cost_model(design),
        proxy=_proxy(design),
        objectives=(*report_losses(design.objectives), *design.objectives.costs),
        constraints=tuple(str(constraint) for constraint in design.constraints),
        targets=tuple(_target(design, target) for target in design.costs.describe_targets()),
        phases=tuple(
            PhaseEntry(name=name, share=phase.share, dims=phase.dims)
            for name, phase in design.space.scenario.phases.items()
        ),
        variables=_variables(design),
        hardware=_hardware(design),
        **{**identity, **facts},
    )


def _target(design: Design, described: Mapping[str, object]) -> TargetEntry:
    label = str(described["name"])
    networks = design.networks
    return TargetEntry.model_validate(
        {
            **described,
            "apart": label in networks.apart,
            "substituted": networks.choices(label, "substituted"),
            "narrowed": networks.choices(label, "narrowed"),
            "streamed": networks.choices(label, "streamed"),
        }
    )


def session_manifest(
    session: Session,
    out: Path,
    effort: Effort,
    identity: Mapping[str, object],
    *,
    status: Status,
    records: Sequence[Record] = (),
) -> Manifest:
    """The manifest of a search; at its end also the effort it took."""
    task, splits = session.evaluator.task, session.evaluator.splits
    samples = {part: getattr(splits, part).samples for part in ("calibration", "search", "report")}
    return described(
        session.design,
        out,
        identity,
        status=status,
        metric=task.metric,
        metric_goal=task.goal,
        outputs=tuple(_output(output) for output in task.outputs),
        loss_unit=task.unit,
        samples=Samples(**samples),
        ranges={word: _finite(loss) for word, loss in session.ranges.losses.items()},
        elapsed_s={**effort.stage_seconds, "total": time.monotonic() - effort.started},
        **(_effort(session, effort, records) if records else {}),
    )


def _effort(session: Session, effort: Effort, records: Sequence[Record]) -> dict[str, Any]:
    """Forward-equivalents by stage, the hypervolume they bought, and the reference's metric."""
    unit = session.evaluator.forward_macs("search")
    spent = {stage: macs / unit for stage, macs in effort.stage_macs.items()}
    before = sum(spent.get(stage, 0.0) for stage in BEFORE)
    reference = session.evaluator.reference("report").metric
    return {
        "forward_equivalents": {**spent, "total": sum(spent.values())},
        "hypervolume": history(
            records,
            session.design.objectives,
            before=before,
            efforts=[spent / unit for spent in _until_each(records, effort.trial_macs)],
        ),
        "reference_metric": _finite(reference),
        **_constant(session),
    }


def _constant(session: Session) -> dict[str, float | None]:
    """Loss of an answer that is always the same; nothing under a user's own metric."""
    if session.evaluator.metric is not None:
        return {}
    found = session.evaluator.constant("report")
    return {
        "constant_loss": _finite(found.loss),
        "constant_flip_rate": _finite(found.flip_rate),
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _output(output: Output) -> OutputEntry:
    return OutputEntry(
        name=output.name,
        value=output.value,
        kind=output.kind,
        reason=output.reason,
        weight=output.weight,
        title=str(output),
    )


def _until_each(records: Sequence[Record], macs: Mapping[int, int]) -> list[int]:
    """MACs of each record's trial, and of those since the record before that have none."""
    numbers = [-1, *(record.trial for record in records)]
    return [
        sum(spent for trial, spent in macs.items() if before < trial <= number)
        for before, number in pairwise(numbers)
    ]


def _variables(design: Design) -> tuple[VariableEntry, ...]:
    return tuple(
        VariableEntry(
            name=variable.name,
            kind=variable.kind,
            role=variable.role,
            block=variable.block,
            relative_depth=variable.relative_depth,
            choices=tuple(choice.name for choice in variable.choices),
        )
        for variable in design.problem.precision.variables
    )


def _hardware(design: Design) -> HardwareEntry | None:
    if design.varied is None:
        return None
    varies = design.varied.hardware
    return HardwareEntry(
        target=varies.label,
        size=varies.size,
        parameters=tuple(
            ParameterEntry(
                name=one.name,
                values=tuple(option.label for option in one.options),
                start=one.start,
                own=one.said,
                ordered=one.is_ordered,
            )
            for one in varies.parameters
        ),
    )


def _cost_model(design: Design) -> ModelEntry | None:
    if design.cost_model is None:
        return None
    return ModelEntry(name=design.cost_model.name, digest=design.cost_model.graph.digest)


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
