"""Measurements made once, told of all hardware: trials of a study that no measurement took."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import optuna

from dse.explore.measure.records import (
    MEASUREMENT,
    measured_qualities,
    objective_values,
    records_of,
)
from dse.explore.problem.design import Design
from dse.explore.problem.hardware import Grid
from dse.explore.problem.records import Record
from dse.explore.study.study import distributions
from dse.space.problem import Point

MOST = 160
"""Points of the front over hardware and precision that are kept."""
NEAR = 0.01
"""Share by which a point must be better in some objective than each one that is kept; twice that,
and so on, while more than `MOST` are. Costs are known within tens of per cent."""
LOOKED_AT = 48
"""Hardware points on which it is asked who is a contender, evenly over those of the front."""
KEPT = ("digest", *MEASUREMENT)
"""Attributes of a trial that hold on any hardware."""
SOURCE = "surrogate"
"""Source of trials that are added: uniform assignments on the file's own hardware are what a
report compares with, on other hardware they are found as all else is."""
SHARED = "shared"
"""Trial attribute: the number of the trial whose measurement it takes over."""


def near_front(design: Design, grid: Grid, records: Sequence[Record]) -> list[list[Record]]:
    """The records as they are on each hardware point of the front on the search split."""
    losses = design.objectives.search_values(records)[:, : len(design.objectives.losses)]
    elite, _ = grid.expanded(np.array([record.point for record in records]), losses)
    hardware = grid.hardware_of(elite) if len(elite) else [tuple(grid.points[0].tolist())]
    if len(hardware) > LOOKED_AT:
        even = np.linspace(0, len(hardware) - 1, LOOKED_AT).round().astype(int)
        hardware = [hardware[place] for place in even]
    return grid.contenders(records, hardware)


def on_all_hardware(design: Design, study: optuna.Study, grid: Grid) -> list[Record]:
    """All trials, once what was measured is told of all hardware on which it is on the front.

    A trial is an assignment with its hardware. Those that are added took no measurement; losses
    are those of the report split.
    """
    records = records_of(design, study)
    losses = design.objectives.report_values(records)[:, : len(design.objectives.losses)]
    decided = np.isfinite(losses).all(axis=1)
    if not decided.any():
        return records
    firsts: dict[Point, Record] = {}
    for record in records:
        firsts.setdefault(design.problem.on_start(record.point), record)
    known = {record.point for record in records}
    points = np.array([record.point for record in records])
    front = spread(*grid.expanded(points[decided], losses[decided]))
    trials = study.get_trials(deepcopy=False)
    for row in front.tolist():
        point = tuple(row)
        if point in known:
            continue
        known.add(point)
        first = trials[firsts[design.problem.on_start(point)].trial]
        qualities = measured_qualities(first)
        attributes = {name: first.user_attrs[name] for name in KEPT if name in first.user_attrs}
        if (source := first.user_attrs["source"]) != "uniform":
            attributes["source"] = source
        study.add_trial(
            optuna.trial.create_trial(
                params=design.problem.named(point),
                distributions=dict(distributions(design.problem)),
                values=objective_values(design, point, qualities),
                user_attrs={
                    "source": SOURCE,
                    **attributes,
                    "macs": 0,
                    "seconds": 0.0,
                    SHARED: first.number,
                },
            )
        )
    return records_of(design, study)


def spread(points: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The points of a front that are better than each other one by more than next to nothing.

    Args:
        points: (points, variables).
        values: (points, objectives).
    """
    near = NEAR
    while True:
        kept = _apart(values, near)
        if len(kept) <= MOST:
            few: np.ndarray = points[kept]
            return few
        near *= 2


def _apart(values: np.ndarray, near: float) -> np.ndarray:
    """Rows none of which is within a share of another one in all objectives, the best first."""
    scale = np.maximum(np.abs(values).max(axis=0), np.finfo(float).tiny)
    slack = values + near * np.abs(values)
    kept: list[int] = []
    for row in np.argsort((values / scale).sum(axis=1), kind="stable").tolist():
        if not (values[kept] <= slack[row]).all(axis=1).any():
            kept.append(row)
    return np.array(sorted(kept), dtype=np.int64)
