"""Where the predicted time goes: by role, and by what bounds each region."""

from __future__ import annotations

import html
from collections.abc import Mapping

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from dse.report.baseline import gain
from dse.report.breakdown import Breakdown, breakdown
from dse.report.figures import theme
from dse.report.figures.view import View
from dse.report.run import Point, Run
from dse.report.scheme import short
from dse.report.unit import percent, si

BOUNDS = {
    "compute": "#004488", "memory": "#DDAA33", "launch": "#BB5566", "conversion": "#7a8290",
    "other": "#cfd5dc",
}  # fmt: skip
"""Paul Tol's "high contrast" and two greys."""

BAR = 30
"""Pixels a bar, with its gap."""


def time_view(run: Run) -> View | None:
    """Bars for the reference, the best uniform assignment and the recommended one.

    None where the run has no cost table.
    """
    places = [(t, p) for t in run.manifest.targets for p in run.manifest.phases] or [
        (t, None) for t in run.manifest.targets
    ]
    shown = compared(run)
    titles = [f"{t.name}, {p.name}" if p else t.name for t, p in places]
    if not run.costs or not shown:
        return None
    figure = make_subplots(
        rows=len(places), cols=2, column_widths=[0.62, 0.38], horizontal_spacing=0.03,
        vertical_spacing=0.34 / max(len(places), 1), shared_yaxes=True,
        subplot_titles=[title for name in titles for title in (html.escape(name), "")],
    )  # fmt: skip
    parts = {
        (row, point.trial): breakdown(run, point, target=t.name, phase=p.name if p else "")
        for row, (t, p) in enumerate(places, start=1)
        for point in shown
    }
    for row in range(1, len(places) + 1):
        column = {point.trial: parts[row, point.trial] for point in shown}
        _bars(figure, shown, {k: v.by_role for k, v in column.items()}, _roles(parts), row, 1)
        shares = {k: _shares(v) for k, v in column.items()}
        _bars(figure, shown, shares, BOUNDS, row, 2)
        _totals(figure, shown, column, row)
    _finish(figure, len(places), len(shown))
    return View(name="time", figure=figure, label="Stacked bars of predicted time by role")


def compared(run: Run) -> tuple[Point, ...]:
    """Reference, best uniform of no greater loss, and recommended, without repeats."""
    chosen = [run.reference, run.recommended]
    if run.recommended and run.cost_objectives:
        best = gain(run, run.recommended, run.cost_objectives[0])
        chosen.insert(1, best.baseline if best else None)
    return tuple({point.trial: point for point in chosen if point}.values())


def _roles(parts: Mapping[tuple[int, int], Breakdown]) -> dict[str, str]:
    """A colour by role, the roles that take most first."""
    total: dict[str, float] = {}
    for part in parts.values():
        for role, seconds in part.by_role.items():
            total[role] = total.get(role, 0.0) + seconds
    ordered = sorted(total, key=lambda role: -total[role])
    hues = theme.SEQUENCE * (len(ordered) // len(theme.SEQUENCE) + 1)
    return dict(zip(ordered, hues, strict=False))


def _shares(part: Breakdown) -> dict[str, float]:
    total = part.total_s or 1.0
    return {bound: seconds / total for bound, seconds in part.by_bound.items()}


def _bars(
    figure: go.Figure,
    shown: tuple[Point, ...],
    values: Mapping[int, Mapping[str, float]],
    palette: Mapping[str, str],
    row: int,
    col: int,
) -> None:
    for name, hue in palette.items():
        lengths = [values[point.trial].get(name, 0.0) for point in shown]
        if not any(any(v.get(name, 0.0) for v in values.values()) for _ in (0,)) and row > 1:
            continue
        figure.add_bar(
            x=lengths, y=[_title(point) for point in shown], orientation="h", name=name,
            marker={"color": hue, "line": {"color": "white", "width": 1}},
            legend="legend" if col == 1 else "legend2", legendgroup=f"{col}{name}",
            showlegend=row == 1, hoverinfo="text", textposition="none",
            hovertext=[f"{name}: {si(x, 's') if col == 1 else percent(x)}" for x in lengths],
            row=row, col=col,
        )  # fmt: skip


def _title(point: Point) -> str:
    return short(point.name) if point.name else f"recommended #{point.trial}"


def _totals(
    figure: go.Figure, shown: tuple[Point, ...], parts: Mapping[int, Breakdown], row: int
) -> None:
    totals = [parts[point.trial].total_s for point in shown]
    figure.add_scatter(
        x=totals, y=[_title(point) for point in shown], mode="text", showlegend=False,
        text=[" " + si(total, "s") for total in totals], textposition="middle right",
        textfont={"size": 12.5}, hoverinfo="skip", cliponaxis=False, row=row, col=1,
    )  # fmt: skip
    figure.update_xaxes(range=[0, max(totals) * 1.14 or 1], row=row, col=1)


def _finish(figure: go.Figure, places: int, bars: int) -> None:
    height = places * (bars * BAR + 46) + 90
    theme.styled(
        figure, height=height, barmode="stack", bargap=0.28,
        margin={"l": 110, "r": 12, "t": 86, "b": 8},
    )  # fmt: skip
    top = 1 + 40 / max(height - 94, 1)
    legend = {"orientation": "h", "yanchor": "bottom", "y": top, "traceorder": "normal"}
    figure.update_layout(
        legend={**legend, "x": 0, "xanchor": "left", "title": {"text": "time by role  "}},
        legend2={**legend, "x": 1, "xanchor": "right", "title": {"text": "bound by  "}},
    )
    figure.update_xaxes(showticklabels=False, showgrid=False, fixedrange=True)
    figure.update_xaxes(range=[0, 1], col=2)
    figure.update_yaxes(autorange="reversed", fixedrange=True, showgrid=False, ticks="")
    figure.update_yaxes(tickfont={"color": theme.INK}, col=1)
    for annotation in figure.layout.annotations:
        annotation.update(x=0, xanchor="left", font={"size": 13, "color": theme.INK})
