"""Text of a plot's point when the pointer rests on it."""

from __future__ import annotations

import html

from dse.report.quantities.axis import cost_axes
from dse.report.quantities.baseline import against_reference
from dse.report.quantities.losses import losses_text
from dse.report.quantities.tie import tied_text
from dse.report.quantities.unit import digits, si
from dse.run.entries import MeasuredPoint
from dse.run.scheme import formats_phrase
from dse.run.search_run import SearchRun


def hover(run: SearchRun, point: MeasuredPoint) -> str:
    """A point in a few lines."""
    split = "report split" if point.on_report else "search split only"
    lines = [
        f"<b>{html.escape(point.title)}</b> · {html.escape(point.source)}",
        f"loss {html.escape(losses_text(run, point))} ({split})",
    ]
    if broken := run.broken(point):
        lines.append(f"✗ breaks {html.escape(', '.join(map(str, broken)))}")
    metric = point.columns.get(run.manifest.metric)
    if metric is not None:
        lines.append(f"{html.escape(run.manifest.metric)} {digits(metric, 4)}")
    whole = html.escape(run.title(run.reference)) if run.reference else ""
    for axis in cost_axes(run):
        value = point.columns.get(axis.column)
        if value is not None:
            speed = against_reference(run, point, axis.column)
            gained = f" · {speed.text} {axis.better} than {whole}" if speed else ""
            lines.append(f"{html.escape(axis.label)} {si(value, axis.unit)}{gained}")
            if tied := tied_text(run, point, axis.column):
                lines.append(html.escape(tied))
    roles = {variable.name: variable.role for variable in run.manifest.variables}
    chosen = run.chosen(point)
    if len(set(chosen.values())) > 1:
        for role in dict.fromkeys(roles[name] for name in chosen):
            names = [run.short[chosen[name]] for name in chosen if roles[name] == role]
            lines.append(html.escape(f"{role}: {formats_phrase(names)}"))
    return "<br>".join(lines)
