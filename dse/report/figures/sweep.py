"""Costs over figures of a device that are swept: a line for every other choice."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import plotly.graph_objects as go
from plotly.colors import sample_colorscale

from dse.report.figures import theme
from dse.report.figures.view import Button, View
from dse.report.quantities.sweep import SweepAxis, SweepPoint, settings_text
from dse.report.quantities.unit import PREFIXES, si

WIDE = 8.0
"""Largest value over the smallest from which on an axis is logarithmic."""
FEW = 12
"""Values that are all written at an axis."""
LADDER = "Viridis"
"""Colours of lines that stand for numbers in order; its light end is lost on white."""
DARKEST, LIGHTEST = 0.0, 0.82
BAND = 0.13
"""Opacity of the intervals."""
FAR = 20.0
"""Largest latency over the least from which on the vertical axis is logarithmic at first."""
MOST_BANDS = 3
"""Lines whose intervals can be told apart; with more lines, hovering tells them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantity:
    """A cost of a sweep's points with a scale that suits all of them."""

    label: str
    unit: str
    value: Callable[[SweepPoint], float | None]
    power: int = 0

    @property
    def title(self) -> str:
        """`predicted latency (ms)`."""
        return f"predicted {self.label} ({PREFIXES.get(self.power, '')}{self.unit})"

    def scaled(self, point: SweepPoint) -> float | None:
        """The value in the shown unit."""
        found = self.value(point)
        return None if found is None else found / 10.0**self.power


@dataclass(frozen=True, slots=True, kw_only=True)
class _Line:
    """Points that differ in the first swept key alone."""

    name: str
    colour: str
    points: tuple[SweepPoint, ...]


def sweep_view(axes: Sequence[SweepAxis], points: Sequence[SweepPoint]) -> View:
    """Latency, energy, memory or area over the first swept key."""
    axis = axes[0]
    lines = _lines(axes, points)
    known = _quantities(points)
    first = known[0]
    banded = lines if len(lines) <= MOST_BANDS else []
    figure = go.Figure(
        [_band(line, axis, first) for line in banded]
        + [_line(line, axis, first) for line in lines]
    )
    single = len(lines) == 1
    theme.styled(figure, height=480, hovermode="closest", showlegend=not single)
    figure.update_xaxes(title_text=html.escape(axis.title), **_scale(axis))
    times = [point.latency_s for point in points]
    far = max(times) > FAR * min(times)
    figure.update_yaxes(
        title_text=first.title, rangemode="tozero", type="log" if far else "linear"
    )
    _mark_files(figure, axis)
    costs = tuple(
        Button(
            label=quantity.label,
            restyle={
                "y": [_band_y(line, quantity) for line in banded]
                + [[quantity.scaled(point) for point in line.points] for line in lines],
            },
            relayout={"yaxis.title.text": quantity.title},
        )
        for quantity in known
    )
    scales = (
        Button(label="from zero", relayout={"yaxis.type": "linear", "yaxis.rangemode": "tozero"}),
        Button(label="log", relayout={"yaxis.type": "log"}),
    )
    return View(
        name="sweep",
        figure=figure,
        label=f"Predicted costs over {axis.key}",
        buttons=(costs, scales[::-1] if far else scales),
        tools=True,
    )


