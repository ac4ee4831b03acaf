"""Hardware and precision side by side: chips of the front, what they take, what runs on them."""

from __future__ import annotations

import html
import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from dse.report.figures import theme
from dse.report.figures.hover import hover
from dse.report.figures.view import Key, View
from dse.report.quantities.axis import Axis, cost_axes
from dse.report.quantities.hardware import labels, parameters, values_text
from dse.report.quantities.unit import digits
from dse.run.entries import MeasuredPoint
from dse.run.scheme import colours
from dse.run.search_run import SearchRun

ROWS = 16
"""Chips that are drawn side by side: the recommended one, and those most unlike each other."""
ROW_PIXELS = 27
SMALL, LARGE = "#eef3f9", "#7fb0dc"
"""Least and greatest value of a parameter."""
BAR = "#b9c9da"
CHIPS_HEIGHT = 470


def side_by_side_view(run: SearchRun) -> View | None:
    """A row a chip: its hardware, what it takes and loses, and the formats that run on it."""
    varied = parameters(run)
    if not varied or not run.front:
        return None
    points = _unlike(run)
    axes = _measures(run)
    figure = make_subplots(
        rows=1, cols=len(axes) + 3, shared_yaxes=True, horizontal_spacing=0.012,
        column_widths=[max(0.9 * len(varied), 1.6), *([0.85] * (len(axes) + 1)), 2.3],
    )  # fmt: skip
    rows = list(range(len(points)))
    _add_hardware(figure, run, points)
    for column, axis in enumerate(axes, start=2):
        values = [axis.scaled(point) or 0.0 for point in points]
        texts = [f"{digits(value)}" for value in values]
        _add_bars(figure, column, values, texts, f"{axis.label}<br>{axis.prefixed}")
    losses = [point.loss or 0.0 for point in points]
    texts = [digits(loss, 2) if loss >= 1e-3 else f"{loss:.1e}" for loss in losses]
    heights = _log_heights(losses)
    _add_bars(figure, len(axes) + 2, heights, texts, "loss<br>log scale")
    palette = _add_formats(figure, run, points, len(axes) + 3)
    theme.styled(
        figure, height=ROW_PIXELS * len(points) + 92, barmode="stack", bargap=0.24,
        showlegend=False, margin={"l": 28, "r": 8, "t": 74, "b": 12},
    )  # fmt: skip
    figure.update_yaxes(
        autorange=False, range=[len(points) - 0.5, -0.5], showgrid=False, fixedrange=True,
        tickvals=rows, showticklabels=False,
    )  # fmt: skip
    figure.update_yaxes(
        col=1, showticklabels=True,
        ticktext=["<b>★</b>" if run.is_recommended(point) else "" for point in points],
        tickfont={"color": theme.STAR, "size": 15},
    )  # fmt: skip
    figure.update_xaxes(side="top", showgrid=False, fixedrange=True, zeroline=False)
    for row, point in enumerate(points):
        if run.is_recommended(point):
            figure.add_hrect(
                y0=row - 0.5, y1=row + 0.5, line={"color": theme.INK, "width": 1.6},
                fillcolor="rgba(0,0,0,0)",
            )  # fmt: skip
    return View(
        name="side-by-side",
        figure=figure,
        label="Table of chips of the front: hardware, costs, loss, and shares of formats",
        keys=(Key(title="share of the layers", colours=palette),),
    )


def chips_view(run: SearchRun) -> View | None:
    """Every chip of the front: two costs as axes, the loss as colour."""
    if not parameters(run) or len(_measures(run)) < 2:
        return None
    axes = {axis.column: axis for axis in _measures(run)}
    area = next((name for name in axes if name.endswith("area_mm2")), None)
    across = axes[area] if area else list(axes.values())[1]
    up = next(axis for axis in axes.values() if axis is not across)
    points = [p for p in run.front if p.loss and p.loss > 0]
    logs = [math.log10(point.loss or 1.0) for point in points]
    ticks = list(range(math.ceil(min(logs, default=0)), math.floor(max(logs, default=0)) + 1))
    figure = go.Figure(
        go.Scatter(
            x=[across.scaled(point) for point in points],
            y=[up.scaled(point) for point in points],
            mode="markers", hoverinfo="text",
            hovertext=[
                f"{html.escape(values_text(point))}<br>{hover(run, point)}" for point in points
            ],
            marker={
                "size": 9, "color": logs, "colorscale": "Viridis", "line": {"width": 0},
                "colorbar": {
                    "title": {"text": "loss", "side": "right"}, "thickness": 12,
                    "tickvals": ticks, "ticktext": [f"10<sup>{tick}</sup>" for tick in ticks],
                    "outlinewidth": 0,
                },
            },
        )
    )  # fmt: skip
    if (star := run.recommended) is not None:
        figure.add_trace(
            go.Scatter(
                x=[across.scaled(star)], y=[up.scaled(star)], mode="markers", hoverinfo="text",
                hovertext=[hover(run, star)], showlegend=False,
                marker={"size": 17, "symbol": "star", "color": theme.STAR,
                        "line": {"color": "white", "width": 1}},
            )
        )  # fmt: skip
    theme.styled(figure, height=CHIPS_HEIGHT, hovermode="closest", showlegend=False)
    figure.update_xaxes(title_text=across.title)
    figure.update_yaxes(title_text=up.title, rangemode="tozero")
    return View(
        name="chips",
        figure=figure,
        label=f"Scatter plot of {up.label} over {across.label} of every point of the front",
        tools=True,
    )


