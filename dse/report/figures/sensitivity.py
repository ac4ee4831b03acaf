"""Cost of each choice in quality, variable by variable."""

from __future__ import annotations

import html
import math
from collections import defaultdict

import plotly.graph_objects as go

from dse.report.figures import theme
from dse.report.figures.view import View
from dse.report.quantities.unit import loss_text
from dse.run.scheme import colours
from dse.run.search_run import SearchRun
from dse.sensitivity.table import Score

LONGEST = 40
"""Variables in the ranking; the heat map shows all."""

ROW = 20


def heat_view(run: SearchRun) -> View | None:
    """Variable × choice, the colour on a logarithmic scale; None without sensitivities."""
    positive = _positive(run)
    if not positive:
        return None
    told = [score for score in _primary(run) if score.loss > 0]
    rows = [v for v in run.manifest.variables if any(s.variable == v.name for s in told)]
    measured = {s.choice for s in told}
    choices = [choice for choice in run.manifest.choices if choice in measured]
    table = {(s.variable, s.choice): s for s in run.sensitivity}
    cells = [[table.get((row.name, choice)) for choice in choices] for row in rows]
    figure = go.Figure(
        go.Heatmap(
            z=[[_log(cell) for cell in line] for line in cells],
            text=[[_hover(cell) for cell in line] for line in cells], hoverinfo="text",
            x=[html.escape(run.short[choice]) for choice in choices], y=list(range(len(rows))),
            colorscale="Viridis", reversescale=True, xgap=2, ygap=1, colorbar=_scale(positive),
        )
    )  # fmt: skip
    theme.styled(figure, height=_height(len(rows)), margin={"l": 84, "r": 8, "t": 34, "b": 44})
    figure.update_xaxes(side="top", showgrid=False, fixedrange=True, tickfont={"size": 12})
    figure.update_yaxes(
        autorange="reversed", showgrid=False, fixedrange=True, tickvals=list(range(len(rows))),
        ticktext=[html.escape(row.label) for row in rows], tickfont={"size": 11.5},
    )  # fmt: skip
    return View(name="heat", figure=figure, label="Heat map of the loss of every single change")


def _positive(run: SearchRun) -> list[Score]:
    """The scores that a logarithmic axis has a place for; an infinite one is told in its cell."""
    return [score for score in _primary(run) if 0 < score.loss < math.inf]


def _primary(run: SearchRun) -> list[Score]:
    """The scores of what `quality_loss` is of, without those of other targets' networks."""
    return [score for score in run.sensitivity if score.choice in run.manifest.choices]


def rank_view(run: SearchRun) -> View | None:
    """The most sensitive variables first, with standard errors; None without sensitivities."""
    positive = _positive(run)
    if not positive:
        return None
    worst: dict[str, float] = defaultdict(float)
    for one in positive:
        worst[one.variable] = max(worst[one.variable], one.loss)
    ranked = sorted(worst, key=lambda name: -worst[name])[:LONGEST]
    labels = {v.name: v.label for v in run.manifest.variables}
    palette = colours(run.manifest.choices)
    figure = go.Figure(
        [
            _dots([s for s in positive if s.choice == choice and s.variable in ranked],
                  run.short[choice], hue, ranked)
            for choice, hue in palette.items()
            if any(s.choice == choice for s in positive)
        ]
    )  # fmt: skip
    theme.styled(figure, height=_height(len(ranked)), margin={"l": 84, "r": 8, "t": 34, "b": 44})
    figure.update_xaxes(type="log", dtick=1, title_text="loss of this change alone")
    figure.update_yaxes(
        range=[len(ranked) - 0.4, -0.6], fixedrange=True, tickvals=list(range(len(ranked))),
        ticktext=[html.escape(labels.get(name, name)) for name in ranked],
        tickfont={"size": 11.5},
    )  # fmt: skip
    return View(name="rank", figure=figure, label="Variables ranked by sensitivity")


def _dots(records: list[Score], name: str, hue: str, ranked: list[str]) -> go.Scatter:
    return go.Scatter(
        x=[s.loss for s in records], y=[ranked.index(s.variable) for s in records],
        mode="markers", name=html.escape(name), hoverinfo="text",
        hovertext=[_hover(s) for s in records],
        marker={"size": 8, "color": hue, "line": {"color": "white", "width": 0.5}},
        error_x={
            "type": "data", "symmetric": False, "thickness": 1, "width": 2, "color": hue,
            "array": [s.stderr for s in records],
            "arrayminus": [min(s.stderr, 0.9 * s.loss) for s in records],
        },
    )  # fmt: skip


def _log(cell: Score | None) -> float | None:
    return math.log10(cell.loss) if cell and 0 < cell.loss < math.inf else None


def _hover(cell: Score | None) -> str:
    if cell is None:
        return "not measured"
    name = f"<b>{html.escape(cell.variable)}</b> in {html.escape(cell.choice)}"
    return f"{name}<br>loss {loss_text(cell.loss, cell.stderr)}"


def _scale(positive: list[Score]) -> dict[str, object]:
    """A colour bar with ticks at powers of ten."""
    low = math.log10(min(s.loss for s in positive))
    high = math.log10(max(s.loss for s in positive))
    ticks = list(range(math.ceil(low), math.floor(high) + 1))
    return {
        "tickvals": ticks, "ticktext": [f"10<sup>{tick}</sup>" for tick in ticks],
        "thickness": 10, "outlinewidth": 0, "orientation": "h", "y": 0, "yanchor": "top",
        "ypad": 6, "len": 0.9, "tickfont": {"size": 11, "color": theme.QUIET},
        "title": {"text": "", "side": "top"},
    }  # fmt: skip


def _height(rows: int) -> int:
    return rows * (ROW if rows <= LONGEST else 12) + 100
