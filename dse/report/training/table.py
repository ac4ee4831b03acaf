"""The front of a search over methods as a table, the named methods beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dse.report.quantities.unit import DASH, si
from dse.report.training.answer import gap_text
from dse.run.entries import MeasuredPoint
from dse.run.training_run import TrainingRun

HEADINGS = ("method", "gap to bf16", "in the search", "step", "memory", "differs from the start")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """A cell: what it shows, and what it is sorted by."""

    text: str
    sort: float | str


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A method."""

    kind: str
    """`recommended`, `front` or `uniform` (beside the front), as the style sheet has them."""
    cells: tuple[Cell, ...]


def rows(run: TrainingRun) -> list[Row]:
    """The front, fastest step first; below it what was chosen, named methods, and bf16."""
    best = run.recommended.trial if run.recommended else None
    chosen = run.recommended.chosen if run.recommended else None
    front = {point.trial for point in run.front}
    beside = [
        point
        for point in run.points
        if point.trial not in front and (point.name or point.trial == chosen)
    ]
    found = [
        _row(run, point, "recommended" if point.trial == best else "front") for point in run.front
    ]
    return found + [
        _row(run, point, "recommended" if point.trial == best else "uniform") for point in beside
    ]


def changed(run: TrainingRun, point: MeasuredPoint) -> Mapping[str, str]:
    """Options of a point that are not those of the start."""
    start = run.start_choices
    chosen = run.choices.get(point.trial, {})
    return {name: option for name, option in chosen.items() if option != start.get(name)}


def _row(run: TrainingRun, point: MeasuredPoint, kind: str) -> Row:
    columns = point.columns
    whole = run.reference.columns
    step, memory = columns["step_s"], columns["memory_bytes"]
    different = ", ".join(f"{name} {option}" for name, option in changed(run, point).items())
    return Row(
        kind=kind,
        cells=(
            Cell(text=point.title, sort=point.trial),
            Cell(text=_gap(point, "report_"), sort=columns.get("report_gap", 0.0)),
            Cell(text=_gap(point, ""), sort=columns.get("gap", 0.0)),
            Cell(text=f"{si(step, 's')} ({whole['step_s'] / step:.2f}×)", sort=step),
            Cell(text=f"{si(memory, 'B')} ({memory / whole['memory_bytes']:.2f}×)", sort=memory),
            Cell(text=different or DASH, sort=different),
        ),
    )


def _gap(point: MeasuredPoint, prefix: str) -> str:
    if point.source == "reference":
        return f"loss {point.columns[f'{prefix}loss']:.4f}"
    diverged = point.columns.get(f"{prefix}diverged", 0.0)
    note = f", {diverged:.0f} diverged" if diverged else ""
    return f"{gap_text(point, prefix)}{note}"
