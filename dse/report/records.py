"""The front for programs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from dse.report.quantities.baseline import against_reference
from dse.run.entries import MeasuredPoint
from dse.run.read import read_run
from dse.run.search_run import SearchRun

Value = str | int | float | bool | None | Mapping[str, str] | list[int]


LATENCY = "latency_s"
"""End of the columns that have speed-ups."""


def front_rows(run_dir: Path) -> list[dict[str, Value]]:
    """The front as JSON-able objects, cheapest first: the columns of `front.csv` and the choices.

    Beside every latency (`b200.latency_s`) stand its `b200.speedup` over the reference with the
    ends of its interval, and the trials of the front that it does not tell apart from the point.

    Raises:
        RunError: the folder is missing, is no run, or is torn.
    """
    run = read_run(run_dir)
    return [
        {
            "trial": point.trial,
            "name": point.name,
            "source": point.source,
            "recommended": run.is_recommended(point),
            "tied": point.tied,
            **point.columns,
            **_speedups(run, point),
            "choices": run.choices.get(point.trial, {}),
        }
        for point in run.front
    ]


def _speedups(run: SearchRun, point: MeasuredPoint) -> dict[str, Value]:
    """The speed-ups of a point in every latency, and its ties; none where a run tells none."""
    found: dict[str, Value] = {}
    for column in point.columns:
        gained = against_reference(run, point, column) if column.endswith(LATENCY) else None
        if gained is not None and gained.speedup is not None:
            prefix, speed = column.removesuffix(LATENCY), gained.speedup
            found |= {
                f"{prefix}speedup": speed.factor,
                f"{prefix}speedup_low": speed.low,
                f"{prefix}speedup_high": speed.high,
                f"{prefix}tied_with": [one.trial for one in run.tied(point, column)],
            }
    return found
