"""Fronts of several targets, and the assignments that are good on all."""

from __future__ import annotations

from dataclasses import dataclass

from dse.report.quantities.losses import losses_text
from dse.report.quantities.unit import digits, si, unit_of
from dse.run.entries import FrontPlace
from dse.run.search_run import SearchRun

ROBUST = "robust"


@dataclass(frozen=True, slots=True, kw_only=True)
class RobustRow:
    """One assignment of the robust front."""

    title: str
    loss: str
    costs: tuple[str, ...]
    """Of every cost column: the cost, and how far above its own front."""
    worst: str
    recommended: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Across:
    """The fronts of several targets."""

    sizes: str
    """Number of points of each front."""
    columns: tuple[str, ...]
    rows: tuple[RobustRow, ...]
    sentence: str
    """On the robust assignment."""


def across(run: SearchRun) -> Across | None:
    """The fronts side by side; None with one target."""
    if not run.fronts or run.robust is None:
        return None
    names = dict.fromkeys(place.front for place in run.fronts)
    counts = {name: sum(place.front == name for place in run.fronts) for name in names}
    robust = [place for place in run.fronts if place.front == ROBUST]
    return Across(
        sizes=", ".join(f"{name} {count}" for name, count in counts.items() if name != ROBUST),
        columns=tuple(robust[0].excess),
        rows=tuple(_row(run, place) for place in robust),
        sentence=_sentence(run, robust),
    )


def _row(run: SearchRun, place: FrontPlace) -> RobustRow:
    point = run.by_trial[place.trial]
    return RobustRow(
        title=run.title(point),
        loss=losses_text(run, point),
        costs=tuple(
            f"{si(point.columns.get(column), unit_of(column))} (+{_percent(excess)})"
            for column, excess in place.excess.items()
        ),
        worst=_percent(place.worst_ratio),
        recommended=run.robust is not None and place.trial == run.robust.trial,
    )


def _sentence(run: SearchRun, robust: list[FrontPlace]) -> str:
    place = next(one for one in robust if run.robust and one.trial == run.robust.trial)
    point = run.by_trial[place.trial]
    targets = ", ".join(target.name for target in run.manifest.targets)
    above = max(place.excess.values())
    return (
        f"Robust over {targets}: {run.title(point)}, at a loss of "
        f"{losses_text(run, point)}, on none above {_percent(place.worst_ratio)} of "
        f"the cost of the first choice everywhere, and at most {_percent(above)} above a target's "
        "own front."
    )


def _percent(share: float) -> str:
    """Three digits: shares beyond 1 are told from 1."""
    return f"{digits(100 * share)} %"
