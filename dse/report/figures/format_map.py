"""Which variable takes which scheme at which point of the front."""

from __future__ import annotations

import html

import plotly.graph_objects as go

from dse.report.figures import theme
from dse.report.figures.view import View
from dse.report.run import Point, Run, Variable
from dse.report.scheme import colours
from dse.report.unit import digits

ROW = (11, 22)
"""Least and greatest height of a row in pixels."""
TALLEST = 1400


def format_map_view(run: Run) -> View:
    """Rows are variables from input to output, columns the front from cheap to accurate."""
    choices = run.manifest.choices
    rows = [v for v in run.manifest.variables if len(v.choices) > 1] or run.manifest.variables
    codes = {choice: float(code) for code, choice in enumerate(choices)}
    chosen = [run.choices.get(point.trial, {}) for point in run.front]
    palette = colours(choices)
    figure = go.Figure(
        go.Heatmap(
            z=[[codes.get(one.get(row.name, "")) for one in chosen] for row in rows],
            text=[[_hover(row, p, one) for p, one in zip(run.front, chosen, strict=True)]
                  for row in rows],
            hoverinfo="text", xgap=2, ygap=1, showscale=False,
            zmin=-0.5, zmax=len(choices) - 0.5, colorscale=_steps(list(palette.values())),
        )
    )  # fmt: skip
    height = min(max(ROW[1] * len(rows), ROW[0] * len(rows)), max(TALLEST, ROW[0] * len(rows)))
    theme.styled(figure, height=height + 130, margin={"l": 90, "r": 8, "t": 46, "b": 12})
    figure.update_xaxes(
        side="top", showgrid=False, tickangle=-60, fixedrange=True,
        tickvals=list(range(len(run.front))), ticktext=[_column(run, p) for p in run.front],
        tickfont={"size": 11},
    )  # fmt: skip
    figure.update_yaxes(
        autorange="reversed", showgrid=False, fixedrange=True, tickvals=list(range(len(rows))),
        ticktext=[html.escape(row.label) for row in rows],
        tickfont={"size": 11.5 if height / len(rows) > 15 else 9},
    )  # fmt: skip
    _blocks(figure, rows)
    _mark(figure, run)
    return View(name="format-map", figure=figure, label="Map of the scheme of every variable")


def _column(run: Run, point: Point) -> str:
    loss = digits(point.loss, 2) if point.loss is not None else ""
    text = html.escape(point.title if point.source != "uniform" else "uniform") + f" · {loss}"
    return f"<b>★ {text}</b>" if point is run.recommended or _recommended(run, point) else text


def _recommended(run: Run, point: Point) -> bool:
    return run.recommendation is not None and run.recommendation.trial == point.trial


def _hover(row: Variable, point: Point, chosen: dict[str, str] | object) -> str:
    choice = chosen.get(row.name, "") if hasattr(chosen, "get") else ""
    return f"<b>{html.escape(row.name)}</b><br>{html.escape(choice)}<br>in {html.escape(point.title)}"


def _steps(hues: list[str]) -> list[tuple[float, str]]:
    """A colour scale of flat steps, one a choice."""
    count = len(hues)
    edges = [(i / count, (i + 1) / count, hue) for i, hue in enumerate(hues)]
    return [stop for low, high, hue in edges for stop in ((low, hue), (high, hue))]


def _blocks(figure: go.Figure, rows: list[Variable]) -> None:
    """A thin gap between blocks."""
    for index in range(1, len(rows)):
        if rows[index].block != rows[index - 1].block:
            figure.add_hline(y=index - 0.5, line={"color": "white", "width": 4})


def _mark(figure: go.Figure, run: Run) -> None:
    """A frame around the recommended column."""
    for index, point in enumerate(run.front):
        if _recommended(run, point):
            figure.add_vrect(
                x0=index - 0.5, x1=index + 0.5, line={"color": theme.INK, "width": 2},
                fillcolor="rgba(0,0,0,0)",
            )  # fmt: skip