def _measures(run: SearchRun) -> list[Axis]:
    """The cost objectives, area first."""
    known = {axis.column: axis for axis in cost_axes(run)}
    found = [known[column] for column in run.cost_objectives if column in known]
    return sorted(found, key=lambda axis: not axis.column.endswith("area_mm2"))


def _unlike(run: SearchRun) -> list[MeasuredPoint]:
    """Chips of the front that are most unlike in their objectives, cheapest first.

    One after the other the point that is farthest from those before it, the recommended first.
    """
    columns = [axis.column for axis in _measures(run)]
    points = [p for p in run.front if all(p.columns.get(name) for name in columns)]
    losses = [max(point.loss or 0.0, 1e-12) for point in points]
    values = np.log(
        np.column_stack([[p.columns[name] for p in points] for name in columns] + [losses])
    )
    values = (values - values.min(axis=0)) / np.maximum(np.ptp(values, axis=0), 1e-9)
    first = next((i for i, point in enumerate(points) if run.is_recommended(point)), 0)
    chosen = [first]
    distance = np.linalg.norm(values - values[first], axis=1)
    while len(chosen) < min(ROWS, len(points)):
        chosen.append(int(np.argmax(distance)))
        distance = np.minimum(distance, np.linalg.norm(values - values[chosen[-1]], axis=1))
    return sorted((points[i] for i in chosen), key=lambda point: point.columns[columns[0]])


def _add_hardware(figure: go.Figure, run: SearchRun, points: Sequence[MeasuredPoint]) -> None:
    """Cells with the values of the parameters, darker where there is more."""
    varied, short = parameters(run), labels(run)
    cells = [[point.hardware.get(one.name, "") for one in varied] for point in points]
    shades = [
        [
            one.values.index(cell) / max(len(one.values) - 1, 1) if cell in one.values else 0.0
            for one, cell in zip(varied, row, strict=True)
        ]
        for row in cells
    ]
    figure.add_trace(
        go.Heatmap(
            z=shades, text=cells, texttemplate="%{text}", textfont={"size": 11.5},
            colorscale=[[0, SMALL], [1, LARGE]], zmin=0, zmax=1, showscale=False,
            xgap=2, ygap=2, hoverinfo="skip",
        ),
        row=1, col=1,
    )  # fmt: skip
    figure.update_xaxes(
        col=1, tickvals=list(range(len(varied))),
        ticktext=[html.escape(short[one.name]).replace(" ", "<br>") for one in varied],
        tickfont={"size": 11.5, "color": theme.INK},
    )  # fmt: skip


def _add_bars(
    figure: go.Figure, column: int, values: Sequence[float], texts: Sequence[str], title: str
) -> None:
    """Bars with their numbers."""
    most = max(values, default=1.0) or 1.0
    figure.add_trace(
        go.Bar(
            x=list(values), y=list(range(len(values))), orientation="h", text=list(texts),
            textposition="inside", insidetextanchor="start", textangle=0,
            textfont={"size": 11.5, "color": theme.INK}, constraintext="none",
            marker={"color": BAR}, hoverinfo="skip",
        ),
        row=1, col=column,
    )  # fmt: skip
    figure.update_xaxes(
        col=column, range=[0, most * 1.05], tickvals=[most / 2], ticktext=[title],
        tickfont={"size": 11.5, "color": theme.INK},
    )  # fmt: skip


def _log_heights(losses: Sequence[float]) -> list[float]:
    """Bars of losses on a logarithmic scale, from a little below the least."""
    least = min((loss for loss in losses if loss > 0), default=1.0)
    return [math.log10(max(loss, least) / least) + 0.25 for loss in losses]


def _add_formats(
    figure: go.Figure, run: SearchRun, points: Sequence[MeasuredPoint], column: int
) -> dict[str, str]:
    """Shares of the formats, by number of variables."""
    every = colours(run.manifest.choices)
    counts = [Counter(run.chosen(point).values()) for point in points]
    used = {name: hue for name, hue in every.items() if any(count[name] for count in counts)}
    for name, hue in used.items():
        figure.add_trace(
            go.Bar(
                x=[count[name] / max(count.total(), 1) for count in counts],
                y=list(range(len(points))), orientation="h", marker={"color": hue},
                hovertext=[
                    f"{html.escape(name)}: {count[name]} of {count.total()}" for count in counts
                ],
                hoverinfo="text",
            ),
            row=1, col=column,
        )  # fmt: skip
    figure.update_xaxes(
        col=column, range=[0, 1.0], tickvals=[0.5], ticktext=["formats"],
        tickfont={"size": 11.5, "color": theme.INK},
    )  # fmt: skip
    return used
