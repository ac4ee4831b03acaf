"""The front and the uniform assignments as rows of text, for the console and the page."""

from __future__ import annotations

from dataclasses import dataclass

from dse.report.baseline import against_reference
from dse.report.run import Point, Run, Target
from dse.report.scheme import formats_phrase
from dse.report.unit import DASH, digits, loss_text, percent, ratio, si


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """What is shown, and what is sorted by."""

    text: str
    sort: float | str
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One point."""

    point: Point
    kind: str
    """`front`, `uniform` (off the front) or `recommended`."""
    cells: tuple[Cell, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Headings and rows; the first column is the point, the last its formats."""

    headings: tuple[str, ...]
    rows: tuple[Row, ...]


def front_table(run: Run) -> Table:
    """The front, cheapest first, then the uniform assignments that are not on it."""
    front = {point.trial for point in run.front}
    beside = tuple(point for point in run.uniforms if point.trial not in front)
    headings = ["point", "loss (nats)", run.manifest.metric.replace("_", " ")]
    for target in run.manifest.targets:
        headings += [f"{target.name} latency", "vs bf16", "energy", "native"]
    headings += ["weights", "formats"]
    rows = (_row(run, point, front) for point in (*run.front, *beside))
    return Table(headings=tuple(headings), rows=tuple(rows))


def _row(run: Run, point: Point, front: set[int]) -> Row:
    recommended = run.recommendation is not None and run.recommendation.trial == point.trial
    kind = "recommended" if recommended else "front" if point.trial in front else "uniform"
    metric = point.columns.get(run.manifest.metric)
    cells = [
        Cell(text=point.title, sort=point.trial, detail=point.source),
        Cell(
            text=loss_text(point.loss, point.stderr),
            sort=_order(point.loss),
            detail="" if point.on_report else "search split",
        ),
        Cell(text=digits(metric, 4) if metric is not None else DASH, sort=_order(metric)),
    ]
    for target in run.manifest.targets:
        cells += _costs(run, point, target)
    weight = point.cost("weight_bytes", run.manifest.targets[0].name)
    chosen = run.choices.get(point.trial, {})
    cells.append(Cell(text=si(weight, "B"), sort=_order(weight)))
    cells.append(Cell(text=formats_phrase(chosen) if chosen else DASH, sort=str(chosen)))
    return Row(point=point, kind=kind, cells=tuple(cells))


def _costs(run: Run, point: Point, target: Target) -> list[Cell]:
    latency = point.cost("latency_s", target.name)
    energy = point.cost("energy_j", target.name)
    native = point.native_share(target.name)
    several = f"{target.name}.latency_s"
    column = several if several in point.columns else "latency_s"
    speed = against_reference(run, point, column)
    return [
        Cell(text=si(latency, "s"), sort=_order(latency)),
        Cell(text=ratio(speed), sort=_order(speed)),
        Cell(text=si(energy, "J"), sort=_order(energy)),
        Cell(text=percent(native), sort=_order(native)),
    ]


def _order(value: float | None) -> float:
    """A value to sort by; what was not measured comes last."""
    return 1e300 if value is None else value
