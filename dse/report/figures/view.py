"""A figure and the buttons that change it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

import plotly.graph_objects as go


@dataclass(frozen=True, slots=True, kw_only=True)
class Button:
    """One state of a figure: what a click hands to `Plotly.update`."""

    label: str
    restyle: Mapping[str, object] = field(default_factory=dict)
    relayout: Mapping[str, object] = field(default_factory=dict)
    traces: tuple[int, ...] = ()
    """The traces that `restyle` changes; all where empty."""

    @property
    def arguments(self) -> str:
        """The arguments of `Plotly.update` as JSON."""
        return json.dumps([dict(self.restyle), dict(self.relayout), list(self.traces) or None])


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """A legend beside a figure: a title, and a colour by name."""

    title: str
    colours: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """A figure under a name that is unique in the page, with rows of buttons; the first is on."""

    name: str
    figure: go.Figure
    label: str
    """Text of a screen reader."""
    buttons: tuple[tuple[Button, ...], ...] = ()
    keys: tuple[Key, ...] = ()
    tools: bool = False
    """Whether it can be zoomed and saved by plotly's own buttons."""

    @property
    def height(self) -> int:
        """In CSS pixels."""
        return int(self.figure.layout.height)

    @property
    def data(self) -> str:
        """The figure as JSON that cannot close the script element it stands in."""
        return str(self.figure.to_json()).replace("</", "<\\/")
