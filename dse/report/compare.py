"""The fronts of several runs in one page."""

from __future__ import annotations

import html
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import plotly.graph_objects as go

from dse.errors import RunError
from dse.files import write_atomically
from dse.report.answer import caveats
from dse.report.figures import theme
from dse.report.figures.hover import hover
from dse.report.figures.pareto import staircase
from dse.report.figures.view import Button, View
from dse.report.html import page
from dse.report.quantities.axis import Axis, cost_axes
from dse.report.quantities.losses import losses_text
from dse.report.quantities.unit import digits, si
from dse.run.read import read_run
from dse.run.search_run import SearchRun

LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A run with the name that tells it from the others."""

    label: str
    colour: str
    run: SearchRun


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A run in one line of the table."""

    label: str
    colour: str
    question: str
    forwards: str
    front: int
    recommended: str
    loss: str
    costs: tuple[str, ...]


def compare(run_dirs: Sequence[Path], out: Path) -> Path:
    """Write one page with the fronts of several runs and give its path.

    Runs of several models, data, kinds of loss, calls or targets are compared, and it is said.

    Raises:
        RunError: fewer than two folders, one that cannot be read, or no cost that all have.
    """
    if len(run_dirs) < 2:
        raise RunError("compare: expected at least two run folders")
    entries = _labelled([read_run(folder) for folder in run_dirs])
    axes = _shared_axes(entries)
    unlike = "; ".join(_differences(entries))
    if unlike:
        unlike = f"The runs are not alike, so that numbers of two may say nothing: {unlike}"
        LOGGER.warning(unlike)
    notes = [note for entry in entries for note in caveats(entry.run)]
    text = page(
        "compare.html.j2",
        title=f"{len(entries)} fronts",
        view=_view(entries, axes),
        axes=axes,
        lines=[_line(entry, axes) for entry in entries],
        caveats=list(dict.fromkeys([*filter(None, [unlike]), *notes])),
    )
    write_atomically(out, text)
    return out


def _labelled(runs: Sequence[SearchRun]) -> list[Entry]:
    """Runs by the name of their folder, or by its whole path where names repeat."""
    names = [run.folder.resolve().name for run in runs]
    unique = len(set(names)) == len(names)
    labels = names if unique else [str(run.folder) for run in runs]
    hues = theme.SEQUENCE * (len(runs) // len(theme.SEQUENCE) + 1)
    found = zip(labels, hues, runs, strict=False)
    return [Entry(label=label, colour=hue, run=run) for label, hue, run in found]


def _differences(entries: Sequence[Entry]) -> Iterator[str]:
    """Facts that decide losses and costs and are not the same in all runs, with their values."""
    manifests = [entry.run.manifest for entry in entries]
    models = [(one.model.name, one.model_digest) for one in manifests]
    yield from _unlike("models", models, [name for name, _ in models])
    sources = [_source(one.space.get("data")) for one in manifests]
    samples = [(source, one.data_digest) for source, one in zip(sources, manifests, strict=True)]
    yield from _unlike("data", samples, sources)
    units = [entry.run.loss_unit for entry in entries]
    yield from _unlike("losses", units, units)
    calls = [
        ", ".join(f"{call.name} {_sizes(call.dims)} x {call.share:g}" for call in one.phases)
        for one in manifests
    ]
    yield from _unlike("calls", calls, calls)
    targets = [
        ", ".join(f"{target.device} under {target.runtime}" for target in one.targets)
        for one in manifests
    ]
    yield from _unlike("targets", targets, targets)


def _source(data: object) -> str:
    return str(data.get("source", "")) if isinstance(data, Mapping) else ""


def _sizes(dims: Mapping[str, int]) -> str:
    return " ".join(f"{name}={size}" for name, size in sorted(dims.items()))


def _unlike(what: str, facts: Sequence[object], shown: Sequence[str]) -> Iterator[str]:
    if len(set(facts)) > 1:
        named = " / ".join(dict.fromkeys(shown))
        yield f"{what} ({named}{'' if len(set(shown)) > 1 else ', with another content'})"


def _shared_axes(entries: Sequence[Entry]) -> tuple[Axis, ...]:
    """The cost columns that every run has, in the order of the first."""
    known = [{axis.column for axis in cost_axes(entry.run)} for entry in entries]
    common = set.intersection(*known)
    axes = tuple(axis for axis in cost_axes(entries[0].run) if axis.column in common)
    if not axes:
        listed = "; ".join(
            f"{entry.label}: {', '.join(sorted(columns))}"
            for entry, columns in zip(entries, known, strict=True)
        )
        raise RunError(f"compare: the runs have no cost column in common ({listed})")
    return axes


def _view(entries: Sequence[Entry], axes: Sequence[Axis]) -> View:
    figure = go.Figure([_trace(entry, axes[0]) for entry in entries])
    theme.styled(figure, height=520, hovermode="closest")
    figure.update_xaxes(title_text=axes[0].title)
    units = ", ".join(dict.fromkeys(entry.run.loss_unit for entry in entries))
    figure.update_yaxes(title_text=f"quality loss ({units})", type="log", dtick=1)
    costs = tuple(
        Button(
            label=axis.label,
            restyle={key: [list(_trace(entry, axis)[key]) for entry in entries]
                     for key in ("x", "y", "hovertext")},
            relayout={"xaxis.title.text": axis.title},
        )
        for axis in axes
    )  # fmt: skip
    scales = (
        Button(label="log loss", relayout={"yaxis.type": "log", "yaxis.dtick": 1}),
        Button(label="linear loss", relayout={"yaxis.type": "linear", "yaxis.dtick": None}),
    )
    label = "Fronts of several runs: quality loss over predicted cost"
    return View(name="fronts", figure=figure, label=label, buttons=(costs, scales), tools=True)


def _trace(entry: Entry, axis: Axis) -> go.Scatter:
    """The points of a front that are not dominated in this cost and in loss."""
    owner = entry.run.owner(axis.column)
    points = staircase(entry.run.front, axis.column, owner=owner)
    losses = [point.loss_on(owner) for point in points]
    return go.Scatter(
        x=[axis.scaled(point) for point in points],
        y=[loss if loss and loss > 0 else None for loss in losses],
        mode="lines+markers", name=html.escape(entry.label), hoverinfo="text",
        hovertext=[f"{html.escape(entry.label)}<br>{hover(entry.run, p)}" for p in points],
        line={"shape": "hv", "color": entry.colour, "width": 1.4},
        marker={"size": 8, "color": entry.colour},
    )  # fmt: skip


def _line(entry: Entry, axes: Sequence[Axis]) -> Line:
    run, point = entry.run, entry.run.recommended
    columns = point.columns if point else {}
    return Line(
        label=entry.label,
        colour=entry.colour,
        question=run.manifest.asked,
        forwards=digits(run.manifest.forwards),
        front=len(run.front),
        recommended=run.title(point) if point else "",
        loss=losses_text(run, point) if point else "",
        costs=tuple(si(columns.get(axis.column), axis.unit) for axis in axes),
    )
