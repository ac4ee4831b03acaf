"""Completed trials as rows of the run folder's tables."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from dse.evaluate.quality import Quality
from dse.explore.front import nondominated
from dse.space.problem import Point

QUALITY_COLUMNS = (
    "quality_loss", "quality_stderr", "report_quality_loss", "report_quality_stderr",
)  # fmt: skip
DETAIL_COLUMNS = ("p99_loss", "flip_rate")


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One measured assignment."""

    trial: int
    point: Point
    source: str
    """reference, uniform, surrogate, sampler or user."""
    name: str
    """The scheme of a uniform assignment, else empty."""
    digest: str
    search: Quality
    costs: Mapping[str, float]
    macs: int
    """Executed to measure it on the search split."""
    report: Quality | None = None

    def row(self, metric: str) -> dict[str, object]:
        """The record as a row of `trials.csv`; what was not measured is missing."""
        row: dict[str, object] = {
            "trial": self.trial,
            "source": self.source,
            "name": self.name,
            "quality_loss": self.search.loss,
            "quality_stderr": self.search.stderr,
            "p99_loss": self.search.p99,
            "flip_rate": self.search.flip_rate,
            "digest": self.digest,
            "state": "complete",
            **self.costs,
        }
        if self.report is not None:
            row["report_quality_loss"] = self.report.loss
            row["report_quality_stderr"] = self.report.stderr
        if metric:
            row[metric] = (self.report or self.search).metric
        return row


@dataclass(frozen=True, slots=True, kw_only=True)
class Objectives:
    """What is minimised: quality first, then cost columns."""

    costs: tuple[str, ...]

    def search_values(self, records: Sequence[Record]) -> np.ndarray:
        """(records, objectives) on the search split."""
        return self._values(records, [record.search.loss for record in records])

    def report_values(self, records: Sequence[Record]) -> np.ndarray:
        """(records, objectives) on the report split; infinite where it was not measured."""
        losses = [record.report.loss if record.report else math.inf for record in records]
        return self._values(records, losses)

    def _values(self, records: Sequence[Record], losses: Sequence[float]) -> np.ndarray:
        rows = [
            [loss, *(record.costs[column] for column in self.costs)]
            for record, loss in zip(records, losses, strict=True)
        ]
        return np.array(rows, dtype=float).reshape(len(records), 1 + len(self.costs))


def contenders(
    records: Sequence[Record], objectives: Objectives, *, feasible: np.ndarray
) -> list[int]:
    """Which records the report split decides on: uniforms and what is near the front.

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
    own = values[index]
    rivals = np.flatnonzero(feasible & (values[:, 1:] <= own[1:]).all(axis=1)).tolist()
    return any(
        _better(records[rival].search, records[index].search) for rival in rivals if rival != index
    )


def decide(
    records: Sequence[Record], objectives: Objectives, *, feasible: np.ndarray
) -> list[int]:
    """The front on the report split, sorted by the first cost objective."""
    values = objectives.report_values(records)
    usable = np.flatnonzero(np.isfinite(values).all(axis=1) & feasible)
    kept = usable[nondominated(values[usable])]
    return sorted((int(index) for index in kept), key=lambda index: (values[index, 1], index))


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
        if (theirs <= own).all() and not _better(record.report, other.report):
            return True
    return False


def _better(first: Quality, second: Quality) -> bool:
    """Whether the first loss is lower beyond two standard errors of the paired difference."""
    difference = np.array(second.losses) - np.array(first.losses)
    if not np.isfinite(difference).all() or len(difference) < 2:
        return first.loss < second.loss
    stderr = difference.std(ddof=1) / math.sqrt(len(difference))
    return bool(difference.mean() > 2 * stderr)