def area_view(axes: Sequence[SweepAxis], points: Sequence[SweepPoint]) -> View | None:
    """Latency over the area of the chip; none where areas are unknown or all alike."""
    if len({point.area_mm2 for point in points if point.area_mm2 is not None}) < 2:
        return None
    lines = [
        _Line(name=" ".join(line), colour=colour, points=tuple(
            point for point in points if point.line == line and point.area_mm2 is not None
        ))
        for line, colour in zip(
            dict.fromkeys(point.line for point in points), theme.SEQUENCE * len(points),
            strict=False,
        )
    ]  # fmt: skip
    first = _quantities(points)[0]
    figure = go.Figure(
        [
            go.Scatter(
                x=[point.area_mm2 for point in line.points],
                y=[first.scaled(point) for point in line.points],
                mode="markers", name=html.escape(line.name), hoverinfo="text",
                hovertext=[_hover(point) for point in line.points],
                marker={"size": 9, "color": line.colour, "line": {"width": 1, "color": "#fff"}},
            )
            for line in lines
        ]
    )  # fmt: skip
    theme.styled(figure, height=420, hovermode="closest", showlegend=len(lines) > 1)
    figure.update_xaxes(title_text="area of multipliers and memories (mm²)", rangemode="tozero")
    figure.update_yaxes(title_text=first.title, rangemode="tozero")
    return View(name="area", figure=figure, label="Latency over area", tools=True)


def _quantities(points: Sequence[SweepPoint]) -> tuple[Quantity, ...]:
    """The costs that every point has, each with a power of ten that suits its largest value."""
    every = (
        Quantity(label="latency", unit="s", value=lambda point: point.latency_s),
        Quantity(label="energy", unit="J", value=lambda point: point.energy_j),
        Quantity(label="peak memory", unit="B", value=lambda point: point.peak_bytes),
        Quantity(label="area", unit="mm²", value=lambda point: point.area_mm2),
    )
    found = []
    for one in every:
        values = [one.value(point) for point in points]
        known = [value for value in values if value]
        if len(known) == len(values):
            found.append(one if one.unit == "mm²" else _prefixed(one, max(known)))
    return tuple(found)


def _prefixed(quantity: Quantity, most: float) -> Quantity:
    least = 0 if quantity.unit == "B" else -12
    power = min(max(3 * math.floor(math.log10(most) / 3), least), 12)
    return Quantity(label=quantity.label, unit=quantity.unit, value=quantity.value, power=power)


def _lines(axes: Sequence[SweepAxis], points: Sequence[SweepPoint]) -> list[_Line]:
    groups: dict[tuple[tuple[str, str], ...], list[SweepPoint]] = {}
    first, others = axes[0], axes[1:]
    for point in points:
        rest = tuple((axis.key, point.settings[axis.key]) for axis in others)
        groups.setdefault((*rest, point.line), []).append(point)
    names = _names(list(groups), several=len({point.device for point in points}) > 1)
    colours = _colours(others, list(groups))
    order = {value: index for index, value in enumerate(first.numbers)}
    for group in groups.values():
        group.sort(key=lambda point: _place(first, point, order))
    return [
        _Line(name=name, colour=colour, points=tuple(group))
        for name, colour, group in zip(names, colours, groups.values(), strict=True)
    ]


def _place(axis: SweepAxis, point: SweepPoint, order: dict[str, int]) -> float:
    """Order along the first axis: by number, words as they were given."""
    text = point.settings[axis.key]
    number = axis.numbers[text]
    return float(order[text]) if number is None else number


def _names(groups: Sequence[tuple[tuple[str, str], ...]], *, several: bool) -> list[str]:
    """Words that tell each line from the others; its device where there are several."""
    last = len(groups[0]) - 1
    varying = [index for index in range(last) if len({group[index] for group in groups}) > 1]
    shared = len({group[last] for group in groups}) == 1
    names = []
    for group in groups:
        settings = ["=".join(group[index]) for index in varying]
        device, format_ = group[last]
        own = f"{format_} on {device}" if several else format_
        names.append(", ".join([*settings, *([] if shared and settings else [own])]))
    return names


def _colours(
    others: Sequence[SweepAxis], groups: Sequence[tuple[tuple[str, str], ...]]
) -> list[str]:
    """A ladder where one number alone tells the lines apart, else colours that differ."""
    if len(others) == 1 and others[0].is_numeric and len({group[-1] for group in groups}) == 1:
        steps = max(len(groups) - 1, 1)
        places = [DARKEST + (LIGHTEST - DARKEST) * index / steps for index in range(len(groups))]
        found: list[str] = sample_colorscale(LADDER, places)
        return found
    return [theme.SEQUENCE[index % len(theme.SEQUENCE)] for index in range(len(groups))]


