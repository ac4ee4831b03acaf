"""Effort and gain of the search."""

from __future__ import annotations

import plotly.graph_objects as go

from dse.report.figures import theme
from dse.report.figures.view import View
from dse.report.quantities.unit import digits
from dse.run.search_run import SearchRun

HEIGHT = 260


def hypervolume_view(run: SearchRun) -> View | None:
    """Hypervolume over forward-equivalents, as a share of the last; None where not recorded."""
    steps = run.manifest.hypervolume
    if len(steps) < 2 or steps[-1][1] <= 0:
        return None
    last = steps[-1][1]
    figure = go.Figure(
        go.Scatter(
            x=[spent for spent, _ in steps], y=[gained / last for _, gained in steps],
            mode="lines", line={"shape": "hv", "color": theme.ACCENT, "width": 2},
            hovertemplate="%{x:.1f} forwards: %{y:.1%}<extra></extra>",
        )
    )  # fmt: skip
    theme.styled(figure, height=HEIGHT, margin={"l": 64, "r": 16, "t": 12, "b": 48})
    figure.update_xaxes(title_text="forward-equivalents", rangemode="tozero")
    figure.update_yaxes(title_text="hypervolume", tickformat=".0%")
    return View(name="hypervolume", figure=figure, label="Hypervolume over the effort")


def effort_view(run: SearchRun) -> View | None:
    """Forward-equivalents by stage; None where not recorded."""
    stages = {k: v for k, v in run.manifest.forward_equivalents.items() if k != "total" and v > 0}
    if not stages:
        return None
    names = [name.replace("_", " ") for name in stages]
    figure = go.Figure(
        go.Bar(
            x=list(stages.values()), y=names, orientation="h", hoverinfo="skip",
            marker={"color": theme.ACCENT}, text=[" " + digits(v) for v in stages.values()],
            textposition="outside", textfont={"size": 12.5}, cliponaxis=False,
        )
    )  # fmt: skip
    theme.styled(figure, height=HEIGHT, bargap=0.4, margin={"l": 90, "r": 40, "t": 12, "b": 48})
    figure.update_xaxes(title_text="forward-equivalents", fixedrange=True)
    figure.update_yaxes(autorange="reversed", showgrid=False, fixedrange=True)
    return View(name="effort", figure=figure, label="Effort by stage")
