"""The scheme of each variable at each point of the front."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence

import plotly.graph_objects as go

from dse.report.figures import theme
from dse.report.figures.view import Key, View
from dse.report.quantities.unit import digits
from dse.run.entries import MeasuredPoint
from dse.run.manifest import VariableEntry
from dse.run.scheme import colours
from dse.run.search_run import SearchRun

ROW = (11, 22)
"""Least and greatest height of a row in pixels."""
TALLEST = 1400


def format_map_view(run: SearchRun) -> View:
    """Rows are variables from input to output, columns the front from cheap to accurate."""
    choices = run.manifest.choices
    rows = run.searched
    codes = {choice: float(code) for code, choice in enumerate(choices)}
    front = _shown(run)
    chosen = [run.chosen(point) for point in front]
    palette = colours(choices)
    figure = go.Figure(
        go.Heatmap(
            z=[[codes.get(one.get(row.name, "")) for one in chosen] for row in rows],
            text=[[_hover(row, p, one) for p, one in zip(front, chosen, strict=True)]
                  for row in rows],
            hoverinfo="text", xgap=2, ygap=1, showscale=False,
            zmin=-0.5, zmax=len(choices) - 0.5, colorscale=_steps(list(palette.values())),
        )
    )  # fmt: skip
    height = len(rows) * min(max(TALLEST // max(len(rows), 1), ROW[0]), ROW[1])
    theme.styled(figure, height=height + 130, margin={"l": 90, "r": 44, "t": 46, "b": 12})
    figure.update_xaxes(
        side="top", showgrid=False, tickangle=-60, fixedrange=True,
        tickvals=list(range(len(front))), ticktext=[_column(run, p) for p in front],
        tickfont={"size": 11}, ticklabeloverflow="allow", ticks="",
    )  # fmt: skip
    figure.update_yaxes(
        autorange="reversed", showgrid=False, fixedrange=True, tickvals=list(range(len(rows))),
        ticktext=[html.escape(row.label) for row in rows],
        tickfont={"size": 11.5 if height > 15 * len(rows) else 9},
    )  # fmt: skip
    _blocks(figure, rows)
    _mark(figure, run, front)
    return View(
        name="format-map",
        figure=figure,
        label="Map of the scheme of every variable",
        keys=(Key(title="", colours=palette),),
    )


def _shown(run: SearchRun) -> list[MeasuredPoint]:
    """The front; of what is one assignment on several hardware points the recommended or first."""
    if run.manifest.hardware is None:
        return list(run.front)
    ordered = sorted(run.front, key=lambda point: not run.is_recommended(point))
    firsts = {point.digest: point.trial for point in reversed(ordered)}
    return [point for point in run.front if point.trial == firsts[point.digest]]


def _column(run: SearchRun, point: MeasuredPoint) -> str:
    loss = digits(point.loss, 2) if point.loss is not None else ""
    text = f"{html.escape(run.title(point))} · {loss}"
    return f"<b>★ {text}</b>" if run.is_recommended(point) else text


def _hover(row: VariableEntry, point: MeasuredPoint, chosen: Mapping[str, str]) -> str:
    choice = html.escape(chosen.get(row.name, ""))
    return f"<b>{html.escape(row.name)}</b><br>{choice}<br>in {html.escape(point.title)}"


def _steps(hues: list[str]) -> list[tuple[float, str]]:
    """A colour scale of flat steps, one a choice."""
    count = len(hues)
    edges = [(i / count, (i + 1) / count, hue) for i, hue in enumerate(hues)]
    return [stop for low, high, hue in edges for stop in ((low, hue), (high, hue))]


def _blocks(figure: go.Figure, rows: Sequence[VariableEntry]) -> None:
    """A thin gap between blocks."""
    for index in range(1, len(rows)):
        if rows[index].block != rows[index - 1].block:
            figure.add_hline(y=index - 0.5, line={"color": "white", "width": 4})


def _mark(figure: go.Figure, run: SearchRun, front: Sequence[MeasuredPoint]) -> None:
    """A frame around the recommended column."""
    for index, point in enumerate(front):
        if run.is_recommended(point):
            figure.add_vrect(
                x0=index - 0.5, x1=index + 0.5, line={"color": theme.INK, "width": 2},
                fillcolor="rgba(0,0,0,0)",
            )  # fmt: skip
