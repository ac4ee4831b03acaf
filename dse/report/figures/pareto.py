"""Loss over cost: the front, the uniform assignments, and everything else that was measured."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable
from dataclasses import dataclass

import plotly.graph_objects as go

from dse.report.figures import theme
from dse.report.figures.hover import hover
from dse.report.figures.label import Box, positions
from dse.report.figures.view import Button, View
from dse.report.quantities.axis import Axis, cost_axes
from dse.report.quantities.unit import digits
from dse.run.entries import MeasuredPoint
from dse.run.scheme import colours
from dse.run.search_run import SearchRun

HEIGHT = 520
PLOT = (780, 380)
"""The area of the points that names are placed for: a little narrower than at 1280 pixels."""

FRAME = Box(-50, -15, PLOT[0] + 50, PLOT[1] + 20)

NOWHERE = (-1e6, -1e6)
"""The margin for points that the plot cannot show."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Points that are drawn alike."""

    points: tuple[MeasuredPoint, ...]
    axis: Axis

    @property
    def x(self) -> list[float | None]:
        """Cost in the axis' unit."""
        return [self.axis.scaled(point) for point in self.points]

    @property
    def y(self) -> list[float | None]:
        """Loss; None at zero or below, which a logarithmic axis cannot show."""
        return [loss if loss and loss > 0 else None for loss in self.losses]

    @property
    def losses(self) -> list[float | None]:
        """Of what the axis' target executes."""
        return [point.loss_on(self.axis.owner) for point in self.points]


def pareto_view(run: SearchRun) -> View:
    """The plot, with a button for every cost and one for the loss axis."""
    axes = cost_axes(run)
    first = _groups(run, axes[0])
    figure = go.Figure([
        _cloud(run, first[0]), _line(first[1]), _front(run, first[2]), _uniforms(run, first[3]),
        _star(run, first[4]),
    ])  # fmt: skip
    theme.styled(figure, height=HEIGHT, hovermode="closest", **_layout(run, axes[0]))
    figure.update_yaxes(
        title_text=f"quality loss ({run.loss_unit})",
        type="log",
        dtick=1,
        minor={"showgrid": False},
    )
    costs = tuple(_cost_button(run, axis) for axis in axes)
    scales = (
        Button(label="log loss", relayout={"yaxis.type": "log", "yaxis.dtick": 1}),
        Button(label="linear loss", relayout={"yaxis.type": "linear", "yaxis.dtick": None}),
    )
    label = "Scatter plot of quality loss over predicted cost for every measured assignment"
    return View(name="pareto", figure=figure, label=label, buttons=(costs, scales), tools=True)


def staircase(
    points: Iterable[MeasuredPoint], column: str, *, owner: str = ""
) -> tuple[MeasuredPoint, ...]:
    """The points that no other beats in this cost and in loss, cheapest first.

    Args:
        points: any.
        column: a cost.
        owner: the target whose loss belongs to it (`SearchRun.owner`).
    """
    known = [
        (point.columns[column], loss, place, point)
        for place, point in enumerate(points)
        if (loss := point.loss_on(owner)) is not None and column in point.columns
    ]
    kept: list[MeasuredPoint] = []
    least = math.inf
    for _, loss, _, point in sorted(known, key=lambda entry: entry[:3]):
        if not kept or loss < least:
            kept.append(point)
            least = loss
    return tuple(kept)


def _groups(run: SearchRun, axis: Axis) -> tuple[Group, Group, Group, Group, Group]:
    """Cloud, staircase, front, uniforms, recommended."""
    front = {point.trial for point in run.front}
    cloud = tuple(
        p for p in run.points if p.trial not in front and p.source not in ("uniform", "reference")
    )
    own = tuple(point for point in run.front if point.source != "uniform")
    star = (run.recommended,) if run.recommended else ()
    allowed = [point for point in run.uniforms if not run.broken(point)]
    steps = staircase((*run.front, *allowed), axis.column, owner=axis.owner)
    members = (cloud, steps, own, run.uniforms, star)
    return tuple(Group(points=points, axis=axis) for points in members)  # type: ignore[return-value]


def _texts(run: SearchRun, points: Iterable[MeasuredPoint]) -> list[str]:
    return [hover(run, point) for point in points]


def _cloud(run: SearchRun, group: Group) -> go.Scatter:
    return go.Scatter(
        x=group.x, y=group.y, mode="markers", name="other trials",
        hovertext=_texts(run, group.points), hoverinfo="text",
        marker={"size": 6, "color": theme.FAINT, "opacity": 0.8},
    )  # fmt: skip


