"""One page of a sweep: what a model costs over figures of a device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dse.files import write_atomically
from dse.report.figures.sweep import area_view, sweep_view
from dse.report.html import page
from dse.report.quantities.sweep import SweepAxis, SweepPoint, sentences
from dse.report.quantities.unit import DASH, si


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cell:
    """A cell of the table: what it shows, and what it is sorted by."""

    text: str
    sort: float | str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Columns:
    """Columns that say something of the points."""

    devices: bool
    formats: bool
    areas: bool


def write_sweep(
    out: Path,
    *,
    model: str,
    axes: Sequence[SweepAxis],
    points: Sequence[SweepPoint],
    remarks: Sequence[str] = (),
) -> None:
    """Write the page of a sweep.

    Args:
        out: The page.
        model: Its name among people.
        axes: What is swept.
        points: Prices, one a combination, device and format.
        remarks: What a reader must know.
    """
    shown = _Columns(
        devices=len({point.device for point in points}) > 1,
        formats=len({point.format for point in points}) > 1,
        areas=any(point.area_mm2 is not None for point in points),
    )
    text = page(
        "sweep.html.j2",
        title=f"{model} over {' and '.join(axis.key for axis in axes)}",
        answers=sentences(points),
        remarks=list(remarks),
        views=[view for view in (sweep_view(axes, points), area_view(axes, points)) if view],
        heads=[name for name, _ in _row(axes, points[0], shown)],
        rows=[[cell for _, cell in _row(axes, point, shown)] for point in points],
    )
    write_atomically(out, text)


def _row(axes: Sequence[SweepAxis], point: SweepPoint, shown: _Columns) -> list[tuple[str, _Cell]]:
    """Cells of a point under their columns."""
    area = point.area_mm2
    every = [
        *((axis.key, _setting(axis, point.settings[axis.key])) for axis in axes),
        ("device", _Cell(text=point.device, sort=point.device)),
        ("format", _Cell(text=point.format, sort=point.format)),
        ("latency", _Cell(text=si(point.latency_s, "s"), sort=point.latency_s)),
        ("interval", _Cell(text=f"{si(point.low_s, 's')} to {si(point.high_s, 's')}",
                           sort=point.low_s)),
        ("energy", _Cell(text=si(point.energy_j, "J"), sort=point.energy_j)),
        ("peak memory", _Cell(text=si(point.peak_bytes, "B"), sort=point.peak_bytes)),
        ("weights", _Cell(text=si(point.weight_bytes, "B"), sort=point.weight_bytes)),
        ("area", _Cell(text=DASH if area is None else f"{area:.3g} mm²", sort=area or 0.0)),
        ("bound by", _Cell(text=point.bound, sort=point.bound)),
        ("status", _Cell(text=point.status, sort=point.status)),
    ]  # fmt: skip
    hidden = {
        name
        for name, there in (
            ("device", shown.devices), ("format", shown.formats), ("area", shown.areas),
        )
        if not there
    }  # fmt: skip
    return [(name, cell) for name, cell in every if name not in hidden]


def _setting(axis: SweepAxis, value: str) -> _Cell:
    number = axis.numbers[value]
    if number is None:
        return _Cell(text=value, sort=value)
    return _Cell(text=f"{number:g} {axis.unit}".rstrip(), sort=number)