def _xs(line: _Line, axis: SweepAxis) -> list[float | str | None]:
    texts = [point.settings[axis.key] for point in line.points]
    return [axis.numbers[text] for text in texts] if axis.is_numeric else list(texts)


def _line(line: _Line, axis: SweepAxis, quantity: Quantity) -> go.Scatter:
    return go.Scatter(
        x=_xs(line, axis), y=[quantity.scaled(point) for point in line.points],
        mode="lines+markers", name=html.escape(line.name), legendgroup=line.name,
        hoverinfo="text", hovertext=[_hover(point) for point in line.points],
        line={"color": line.colour, "width": 2},
        marker={"size": 7, "color": line.colour, "line": {"width": 1, "color": "#fff"}},
    )  # fmt: skip


def _band(line: _Line, axis: SweepAxis, quantity: Quantity) -> go.Scatter:
    """The 90 % interval of latencies, of which alone one is known."""
    xs = _xs(line, axis)
    return go.Scatter(
        x=[*xs, *reversed(xs)], y=_band_y(line, quantity), fill="toself", opacity=BAND,
        fillcolor=line.colour, line={"width": 0}, hoverinfo="skip", mode="lines",
        showlegend=False, legendgroup=line.name,
    )  # fmt: skip


def _band_y(line: _Line, quantity: Quantity) -> list[float | None]:
    if quantity.label != "latency":
        return [None] * (2 * len(line.points))
    scale = 10.0**quantity.power
    lows = [point.low_s / scale for point in line.points]
    highs = [point.high_s / scale for point in line.points]
    return [*lows, *reversed(highs)]


def _scale(axis: SweepAxis) -> dict[str, object]:
    """Type and ticks of the swept axis: every value is written where they are few."""
    numbers = sorted({number for number in axis.numbers.values() if number is not None})
    if not axis.is_numeric:
        return {"type": "category"}
    scale: dict[str, object] = {}
    if numbers[0] > 0 and numbers[-1] / numbers[0] >= WIDE:
        scale["type"] = "log"
    if len(numbers) <= FEW:
        scale |= {"tickvals": numbers, "ticktext": [f"{number:g}" for number in numbers]}
    return scale


def _mark_files(figure: go.Figure, axis: SweepAxis) -> None:
    """A dotted line where the device's own file stands, within what is swept."""
    if not axis.is_numeric:
        return
    numbers = [number for number in axis.numbers.values() if number is not None]
    named: dict[float, list[str]] = {}
    for device, number in axis.of_files.items():
        if number is not None and min(numbers) <= number <= max(numbers):
            named.setdefault(number, []).append(device)
    for number, devices in named.items():
        is_log = _scale(axis).get("type") == "log"
        figure.add_vline(x=number, line={"color": theme.FAINT, "width": 1, "dash": "dot"})
        figure.add_annotation(
            x=math.log10(number) if is_log else number, y=1, yref="paper", yanchor="top",
            xanchor="left", xshift=4, showarrow=False,
            text=html.escape(f"file of {', '.join(devices)}"),
            font={"size": 11.5, "color": theme.QUIET},
        )  # fmt: skip


def _hover(point: SweepPoint) -> str:
    rows = [
        settings_text(point.settings),
        f"{point.format} on {point.device}",
        f"latency {si(point.latency_s, 's')} ({si(point.low_s, 's')} to {si(point.high_s, 's')})",
        f"energy {si(point.energy_j, 'J')}",
        f"peak memory {si(point.peak_bytes, 'B')}, weights {si(point.weight_bytes, 'B')}",
        f"bound by {point.bound}",
    ]
    if point.area_mm2 is not None:
        rows.append(f"{point.area_mm2:.3g} mm²")
    return "<br>".join(map(html.escape, rows))
