"""Methods of a search with their runs, and the choice among them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from dse.explore.solve.front import nondominated
from dse.run.entries import MeasuredPoint
from dse.training.search.cost import StepPrice
from dse.training.search.gaps import Gap, Runs
from dse.training.search.points import Point
from dse.training.search.schema import GAP

SAME_TIME = 1.01
"""Step times within this factor count as equal: their own intervals are 20 times as wide."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A method that was trained."""

    trial: int
    source: str
    name: str
    point: Point
    price: StepPrice
    runs: Runs
    """Of the search."""
    search: Gap
    report: Gap | None = None
    """None: it was not trained on the report's seeds."""
    report_runs: Runs | None = None
    rival: int | None = None
    """The trial that it was clearly worse than before all seeds had run."""
    estimate: float | None = None
    """Its gap then."""

    @property
    def is_whole(self) -> bool:
        """Whether all seeds ran and none diverged."""
        return self.rival is None and not self.search.diverged

    @property
    def holds(self) -> bool:
        """Whether the report's seeds ran and none diverged."""
        return self.report is not None and not self.report.diverged

    def values(self, objectives: Sequence[str], *, reported: bool = False) -> list[float]:
        """Its objectives."""
        found = self.report if reported else self.search
        assert found is not None, "only what was reported is asked"
        loss = found.mean if self.estimate is None else self.estimate
        return [loss if name == GAP else self.price.columns[name] for name in objectives]

    @property
    def entry(self) -> MeasuredPoint:
        """As a row of `trials.csv`."""
        columns = dict(self.price.columns)
        if self.rival is not None:
            columns |= {"rival": float(self.rival), GAP: self.estimate or 0.0}
        else:
            columns |= _columns(self.search, "")
        if self.report is not None:
            columns |= _columns(self.report, "report_")
        return MeasuredPoint(
            trial=self.trial, source=self.source, name=self.name,
            state="pruned" if self.rival is not None else "complete",
            digest=self.point.digest, columns=columns,
        )  # fmt: skip


def _columns(found: Gap, prefix: str) -> dict[str, float]:
    columns = {
        f"{prefix}gap": found.mean,
        f"{prefix}pairs": float(len(found.pairs)),
        f"{prefix}diverged": float(found.diverged),
        f"{prefix}loss": found.loss,
    }
    if (interval := found.interval) is not None:
        columns |= {f"{prefix}gap_low": interval.low, f"{prefix}gap_high": interval.high}
    return columns


def front_of(
    records: Sequence[Record], objectives: Sequence[str], *, reported: bool
) -> list[Record]:
    """Records that no other one dominates, fastest step first; those that diverged are none."""
    kept = [one for one in records if (one.holds if reported else one.is_whole)]
    values = [one.values(objectives, reported=reported) for one in kept]
    mask = nondominated(np.array(values).reshape(len(kept), len(objectives)))
    found = [one for one, there in zip(kept, mask, strict=True) if there]
    return sorted(found, key=lambda one: (one.price.step_s, one.trial))


def contenders(
    records: Sequence[Record], objectives: Sequence[str], *, chosen: Record, count: int
) -> list[Record]:
    """The named methods, what was chosen, and so many of the search's front.

    Of a front that is longer, those with the smallest gaps: what the others are cheaper by is
    known without more seeds.
    """
    found = {one.trial: one for one in records if one.name}
    found[chosen.trial] = chosen
    front = front_of(records, objectives, reported=False)
    for one in sorted(front, key=lambda one: one.search.mean)[:count]:
        found.setdefault(one.trial, one)
    return [found[trial] for trial in sorted(found)]


def chosen_of(records: Sequence[Record], beside: Record) -> Record:
    """The method that loses least in the search at no longer a step than that of `beside`."""
    limit = SAME_TIME * beside.price.step_s
    fitting = [one for one in records if one.is_whole and one.price.step_s <= limit]
    return min(fitting, key=lambda one: (one.search.mean, one.trial), default=beside)


def rival_of(records: Sequence[Record], price: StepPrice) -> Record | None:
    """The best method so far that costs no more."""
    cheaper = [
        one
        for one in records
        if one.is_whole
        and one.price.step_s <= price.step_s
        and one.price.memory_bytes <= price.memory_bytes
    ]
    return min(cheaper, key=lambda one: (one.search.mean, one.trial), default=None)


def by_name(records: Sequence[Record]) -> Mapping[str, Record]:
    """Named methods."""
    return {one.name: one for one in records if one.name}
