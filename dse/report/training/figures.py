"""Figures of a search over methods: gaps over cost, and the effect of single axes."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from dse.report.figures import theme
from dse.report.figures.view import Button, View
from dse.report.quantities.unit import si
from dse.report.training.answer import axis_text, change_text, gap_text
from dse.report.training.table import changed
from dse.run.entries import MeasuredPoint
from dse.run.training_run import AxisChange, TrainingRun

HEIGHT = 480
BAR = 26
"""Pixels of an axis in the figure of axes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cost:
    column: str
    label: str
    unit: str
    scale: float

    def of(self, point: MeasuredPoint) -> float:
        return point.columns[self.column] / self.scale


COSTS = (
    _Cost(column="step_s", label="step", unit="ms", scale=1e-3),
    _Cost(column="memory_bytes", label="memory", unit="GB", scale=1e9),
    _Cost(column="energy_j", label="energy", unit="J", scale=1.0),
)


def gaps_view(run: TrainingRun) -> View:
    """Gap to bf16 over cost, with a button a cost."""
    groups = _groups(run)
    figure = go.Figure([_trace(run, *group) for group in groups])
    first = COSTS[0]
    theme.styled(
        figure,
        height=HEIGHT,
        xaxis_title_text=f"{first.label} ({first.unit}, predicted)",
        yaxis_title_text="loss above bf16 (nats)",
    )
    figure.add_hline(y=0, line={"color": theme.QUIET, "width": 1, "dash": "dot"})
    buttons = tuple(
        Button(
            label=cost.label,
            restyle={"x": [[cost.of(point) for point in group[1]] for group in groups]},
            relayout={
                "xaxis.title.text": f"{cost.label} ({cost.unit}, predicted)",
                "xaxis.autorange": True,
            },
        )
        for cost in COSTS
    )
    return View(name="gaps", figure=figure, label="Loss above bf16 over cost", buttons=(buttons,))


def axes_view(name: str, changes: Sequence[AxisChange], label: str) -> View | None:
    """The effect of each axis with its interval; None where none was turned."""
    known = [one for one in changes if one.mean is not None]
    if not known:
        return None
    known.sort(key=lambda one: one.mean or 0.0, reverse=True)
    means = [one.mean or 0.0 for one in known]
    figure = go.Figure(
        go.Scatter(
            x=means, y=[html.escape(axis_text(one)) for one in known], mode="markers",
            hoverinfo="text", hovertext=[html.escape(_hover(one)) for one in known],
            error_x={
                "type": "data", "symmetric": False, "thickness": 1.4, "width": 3,
                "color": theme.QUIET,
                "array": [_reach(one.high, mean) for one, mean in zip(known, means, strict=True)],
                "arrayminus": [
                    _reach(mean, one.low) for one, mean in zip(known, means, strict=True)
                ],
            },
            marker={
                "size": 9,
                "color": [theme.ACCENT if one.is_resolved else theme.FAINT for one in known],
            },
        )
    )  # fmt: skip
    theme.styled(
        figure, height=110 + BAR * len(known), xaxis_title_text=f"{label} (nats)",
        showlegend=False,
    )  # fmt: skip
    figure.add_vline(x=0, line={"color": theme.QUIET, "width": 1, "dash": "dot"})
    return View(name=name, figure=figure, label=label)


def _groups(run: TrainingRun) -> list[tuple[str, list[MeasuredPoint]]]:
    """Points by how they are drawn; every point in the last group that it fits."""
    best = run.recommended.trial if run.recommended else None
    front = {point.trial for point in run.front}
    there = [one for one in run.points if one.state == "complete" and one.source != "reference"]
    reported = [one for one in there if "report_gap" in one.columns]
    return [
        ("search only", [one for one in there if "report_gap" not in one.columns]),
        ("not on the front", [one for one in reported if not one.name and one.trial not in front]),
        ("front", [one for one in reported if one.trial in front and not one.name]),
        ("named", [one for one in reported if one.name]),
        ("recommended", [one for one in reported if one.trial == best]),
    ]


_MARKERS = {
    "search only": {"size": 6, "color": theme.FAINT},
    "not on the front": {"size": 7, "color": theme.QUIET},
    "front": {"size": 9, "color": theme.ACCENT},
    "named": {
        "size": 11, "symbol": "diamond", "color": "#E69F00",
        "line": {"color": theme.INK, "width": 1},
    },
    "recommended": {
        "size": 17, "symbol": "star", "color": theme.STAR, "line": {"color": "white", "width": 1},
    },
}  # fmt: skip


def _trace(run: TrainingRun, name: str, points: list[MeasuredPoint]) -> go.Scatter:
    prefix = "" if name == "search only" else "report_"
    ys = [one.columns[f"{prefix}gap"] for one in points]
    bars = {}
    if prefix and name != "recommended":
        bars = {
            "error_y": {
                "type": "data", "symmetric": False, "thickness": 1, "width": 2,
                "color": theme.QUIET,
                "array": [
                    _reach(one.columns.get("report_gap_high"), y)
                    for one, y in zip(points, ys, strict=True)
                ],
                "arrayminus": [
                    _reach(y, one.columns.get("report_gap_low"))
                    for one, y in zip(points, ys, strict=True)
                ],
            }
        }  # fmt: skip
    return go.Scatter(
        x=[COSTS[0].of(one) for one in points], y=ys, name=name,
        mode="markers+text" if name == "named" else "markers",
        text=[html.escape(one.title) for one in points], textposition="middle right",
        hoverinfo="text", hovertext=[_point_hover(run, one) for one in points],
        marker=_MARKERS[name], **bars,
    )  # fmt: skip


def _reach(upper: float | None, lower: float | None) -> float:
    return 0.0 if upper is None or lower is None else upper - lower


def _point_hover(run: TrainingRun, point: MeasuredPoint) -> str:
    lines = [
        f"<b>{html.escape(point.title)}</b> · {html.escape(point.source)}",
        f"gap {gap_text(point)} on the report's seeds",
        f"gap {gap_text(point, '')} on the search's",
        f"step {si(point.columns['step_s'], 's')}",
        f"memory {si(point.columns['memory_bytes'], 'B')}",
        *(f"{name}: {option}" for name, option in changed(run, point).items()),
    ]
    return "<br>".join([lines[0], *map(html.escape, lines[1:])])


def _hover(one: AxisChange) -> str:
    step = f", step × {one.step_ratio:.3f}" if one.step_ratio else ""
    return f"{axis_text(one)}: {change_text(one)}{step}"
