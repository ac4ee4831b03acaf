"""What commands print: tables for people or JSON for programs, results apart from remarks."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import typer

Value = str | int | float | bool | None
JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]

NARROWEST = 100
"""Columns of output that goes to no terminal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """A table: the columns' names end in their unit (`_s`, `_j`, `_bytes`)."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Value, ...], ...]

    def records(self) -> list[dict[str, Value]]:
        """One object a row, for JSON: numbers as they are, infinities and NaN as null."""
        return [
            {name: _finite(value) for name, value in zip(self.columns, row, strict=True)}
            for row in self.rows
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Screen:
    """Where a command prints."""

    quiet: bool = False

    def table(self, rows: Rows, *, as_json: bool = False) -> None:
        """Print a table, or its rows as a JSON list."""
        if as_json:
            self.json(rows.records())
        else:
            self._table(rows)

    def json(self, content: Sequence[object] | Mapping[str, object]) -> None:
        """Print JSON."""
        typer.echo(json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False))

    def result(self, text: str) -> None:
        """Print what was asked for, also when quiet."""
        typer.echo(text)

    def remark(self, text: str) -> None:
        """Print an explanation, unless quiet."""
        if not self.quiet:
            typer.echo(text)

    def _table(self, rows: Rows) -> None:
        from rich import box  # noqa: PLC0415 (heavy; `dse --help` prints no table)
        from rich.console import Console  # noqa: PLC0415
        from rich.table import Table  # noqa: PLC0415
        from rich.text import Text  # noqa: PLC0415

        console = Console()
        if not console.is_terminal:
            console = Console(width=max(console.width, NARROWEST))
        shown = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 2, 0, 0))
        for index, name in enumerate(rows.columns):
            numbers = all(isinstance(row[index], int | float) for row in rows.rows)
            shown.add_column(
                _heading(name),
                justify="right" if numbers else "left",
                no_wrap=index == 0 or numbers,
                overflow="fold",
            )
        for row in rows.rows:
            cells = zip(rows.columns, row, strict=True)
            shown.add_row(*(Text(shown_as(name, value)) for name, value in cells))
        console.print(shown)


def shown_as(column: str, value: Value) -> str:
    """A value as people read it: with the unit that the column's name ends in."""
    from dse.report.unit import si, unit_of  # noqa: PLC0415 (loads the report)

    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return value
    unit = unit_of(column)
    if unit:
        return si(value, unit)
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _heading(column: str) -> str:
    """`weight` for `weight_bytes`: the unit stands beside the numbers."""
    for ending in ("_s", "_j", "_bytes"):
        column = column.removesuffix(ending)
    return column.replace("_", " ")


def _finite(value: Value) -> Value:
    return None if isinstance(value, float) and not math.isfinite(value) else value
