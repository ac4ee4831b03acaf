"""Records of trials that nobody measured."""

from __future__ import annotations

import numpy as np

from dse.evaluate.quality import Quality
from dse.explore.problem.records import Record


def quality_of(losses: list[float]) -> Quality:
    """The quality with these losses of samples."""
    return Quality(
        loss=float(np.mean(losses)),
        stderr=float(np.std(losses, ddof=1) / np.sqrt(len(losses))),
        p99=max(losses),
        flip_rate=0.0,
        metric=0.0,
        samples=len(losses),
        losses=tuple(losses),
    )


def record_of(
    trial: int,
    losses: list[float],
    latency: float,
    source: str = "sampler",
    report: list[float] | None = None,
) -> Record:
    """A trial with losses of samples on the search split, and on the report's."""
    return Record(
        trial=trial,
        point=(trial,),
        source=source,
        name="",
        digest=str(trial),
        search=quality_of(losses),
        costs={"latency_s": latency},
        macs=1,
        report=quality_of(report) if report else None,
    )
