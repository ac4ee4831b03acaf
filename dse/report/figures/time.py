"""Shares of the predicted time: by role, and by what bounds each region."""

from __future__ import annotations

import html
from collections.abc import Mapping

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from dse.report.figures import theme
from dse.report.figures.view import Key, View
from dse.report.quantities.baseline import gain
from dse.report.quantities.breakdown import Breakdown, breakdown
from dse.report.quantities.unit import percent, si
from dse.run.entries import MeasuredPoint
from dse.run.search_run import SearchRun

BOUNDS = {
    "compute": "#004488", "memory": "#DDAA33", "launch": "#BB5566", "conversion": "#7a8290",
    "communication": "#a9b2bc", "other": "#cfd5dc",
}  # fmt: skip
"""Paul Tol's "high contrast" and three greys."""

BAR = 30
"""Pixels a bar, with its gap."""


def time_view(run: SearchRun) -> View | None:
    """Bars for the reference, the best uniform assignment and the recommended one.

    None where the run has no cost table.
    """
    phases = run.manifest.phases or (None,)
    places = [(target, phase) for target in run.manifest.targets for phase in phases]
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
    names = [_title(run, point) for point in shown]
    for row in range(1, len(places) + 1):
        column = [parts[row, point.trial] for point in shown]
        for name, hue in _roles(parts).items():
            seconds = [part.by_role.get(name, 0.0) for part in column]
            texts = [f"{name}: {si(value, 's')}" for value in seconds]
            figure.add_trace(_bar(seconds, names, texts, hue), row=row, col=1)
        for name, hue in _bounds(parts).items():
            shares = [part.by_bound.get(name, 0.0) / (part.total_s or 1.0) for part in column]
            texts = [f"{name}: {percent(value)}" for value in shares]
            figure.add_trace(_bar(shares, names, texts, hue), row=row, col=2)
        _totals(figure, names, column, row)
    _finish(figure, len(places), len(shown))
    keys = (
        Key(title="by role", colours=_roles(parts)),
        Key(title="bound by", colours=_bounds(parts)),
    )
    label = "Stacked bars of predicted time by role and by bound"
    return View(name="time", figure=figure, label=label, keys=keys)


def compared(run: SearchRun) -> tuple[MeasuredPoint, ...]:
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


def _bounds(parts: Mapping[tuple[int, int], Breakdown]) -> dict[str, str]:
    """A colour by bound that occurs."""
    found = {bound for part in parts.values() for bound in part.by_bound}
    return {
        bound: BOUNDS.get(bound, BOUNDS["other"]) for bound in (*BOUNDS, *found) if bound in found
    }


def _bar(lengths: list[float], names: list[str], texts: list[str], hue: str) -> go.Bar:
    """One part of every bar."""
    return go.Bar(
        x=lengths, y=names, orientation="h", showlegend=False, hovertext=texts, hoverinfo="text",
        marker={"color": hue, "line": {"color": "white", "width": 1}},
    )  # fmt: skip


def _title(run: SearchRun, point: MeasuredPoint) -> str:
    if point.name:
        return html.escape(run.title(point))
    return f"recommended {run.title(point)}" if run.is_recommended(point) else point.source


def _totals(figure: go.Figure, names: list[str], parts: list[Breakdown], row: int) -> None:
    totals = [part.total_s for part in parts]
    figure.add_scatter(
        x=totals, y=names, mode="text", showlegend=False,
        text=[" " + si(total, "s") for total in totals], textposition="middle right",
        textfont={"size": 12.5}, hoverinfo="skip", cliponaxis=False, row=row, col=1,
    )  # fmt: skip
    figure.update_xaxes(range=[0, max(totals) * 1.14 or 1], row=row, col=1)


def _finish(figure: go.Figure, places: int, bars: int) -> None:
    theme.styled(
        figure, height=places * (bars * BAR + 46) + 30, barmode="stack", bargap=0.28,
        margin={"l": 110, "r": 12, "t": 26, "b": 8},
    )  # fmt: skip
    figure.update_xaxes(showticklabels=False, showgrid=False, fixedrange=True)
    figure.update_xaxes(range=[0, 1], col=2)
    figure.update_yaxes(autorange="reversed", fixedrange=True, showgrid=False, ticks="")
    figure.update_yaxes(tickfont={"color": theme.INK}, col=1)
    for annotation in figure.layout.annotations:
        annotation.update(x=0, xanchor="left", font={"size": 13, "color": theme.INK})