def _line(group: Group) -> go.Scatter:
    return go.Scatter(
        x=group.x, y=group.y, mode="lines", showlegend=False, hoverinfo="skip",
        line={"shape": "hv", "color": theme.ACCENT, "width": 1.2}, opacity=0.5,
    )  # fmt: skip


def _front(run: SearchRun, group: Group) -> go.Scatter:
    return go.Scatter(
        x=group.x, y=group.y, mode="markers", name="front",
        hovertext=_texts(run, group.points), hoverinfo="text",
        error_y=_error_bars(group), marker={"size": 8, "color": theme.ACCENT},
    )  # fmt: skip


def _uniforms(run: SearchRun, group: Group) -> go.Scatter:
    palette = colours(run.manifest.choices)
    names = [f"{run.title(p)} ✗" if run.broken(p) else run.title(p) for p in group.points]
    return go.Scatter(
        x=group.x, y=group.y, mode="markers+text", name="one scheme everywhere",
        text=names, textposition=_places(run, group),
        textfont={"size": 12.5, "color": theme.INK}, cliponaxis=False,
        hovertext=_texts(run, group.points), hoverinfo="text", error_y=_error_bars(group),
        marker={
            "size": 11, "symbol": "diamond", "line": {"color": theme.INK, "width": 1},
            "color": [palette.get(point.name, theme.FAINT) for point in group.points],
        },
    )  # fmt: skip


def _star(run: SearchRun, group: Group) -> go.Scatter:
    return go.Scatter(
        x=group.x, y=group.y, mode="markers", name="recommended",
        hovertext=_texts(run, group.points), hoverinfo="text",
        marker={"size": 17, "symbol": "star", "color": theme.STAR,
                "line": {"color": "white", "width": 1}},
    )  # fmt: skip


def _error_bars(group: Group) -> dict[str, object]:
    """One standard error; downwards never to zero, which a logarithmic axis cannot show."""
    up = [point.stderr_on(group.axis.owner) for point in group.points]
    down = [
        min(error, 0.9 * loss) if loss else 0.0
        for error, loss in zip(up, group.losses, strict=True)
    ]
    return {
        "type": "data", "array": up, "arrayminus": down, "symmetric": False,
        "thickness": 1, "width": 2, "color": theme.QUIET,
    }  # fmt: skip


def _layout(run: SearchRun, axis: Axis) -> dict[str, object]:
    """The title of the cost axis and the line at the reference."""
    layout: dict[str, object] = {
        "xaxis.title.text": axis.title, "shapes": [], "annotations": [],
    }  # fmt: skip
    whole = axis.scaled(run.reference) if run.reference else None
    if run.reference is not None and whole is not None:
        layout["shapes"] = [
            {"type": "line", "xref": "x", "yref": "paper", "x0": whole, "x1": whole,
             "y0": 0, "y1": 1, "line": {"color": theme.QUIET, "width": 1, "dash": "dot"}}
        ]  # fmt: skip
        layout["annotations"] = [
            {"xref": "x", "yref": "paper", "x": whole, "y": 1,
             "xanchor": "right", "yanchor": "top",
             "text": html.escape(f"{run.reference.title} {digits(whole)} {axis.prefixed}"),
             "showarrow": False, "xshift": -4,
             "font": {"color": theme.QUIET, "size": 12}}
        ]  # fmt: skip
    return layout


def _cost_button(run: SearchRun, axis: Axis) -> Button:
    groups = _groups(run, axis)
    restyle = {
        "x": [group.x for group in groups],
        "y": [group.y for group in groups],
        "textposition": [None, None, None, _places(run, groups[3]), None],
    }
    layout = {**_layout(run, axis), "xaxis.autorange": True, "yaxis.autorange": True}
    return Button(label=axis.label, restyle=restyle, relayout=layout)


def _places(run: SearchRun, group: Group) -> list[str]:
    """Text positions of the uniform points, for the nominal plot with a logarithmic loss axis."""
    every = {point.trial: point for point in (*run.points, *run.front)}.values()
    shown = {
        point.trial: (cost, math.log(loss))
        for point in every
        if (loss := point.loss_on(group.axis.owner))
        and loss > 0
        and (cost := group.axis.scaled(point)) is not None
    }
    xs, ys = ([values[axis] for values in shown.values()] for axis in (0, 1))

    def pixel(trial: int) -> tuple[float, float]:
        if trial not in shown:
            return NOWHERE
        x, y = shown[trial]
        return (
            (x - min(xs)) / (max(xs) - min(xs) or 1) * PLOT[0],
            (y - min(ys)) / (max(ys) - min(ys) or 1) * PLOT[1],
        )

    own = {point.trial: run.title(point) for point in group.points}
    others = [pixel(trial) for trial in shown if trial not in own]
    return positions([pixel(trial) for trial in own], list(own.values()), others, frame=FRAME)
