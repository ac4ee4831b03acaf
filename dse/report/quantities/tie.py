"""Points of a front that their predicted latency does not tell apart."""

from __future__ import annotations

from dse.errors import some
from dse.run.entries import MeasuredPoint
from dse.run.search_run import SearchRun

MARK = "≈"
"""Stands behind a latency whose place behind the next faster one of the front is not certain."""
NAMED = 4
"""Points that a text names."""


def is_tied(run: SearchRun, point: MeasuredPoint, column: str) -> bool:
    """Whether the front has a faster point that may be the slower one."""
    own = point.columns.get(column, 0.0)
    on_front = any(one.trial == point.trial for one in run.front)
    return on_front and any(one.columns[column] <= own for one in run.tied(point, column))


def tied_text(run: SearchRun, point: MeasuredPoint, column: str) -> str:
    """`≈ not told apart in latency from #7, #9`; empty where all are, or none is known."""
    if not any(one.trial == point.trial for one in run.front):
        return ""
    titles = [run.title(one) for one in run.tied(point, column)]
    if not titles:
        return ""
    return f"{MARK} not told apart in latency from {some(titles, NAMED)}"
