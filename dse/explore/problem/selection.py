"""Trials of the front: paired tests on the search split, the report split decides."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from dse.evaluate.quality import SEPARATED, Quality
from dse.evaluate.target_costs import NATIVE_SHARE
from dse.explore.problem.objectives import Objectives
from dse.explore.problem.records import Record
from dse.explore.solve.front import nondominated
from dse.space.constraint import Constraint


def contenders(
    records: Sequence[Record], objectives: Objectives, *, feasible: np.ndarray
) -> list[int]:
    """Records that the report split decides on: uniforms and what is near the front.

    A record is out when a feasible one that costs no more is better beyond the noise: losses of
    two assignments are paired, sample by sample, so that differences far smaller than either
    loss's own standard error are told apart.
    """
    return [
        index
        for index, record in enumerate(records)
        if record.source in ("uniform", "reference")
        or (feasible[index] and not _beaten(index, records, objectives, feasible))
    ]


def _beaten(
    index: int, records: Sequence[Record], objectives: Objectives, feasible: np.ndarray
) -> bool:
    values = objectives.search_values(records)
    first = len(objectives.losses)
    no_dearer = (values[:, first:] <= values[index, first:]).all(axis=1)
    rivals = np.flatnonzero(feasible & no_dearer).tolist()
    own = records[index]
    return any(
        _better_everywhere(records[rival], own, objectives, Record.searched)
        for rival in rivals
        if rival != index
    )


def _better_everywhere(
    first: Record,
    second: Record,
    objectives: Objectives,
    read: Callable[[Record, str], Quality | None],
) -> bool:
    """Whether a record loses less in every loss that is an objective, beyond the noise.

    What is not measured is not better.
    """
    pairs = [(read(first, column), read(second, column)) for column in objectives.losses]
    return all(one and other and better(one, other) for one, other in pairs)


def loses_less(first: Record, second: Record, objectives: Objectives) -> bool:
    """Whether a record loses less in every loss of the report split, beyond the noise."""
    return _better_everywhere(first, second, objectives, Record.reported)


def front_indices(
    records: Sequence[Record], objectives: Objectives, *, feasible: np.ndarray
) -> list[int]:
    """The front on the report split, sorted by the first cost objective."""
    values = objectives.report_values(records)
    usable = np.flatnonzero(np.isfinite(values).all(axis=1) & feasible)
    kept = usable[nondominated(values[usable])]
    first = len(objectives.losses)
    return sorted((int(index) for index in kept), key=lambda index: (values[index, first], index))


def least_native_share(record: Record) -> float:
    """The share of the work that native kernels execute, on the target that has the fewest."""
    shares = (v for k, v in record.costs.items() if k.rpartition(".")[2] == NATIVE_SHARE)
    return min(shares, default=1.0)


def runnable(front: Sequence[Record], constraints: Sequence[Constraint]) -> Sequence[Record]:
    """The part of a front that every target runs natively, from which one is recommended.

    Where there is none, those that do most natively; all of it where the user has said in a
    constraint how much is enough.
    """
    if any(constraint.column.rpartition(".")[2] == NATIVE_SHARE for constraint in constraints):
        return front
    most = max(least_native_share(record) for record in front)
    return [record for record in front if least_native_share(record) >= most]


def tied_with_uniform(record: Record, records: Sequence[Record], objectives: Objectives) -> bool:
    """Whether a uniform assignment of no higher cost is within the noise of a record.

    The test is paired: the mean difference of per-sample losses on the report split against two
    of its standard errors.
    """
    if record.report is None or record.source == "uniform":
        return False
    own = np.array([record.costs[column] for column in objectives.costs])
    for other in records:
        if other.source != "uniform" or other.report is None or other.point == record.point:
            continue
        theirs = np.array([other.costs[column] for column in objectives.costs])
        if (theirs <= own).all() and not _apart(record, other, objectives):
            return True
    return False


def _apart(record: Record, other: Record, objectives: Objectives) -> bool:
    """Whether a record loses less on the report split in some loss, beyond the noise."""
    pairs = [(record.reported(name), other.reported(name)) for name in objectives.losses]
    return any(one and rival and better(one, rival) for one, rival in pairs)


def better(first: Quality, second: Quality) -> bool:
    """Whether the first loss is lower beyond two standard errors of the difference.

    The paired difference where both have the same samples; a loss that was measured outside has
    none, and its standard error is taken as independent, or as nothing where it is not known.
    """
    gap, stderr = second.loss - first.loss, math.hypot(first.stderr, second.stderr)
    if len(first.losses) == len(second.losses) > 1:
        difference = np.array(second.losses) - np.array(first.losses)
        gap = float(difference.mean())
        stderr = float(difference.std(ddof=1)) / math.sqrt(len(difference))
    if not (math.isfinite(gap) and math.isfinite(stderr)):
        return first.loss < second.loss
    return gap > SEPARATED * stderr
