"""The look that all figures share."""

from __future__ import annotations

import plotly.graph_objects as go

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
INK = "#1f2733"
QUIET = "#6b7480"
RULE = "#e3e7ec"
FAINT = "#c3c9d1"
ACCENT = "#0b5cad"
STAR = "#D55E00"

SEQUENCE = (
    "#4477AA", "#EE6677", "#228833", "#CCBB44", "#66CCEE", "#AA3377", "#BBBBBB", "#994455",
    "#004488", "#DDAA33",
)  # fmt: skip
"""Roles, bounds, stages, runs: Paul Tol's "bright" and "high contrast"; never number formats."""


def styled(figure: go.Figure, *, height: int, **layout: object) -> go.Figure:
    """The figure with the page's fonts, margins and grid."""
    figure.update_layout(
        template="none",
        height=height,
        font={"family": FONT, "size": 13, "color": INK},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        margin={"l": 64, "r": 16, "t": 24, "b": 56},
        hoverlabel={
            "font": {"family": FONT, "size": 12.5, "color": INK},
            "bgcolor": "#ffffff",
            "bordercolor": FAINT,
            "align": "left",
        },
        modebar={"bgcolor": "rgba(0,0,0,0)", "color": FAINT, "activecolor": INK},
        legend={
            "orientation": "h",
            "x": 0,
            "y": 1.0,
            "xanchor": "left",
            "yanchor": "bottom",
            "bgcolor": "rgba(0,0,0,0)",
        },
    )
    axis = {
        "gridcolor": RULE,
        "linecolor": FAINT,
        "zeroline": False,
        "tickfont": {"color": QUIET, "size": 12},
        "title": {"font": {"color": INK, "size": 13}},
        "automargin": True,
        "exponentformat": "power",
        "ticks": "",
    }
    figure.update_xaxes(**axis)
    figure.update_yaxes(**axis)
    figure.update_layout(**layout)
    return figure
