"""Measurements that users made outside, kept in the study: `dse tell` writes, all else reads."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dse.evaluate.quality import Quality
from dse.explore.problem.correction import Correction, fitted
from dse.explore.problem.design import Design
from dse.explore.problem.records import QUALITY_COLUMNS, SCORE, Elsewhere, Record
from dse.explore.study.storage import undamaged
from dse.space.problem import Point, Problem

ATTRIBUTE = "told."
"""Prefix of the study attributes that hold what was told of an assignment, by digest."""
USER = "user"
"""The source of a trial whose quality was measured outside."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OutsideMeasurement:
    """An outside account of one assignment."""

    point: Point
    values: Mapping[str, float]
    """Columns of `trials.csv`."""
    estimate: tuple[float, float] | None = None
    """Loss and standard error that scores tell of; anything measured stands before it."""

    def to_json(self, problem: Problem) -> dict[str, Any]:
        """As a study attribute; choices by name."""
        names = [variable.name for variable in problem.variables]
        choices = dict(zip(names, problem.choices(self.point), strict=True))
        return {"choices": choices, "values": dict(self.values), "estimate": self.estimate}

    @property
    def without_costs(self) -> OutsideMeasurement:
        """Values that hold on every target."""
        kept = {
            name: value
            for name, value in self.values.items()
            if name in QUALITY_COLUMNS or name.startswith(SCORE)
        }
        return replace(self, values=kept)

    def quality(self, target: str = "") -> Quality | None:
        """The loss on the search split.

        Args:
            target: one that executes another network; the primary one by default.
        """
        measured = _quality(self.values, target, "")
        if measured is None and self.estimate is not None and not target:
            return _summary(*self.estimate)
        return measured

    @property
    def is_estimated(self) -> bool:
        """Whether nothing but scores tells of its loss on the search split."""
        return self.estimate is not None and _quality(self.values, "", "") is None

    def report(self, target: str = "") -> Quality | None:
        """The loss on the report split; outside there need be no splits, so else the other."""
        return _quality(self.values, target, "report_") or self.quality(target)


def outside_measurements(
    attributes: Mapping[str, Any], problem: Problem, *, prefix: str = ATTRIBUTE
) -> dict[str, OutsideMeasurement]:
    """Digest -> what was told of it.

    Args:
        attributes: of a study.
        problem: the decision variables.
        prefix: of the attributes; others than what was told are written alike.

    Raises:
        RunError: the study was damaged.
    """
    found = {}
    for key, content in attributes.items():
        if key.startswith(prefix):
            with undamaged(f"study: {key}", "choices of the space, and values"):
                found[key.removeprefix(prefix)] = OutsideMeasurement(
                    point=problem.point(content["choices"]),
                    values=content["values"],
                    estimate=content.get("estimate"),
                )
    return found


def corrections(design: Design, told: Mapping[str, OutsideMeasurement]) -> dict[str, Correction]:
    """Cost column -> correction, for every column that adds up and was told of something."""
    columns = dict.fromkeys(column for one in told.values() for column in one.values)
    found = {}
    for column in columns:
        if column in QUALITY_COLUMNS or not design.costs.is_additive(column):
            continue
        known = [one for one in told.values() if column in one.values]
        points = np.array([one.point for one in known])
        measured = [one.values[column] for one in known]
        found[column] = fitted(design.costs, column, points, measured)
    return found


def corrected(design: Design, attributes: Mapping[str, Any]) -> Design:
    """The design with the costs that the measurements in a study's attributes teach."""
    measured = outside_measurements(attributes, design.problem)
    return design.corrected(corrections(design, measured))


def with_measurements(
    records: Sequence[Record], told: Mapping[str, OutsideMeasurement]
) -> list[Record]:
    """Records with what was told of them in place of what was measured or predicted here.

    They are the user's then, except for uniform assignments, which stay what others are compared
    with.
    """
    return [_amended(record, told.get(record.digest)) for record in records]


def _amended(record: Record, told: OutsideMeasurement | None) -> Record:
    if told is None:
        return record
    costs = {
        name: value
        for name, value in told.values.items()
        if name in record.costs or name.startswith(SCORE)
    }
    return replace(
        record,
        source=record.source if record.source == "uniform" else USER,
        search=told.quality() or record.search,
        report=told.report() or record.report,
        elsewhere={
            label: _amended_elsewhere(found, told, label)
            for label, found in record.elsewhere.items()
        },
        costs={**record.costs, **costs},
        measured_outside=tuple(told.values),
    )


def _amended_elsewhere(found: Elsewhere, told: OutsideMeasurement, label: str) -> Elsewhere:
    """The qualities on a target; what is told of a network holds wherever it runs."""
    search, report = told.quality(label), told.report(label)
    if found.same:
        search, report = search or told.quality(), report or told.report()
    return replace(found, search=search or found.search, report=report or found.report)


def _quality(values: Mapping[str, float], target: str, split: str) -> Quality | None:
    prefix = f"{target}." if target else ""
    loss, stderr = f"{prefix}{split}quality_loss", f"{prefix}{split}quality_stderr"
    if loss not in values:
        return None
    return _summary(values[loss], values.get(stderr, math.nan))


def _summary(loss: float, stderr: float) -> Quality:
    """A quality of which nothing else is known."""
    return Quality(
        loss=loss, stderr=stderr,
        p99=math.nan, flip_rate=math.nan, metric=math.nan, samples=0,
    )  # fmt: skip
