"""Losses of a point where targets execute different networks, in words."""

from __future__ import annotations

from dse.report.quantities.unit import loss_text
from dse.run.entries import MeasuredPoint
from dse.run.search_run import SearchRun


def losses_text(run: SearchRun, point: MeasuredPoint) -> str:
    """`0.308 ± 0.018`; `b200 0.308 ± 0.018, h100 0.057 ± 0.003` where networks may differ."""
    if not run.apart:
        return loss_text(point.loss, point.stderr)
    owners = {run.primary.name: "", **{target.name: target.name for target in run.apart}}
    return ", ".join(
        f"{name} {loss_text(point.loss_on(owner), point.stderr_on(owner))}"
        for name, owner in owners.items()
    )


def loss_heading(run: SearchRun) -> str:
    """The heading of `quality_loss` beside losses of other networks."""
    return f"{run.primary.name} loss" if run.apart else "loss"
