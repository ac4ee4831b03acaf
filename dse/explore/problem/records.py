"""Completed trials as rows of the run folder's tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from dse.evaluate.quality import Quality
from dse.run.entries import MeasuredPoint
from dse.space.problem import Point

LOSS = "quality_loss"
QUALITY_COLUMNS = (LOSS, "quality_stderr", "report_quality_loss", "report_quality_stderr")
SCORE, STDERR = "score.", "_stderr"
"""Prefix of the columns of tasks' scores, and the end of those of their standard errors."""
DETAIL_COLUMNS = ("p99_loss", "flip_rate")


@dataclass(frozen=True, slots=True, kw_only=True)
class Elsewhere:
    """The quality on a target that executes another network than the primary one."""

    search: Quality | None = None
    report: Quality | None = None
    same: bool = False
    """Whether it executes what the primary target does, because nothing that differs is chosen."""


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
    elsewhere: Mapping[str, Elsewhere] = field(default_factory=dict)
    """Of every target whose network may be another one, where a choice is run with 16-bit
    activations; the same as `search` and `report` where nothing of that was chosen."""
    measured_outside: tuple[str, ...] = ()
    """Columns that were measured by the user, where the real system is."""
    hardware: Mapping[str, str] = field(default_factory=dict)
    """Parameter -> value of the hardware that the costs are of, where hardware varies."""

    def searched(self, column: str) -> Quality | None:
        """The quality that a loss column reads on the search split."""
        label = column.removesuffix(LOSS).removesuffix(".")
        return self.elsewhere[label].search if label else self.search

    def reported(self, column: str) -> Quality | None:
        """The quality that a loss column reads on the report split."""
        label = column.removesuffix(LOSS).removesuffix(".")
        return self.elsewhere[label].report if label else self.report

    def point_entry(self, metric: str) -> MeasuredPoint:
        """The record as an entry of `trials.csv`; what was not measured is missing.

        Args:
            metric: the column of the task's metric; may be empty.
        """
        columns = {
            **_columns("", self.search, self.report, metric),
            "p99_loss": self.search.p99,
            "flip_rate": self.search.flip_rate,
            **self.costs,
        }
        for label, found in self.elsewhere.items():
            columns |= _columns(f"{label}.", found.search, found.report, metric)
        return MeasuredPoint(
            trial=self.trial,
            source=self.source,
            name=self.name,
            digest=self.digest,
            told=self.measured_outside,
            hardware=self.hardware,
            columns=columns,
        )


def elsewhere_columns(labels: Sequence[str], metric: str) -> list[str]:
    """The columns of targets whose network is another one."""
    names = [*QUALITY_COLUMNS, *([metric] if metric else [])]
    return [f"{label}.{name}" for label in labels for name in names]


def _columns(
    prefix: str, search: Quality | None, report: Quality | None, metric: str
) -> dict[str, float]:
    """Losses with their errors, and the task's metric, where they were measured."""
    found = {}
    for part, quality in (("", search), ("report_", report)):
        if quality is not None:
            found[f"{prefix}{part}quality_loss"] = quality.loss
            found[f"{prefix}{part}quality_stderr"] = quality.stderr
    best = report or search
    if metric and best is not None:
        found[f"{prefix}{metric}"] = best.metric
    return found
