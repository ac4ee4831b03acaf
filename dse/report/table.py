"""The front and the uniform assignments as rows of text, for the console and the page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from dse.evaluate.target_costs import AREA, POWER
from dse.report.quantities.axis import cost_axes
from dse.report.quantities.baseline import against_reference
from dse.report.quantities.hardware import values_text
from dse.report.quantities.losses import loss_heading
from dse.report.quantities.tie import MARK, is_tied
from dse.report.quantities.unit import (
    DASH,
    digits,
    loss_text,
    percent,
    ratio,
    si,
    spread_text,
)
from dse.run.entries import MeasuredPoint
from dse.run.manifest import TargetEntry
from dse.run.scheme import colours, formats_phrase
from dse.run.search_run import SearchRun

SCORE, STDERR = "score.", "_stderr"
"""Begin and end of the columns of tasks' scores and their standard errors."""
LOSSES = {"quality_loss", "report_quality_loss"}
HARDWARE = "hardware"
"""Heading of the values of what varies of it."""
ALWAYS = ("latency_s", "energy_j", "weight_bytes", AREA, POWER)
"""Costs that have a column whatever the objectives are."""
MEASURED = "measured"
"""Stands beside a number that was measured outside: others are emulated, or predicted."""

RowKind = Literal["front", "uniform", "recommended"]
"""On the front, a uniform assignment that is not, or the point to take."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """The text that is shown, and the value that is sorted by."""

    text: str
    sort: float | str
    detail: str = ""
    strip: tuple[tuple[str, float], ...] = ()
    """A bar of coloured parts, each with its percentage."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One point."""

    kind: RowKind
    uniform: bool
    broken: bool
    """Whether it breaks a constraint: shown beside the front, not to be taken."""
    cells: tuple[Cell, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Headings and rows; the first column is the point, the last its formats."""

    headings: tuple[str, ...]
    rows: tuple[Row, ...]
    broken: str
    """The constraints that rows break; empty if none."""
    tied: bool
    """Whether some latency's place on the front is not certain."""


def front_table(run: SearchRun) -> Table:
    """The front, cheapest first, then the uniform assignments that are not on it.

    Energy is that of the first target; a target's native share comes where it is ever below one,
    its loss where it may execute another network.
    """
    front = {point.trial for point in run.front}
    beside = tuple(point for point in run.uniforms if point.trial not in front)
    points = (*run.front, *beside)
    columns = {
        "point": [_name(run, point) for point in points],
        loss_heading(run): [_loss(point) for point in points],
        **_metric(run, points),
        **_scores(points),
        **_objectives(run, points),
        **_costs(run, points),
        **_hardware(run, points),
        "formats": [_formats(run, point) for point in points],
    }
    rows = zip(points, zip(*columns.values(), strict=True), strict=True)
    return Table(
        headings=tuple(columns),
        rows=tuple(
            Row(
                kind=_kind(run, p, front),
                uniform=p.source == "uniform",
                broken=bool(run.broken(p)),
                cells=cells,
            )
            for p, cells in rows
        ),
        broken=", ".join(dict.fromkeys(str(one) for p in points for one in run.broken(p))),
        tied=any(cell.detail.endswith(MARK) for cells in columns.values() for cell in cells),
    )


def _kind(run: SearchRun, point: MeasuredPoint, front: set[int]) -> RowKind:
    if run.is_recommended(point):
        return "recommended"
    return "front" if point.trial in front else "uniform"


def _name(run: SearchRun, point: MeasuredPoint) -> Cell:
    return Cell(text=run.title(point), sort=point.trial, detail="tied" if point.tied else "")


def _loss(point: MeasuredPoint) -> Cell:
    detail = "" if point.on_report else "search split"
    if LOSSES & set(point.told):
        detail = MEASURED
    return replace(_loss_on(point, ""), detail=detail)


def _loss_on(point: MeasuredPoint, target: str) -> Cell:
    loss = point.loss_on(target)
    return Cell(text=loss_text(loss, point.stderr_on(target)), sort=_order(loss))


def _metric(run: SearchRun, points: Sequence[MeasuredPoint]) -> dict[str, list[Cell]]:
    name = run.manifest.metric
    values = [point.columns.get(name) for point in points]
    if not name or not any(values):
        return {}
    return {
        name.replace("_", " "): [
            Cell(text=DASH if value is None else digits(value, 4), sort=_order(value))
            for value in values
        ]
    }


def _scores(points: Sequence[MeasuredPoint]) -> dict[str, list[Cell]]:
    """Scores of tasks that were measured outside, with their standard errors."""
    names = dict.fromkeys(
        name for point in points for name in point.told if name.startswith(SCORE)
    )
    return {
        name.removeprefix(SCORE).replace("_", " "): [_score(point, name) for point in points]
        for name in names
        if not name.endswith(STDERR)
    }


def _score(point: MeasuredPoint, name: str) -> Cell:
    value, error = point.columns.get(name), point.columns.get(f"{name}{STDERR}")
    return Cell(
        text=DASH if value is None else digits(value, 4),
        sort=_order(value),
        detail="" if error is None else f"± {digits(error, 2)}",
    )


def _objectives(run: SearchRun, points: Sequence[MeasuredPoint]) -> dict[str, list[Cell]]:
    """Objectives that the columns of every run do not show: costs of served requests, a phase."""
    return {
        axis.label: [_gained(run, point, axis.column, axis.unit) for point in points]
        for axis in cost_axes(run)
        if axis.column in run.cost_objectives and _quantity(run, axis.column) not in ALWAYS
    }


def _quantity(run: SearchRun, column: str) -> str:
    """A column without its target; one of a phase keeps that."""
    prefixes = (f"{target.name}." for target in run.manifest.targets)
    return next((column.removeprefix(one) for one in prefixes if column.startswith(one)), column)


def _gained(run: SearchRun, point: MeasuredPoint, column: str, unit: str) -> Cell:
    """A cost, how many times less it is than the reference's, and whether its place is certain."""
    value, gained = point.columns.get(column), against_reference(run, point, column)
    detail = ""
    if gained is not None:
        detail = spread_text(gained.speedup) if gained.speedup else ratio(gained.factor)
    if column in point.told:
        detail = f"{detail} {MEASURED}".lstrip()
    elif is_tied(run, point, column):
        detail = f"{detail} {MARK}".lstrip()
    return Cell(text=si(value, unit), sort=_order(value), detail=detail)


def _costs(run: SearchRun, points: Sequence[MeasuredPoint]) -> dict[str, list[Cell]]:
    columns: dict[str, list[Cell]] = {}
    first = run.manifest.targets[0].name
    for target in run.manifest.targets:
        if target.apart:
            columns[f"{target.name} loss"] = [_loss_on(point, target.name) for point in points]
        columns[f"{target.name} latency"] = [_latency(run, point, target) for point in points]
        if target.name == first:
            columns["energy"] = [_cost(point.cost("energy_j", first), "J") for point in points]
        shares = [point.native_share(target.name) for point in points]
        if any(share is not None and share < 1 for share in shares):
            columns[f"native on {target.name}"] = [
                Cell(text=percent(share), sort=_order(share)) for share in shares
            ]
    columns["weights"] = [_cost(point.cost("weight_bytes", first), "B") for point in points]
    return columns


def _hardware(run: SearchRun, points: Sequence[MeasuredPoint]) -> dict[str, list[Cell]]:
    """Area and power where they are known, and what varies of the hardware."""
    if run.manifest.hardware is None:
        return {}
    prefix = f"{run.manifest.hardware.target}." if len(run.manifest.targets) > 1 else ""
    columns = {}
    for name, heading, unit in ((AREA, "area", "mm²"), (POWER, "power", "W")):
        values = [point.columns.get(f"{prefix}{name}") for point in points]
        if any(values):
            columns[heading] = [_cost(value, unit) for value in values]
    text = [values_text(point) for point in points]
    return {**columns, HARDWARE: [Cell(text=one, sort=one) for one in text]}


def _latency(run: SearchRun, point: MeasuredPoint, target: TargetEntry) -> Cell:
    """Seconds on a target."""
    return _gained(run, point, point.cost_column("latency_s", target.name), "s")


def _cost(value: float | None, unit: str) -> Cell:
    return Cell(text=si(value, unit), sort=_order(value))


def _formats(run: SearchRun, point: MeasuredPoint) -> Cell:
    """Number of variables that take each scheme, in words and as a coloured strip."""
    chosen = run.chosen(point)
    if not chosen:
        return Cell(text=DASH, sort="")
    counts = Counter(chosen.values())
    shares = (
        (hue, 100 * counts[choice] / len(chosen))
        for choice, hue in colours(run.manifest.choices).items()
        if counts[choice]
    )
    phrase = formats_phrase([run.short[choice] for choice in chosen.values()])
    return Cell(text=phrase, sort=phrase, strip=tuple(shares))


def _order(value: float | None) -> float:
    """A value to sort by; what was not measured comes last."""
    return 1e300 if value is None else value
