"""Tables, CSV files and pages of sweeps over figures of a device."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from dse.cli.check import write_table
from dse.cli.screen import Rows, Screen, Value
from dse.report.quantities.unit import si

if TYPE_CHECKING:
    from dse.report.quantities.sweep import SweepPoint
    from dse.sweep import Swept, Variation

PAGE = (".html", ".htm")
TABLE = (".csv", ".gz")


def check_outputs(out: Path | None, plot: Path | None) -> None:
    """Raises `BadParameter` for files whose names say something else than what is written."""
    if out is not None and out.suffix not in TABLE:
        raise typer.BadParameter(f"-o {out}: --sweep writes a table; expected a name in .csv")
    if plot is not None and plot.suffix not in PAGE:
        raise typer.BadParameter(f"--plot {plot}: expected a name in .html")


def say_sweep(
    screen: Screen,
    found: Sequence[Swept],
    variation: Variation,
    devices: Sequence[str],
    *,
    model: str,
    out: Path | None,
    plot: Path | None,
    as_json: bool,
) -> None:
    """Print a sweep's table, and write it and its page where asked for."""
    import pandas as pd  # noqa: PLC0415

    from dse.report.quantities.sweep import record, sentences  # noqa: PLC0415
    from dse.report.sweep import write_sweep  # noqa: PLC0415

    points = [one.point for one in found]
    remarks = [
        *variation.remarks(devices),
        *dict.fromkeys(remark for one in found for remark in one.prediction.remarks),
    ]
    if out is not None:
        write_table(pd.DataFrame([record(point) for point in points]), out)
    if plot is not None:
        write_sweep(
            plot, model=model, axes=variation.axes(devices), points=points, remarks=remarks
        )
    if as_json:
        screen.json([record(point) for point in points])
        return
    screen.table(_rows(tuple(variation.swept), points))
    for sentence in sentences(points):
        screen.result(sentence)
    for remark in remarks:
        screen.remark(remark)
    for written in (out, plot):
        if written is not None:
            screen.remark(f"wrote {written}")


def _rows(keys: tuple[str, ...], points: Sequence[SweepPoint]) -> Rows:
    """One row a point; columns that say one thing of all are left out."""
    devices = len({point.device for point in points}) > 1
    formats = len({point.format for point in points}) > 1
    areas = any(point.area_mm2 is not None for point in points)
    statuses = {point.status for point in points} != {"native"}
    shown = (
        *keys, *(("device",) if devices else ()), *(("format",) if formats else ()),
        "latency_s", "interval", "energy_j", "weight_bytes", "peak_bytes",
        *(("area",) if areas else ()), "bound by", *(("status",) if statuses else ()),
    )  # fmt: skip
    rows = tuple(tuple(_cells(point)[name] for name in shown) for point in points)
    return Rows(columns=shown, rows=rows)


def _cells(point: SweepPoint) -> dict[str, Value]:
    return {
        **point.settings,
        "device": point.device,
        "format": point.format,
        "latency_s": point.latency_s,
        "interval": f"{si(point.low_s, 's')} to {si(point.high_s, 's')}",
        "energy_j": point.energy_j,
        "weight_bytes": point.weight_bytes,
        "peak_bytes": point.peak_bytes,
        "area": None if point.area_mm2 is None else f"{point.area_mm2:.3g} mm2",
        "bound by": point.bound,
        "status": point.status,
    }
