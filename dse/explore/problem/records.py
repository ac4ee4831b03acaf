"""Completed trials as rows of the run folder's tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dse.evaluate.quality import Quality
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
    told: tuple[str, ...] = ()
    """Columns that were measured outside and told."""

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
        if self.told:
            row["told"] = " ".join(self.told)
        if self.report is not None:
            row["report_quality_loss"] = self.report.loss
            row["report_quality_stderr"] = self.report.stderr
        if metric:
            row[metric] = (self.report or self.search).metric
        return row
