"""Gains of one step of each parameter of the hardware, from the recommended point."""

from __future__ import annotations

import html

import plotly.graph_objects as go

from dse.report.figures import theme
from dse.report.figures.view import View
from dse.report.quantities.hardware import (
    area_text,
    change_text,
    noun_of,
    price_text,
    step_text,
)
from dse.run.entries import PriceChange, ShadowPrice
from dse.run.search_run import SearchRun

ROW_PIXELS = 40
WIDEST = 200.0
"""Per cent beyond which the axis ends; intervals go on outside, points are written at its end."""


def shadow_view(run: SearchRun) -> View | None:
    """Changes of costs at equal loss in per cent, with their intervals, a row a step."""
    if run.hardware is None:
        return None
    prices = [one for one in run.hardware.shadow_prices if _at_loss(one)]
    if not prices:
        return None
    columns = dict.fromkeys(change.column for one in prices for change in _at_loss(one))
    figure = go.Figure()
    for place, column in enumerate(columns):
        offset = (place - (len(columns) - 1) / 2) * 0.22
        rows = [
            (row + offset, change, price)
            for row, price in enumerate(prices)
            for change in _at_loss(price)
            if change.column == column
        ]
        middles = [100 * (change.ratio - 1) for _, change, _ in rows]
        figure.add_trace(
            go.Scatter(
                x=middles, y=[y for y, _, _ in rows], mode="markers", name=noun_of(column),
                hovertext=[
                    f"<b>{html.escape(price_text(run, price))}</b><br>{change_text(change)}"
                    for _, change, price in rows
                ],
                hoverinfo="text", marker={"size": 9, "color": theme.SEQUENCE[place]},
                error_x={
                    "type": "data", "symmetric": False, "thickness": 1.4, "width": 0,
                    "array": [100 * (c.high - c.ratio) for _, c, _ in rows],
                    "arrayminus": [100 * (c.ratio - c.low) for _, c, _ in rows],
                },
            )
        )  # fmt: skip
    figure.add_vline(x=0, line={"color": theme.FAINT, "width": 1})
    theme.styled(
        figure,
        height=ROW_PIXELS * len(prices) + 110,
        margin={"l": 220, "r": 120, "t": 34, "b": 56},
    )
    ends = [100 * (end - 1) for one in prices for c in _at_loss(one) for end in (c.low, c.high)]
    low, high = max(min([*ends, -1.0]), -WIDEST), min(max([*ends, 1.0]), WIDEST)
    room = 0.06 * (high - low)
    figure.update_xaxes(
        title_text="change at equal loss (%)", range=[low - room, high + room], fixedrange=True
    )
    figure.update_yaxes(
        range=[len(prices) - 0.5, -0.5], showgrid=True, fixedrange=True,
        tickvals=list(range(len(prices))),
        ticktext=[html.escape(step_text(run, price)) for price in prices],
        tickfont={"size": 12, "color": theme.INK},
    )  # fmt: skip
    for row, price in enumerate(prices):
        for change in _at_loss(price):
            middle = 100 * (change.ratio - 1)
            if not low - room <= middle <= high + room:
                figure.add_annotation(
                    x=min(max(middle, low), high), y=row, showarrow=False, yshift=10,
                    text=f"{middle:+.0f} % {'→' if middle > 0 else '←'}".replace("-", "−"),
                    font={"size": 12, "color": theme.QUIET},
                )  # fmt: skip
        figure.add_annotation(
            x=1.0, xref="paper", xanchor="left", xshift=10, y=row, showarrow=False,
            text=html.escape(area_text(price)), font={"size": 12, "color": theme.QUIET},
        )  # fmt: skip
    return View(
        name="shadow-prices",
        figure=figure,
        label="Changes of costs at equal loss by one step of each parameter of the hardware",
    )


def _at_loss(price: ShadowPrice) -> list[PriceChange]:
    """The changes of costs at equal loss."""
    return [change for change in price.changes if "loss" in change.at]
