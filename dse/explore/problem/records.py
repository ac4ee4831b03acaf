"""Completed trials as rows of the run folder's tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dse.evaluate.quality import Quality
from dse.run.entries import MeasuredPoint
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
    measured_outside: tuple[str, ...] = ()
    """Columns that were measured by the user, where the real system is."""

    def point_entry(self, metric: str) -> MeasuredPoint:
        """The record as an entry of `trials.csv`; what was not measured is missing.

        Args:
            metric: the column of the task's metric; may be empty.
        """
        columns = {
            "quality_loss": self.search.loss,
            "quality_stderr": self.search.stderr,
            "p99_loss": self.search.p99,
            "flip_rate": self.search.flip_rate,
            **self.costs,
        }
        if self.report is not None:
            columns["report_quality_loss"] = self.report.loss
            columns["report_quality_stderr"] = self.report.stderr
        if metric:
            columns[metric] = (self.report or self.search).metric
        return MeasuredPoint(
            trial=self.trial,
            source=self.source,
            name=self.name,
            digest=self.digest,
            told=self.measured_outside,
            columns=columns,
        )
