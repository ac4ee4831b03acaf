"""The recommended point in a handful of figures."""

from __future__ import annotations

from dataclasses import dataclass

from dse.report.quantities.axis import cost_axes
from dse.report.quantities.baseline import against_reference
from dse.report.quantities.unit import digits, loss_text, si
from dse.run.search_run import SearchRun


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """A figure with its name above and its meaning below."""

    label: str
    value: str
    detail: str = ""


def cards(run: SearchRun) -> list[Card]:
    """Loss and every cost of the recommended point; none where nothing is recommended."""
    point = run.recommended
    if point is None:
        return []
    metric = point.columns.get(run.manifest.metric)
    name = run.manifest.metric.replace("_", " ")
    value, error = _parted(point.loss, point.stderr)
    found = [
        Card(
            label=f"quality loss on {run.primary.name}" if run.apart else "quality loss",
            value=value,
            detail=f"± {error} {run.loss_unit}" if error else run.loss_unit,
        )
    ]
    for target in run.apart:
        value, error = _parted(point.loss_on(target.name), point.stderr_on(target.name))
        detail = f"± {error} {run.loss_unit}" if error else run.loss_unit
        found.append(Card(label=f"quality loss on {target.name}", value=value, detail=detail))
    if metric is not None:
        whole = run.manifest.reference_metric
        detail = f"{digits(whole, 4)} unquantised" if whole is not None else ""
        found.append(Card(label=name, value=digits(metric, 4), detail=detail))
    for axis in cost_axes(run):
        cost = point.columns.get(axis.column)
        gained = against_reference(run, point, axis.column)
        detail = ""
        if gained and run.reference:
            detail = f"{gained.text} {axis.better} than {run.title(run.reference)}"
        if cost is not None:
            found.append(Card(label=axis.label, value=si(cost, axis.unit), detail=detail))
    return found


def _parted(loss: float | None, stderr: float) -> tuple[str, str]:
    """A loss and its error, each with the power of ten that both have."""
    value, _, error = loss_text(loss, stderr).partition(" ± ")
    if not value.startswith("("):
        return value, error
    error, _, power = error.partition(")")
    return f"{value.removeprefix('(')}{power}", f"{error}{power}"
