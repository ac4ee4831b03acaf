"""Output of commands: tables for people or JSON for programs, results apart from remarks."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dse.report.quantities.unit import si, unit_of, without_unit

if TYPE_CHECKING:
    from rich.console import Console

INTERRUPTED, TERMINATED = 130, 143
"""Exit codes of what was stopped: 128 + SIGINT or SIGTERM."""


class Terminated(KeyboardInterrupt):
    """Stopped by SIGTERM, as job schedulers do: what Ctrl-C would leave is left."""


def stopped_code(error: BaseException) -> int:
    """The exit code of what was stopped."""
    return TERMINATED if isinstance(error, Terminated) else INTERRUPTED


@contextmanager
def resumable(hint: Callable[[], str]) -> Iterator[None]:
    """Work that can be interrupted: the hint says how to go on; empty where nothing is kept.

    Raises:
        Exit: it was interrupted.
    """
    try:
        yield
    except KeyboardInterrupt as error:
        how = hint()
        typer.echo(f"dse: interrupted{f'; {how}' if how else ''}", err=True)
        raise typer.Exit(stopped_code(error)) from None


def kept_run(folder: Path | None, *options: str) -> str:
    """The hint that continues a search, where its folder is begun."""
    from dse.run.files import MANIFEST, resume_command  # noqa: PLC0415

    if folder is None or not (folder / MANIFEST).is_file():
        return ""
    return f"go on with: {resume_command(folder, *options)}"


Value = str | int | float | bool | None
JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def is_given(context: typer.Context, name: str) -> bool:
    """Whether the user said an option, be it with the value that it has anyway."""
    return getattr(context.get_parameter_source(name), "name", "DEFAULT") != "DEFAULT"


def positive(value: float | None) -> float | None:
    """The option's number; a callback, since bounds of options let inf and nan pass.

    Raises:
        BadParameter: not finite, or not above zero.
    """
    if value is not None and not (math.isfinite(value) and value > 0):
        raise typer.BadParameter(f"expected a finite number above 0, got {value:g}")
    return value


NARROWEST = 100
"""Columns of output that goes to no terminal."""

UNBROKEN = 180
"""Columns of a table that goes to no terminal: programs and files break no lines."""

NAME, TEXT = 24, 16
"""Characters up to which a row's name, and other text, is not broken to save width."""


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
    """The screen of a command."""

    quiet: bool = False

    def table(self, rows: Rows, *, as_json: bool = False) -> None:
        """Print a table (a single row as a list of its columns), or its rows as a JSON list."""
        if as_json:
            self.json(rows.records())
        elif len(rows.rows) == 1:
            self.facts(rows.records()[0])
        else:
            self._table(rows)

    def facts(self, record: Mapping[str, Value]) -> None:
        """Print one row, a line a column."""
        width = max(len(_heading(name)) for name in record)
        for name, value in record.items():
            self.result(f"{_heading(name):<{width}}  {shown_as(name, value)}")

    def answer(self, facts: Mapping[str, Value], *, as_json: bool) -> None:
        """Print what is known of some facts, whose names are words joined by `_`."""
        known = {name: value for name, value in facts.items() if value is not None}
        if as_json:
            self.json(known)
        else:
            self.facts({name.replace("_", " "): value for name, value in known.items()})

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

    def console(self) -> Console:
        """Stdout with styles where it is a terminal, wide enough for tables where it is not."""
        from rich.console import Console  # noqa: PLC0415

        console = Console()
        return console if console.is_terminal else Console(width=max(console.width, NARROWEST))

    def _table(self, rows: Rows) -> None:
        from rich import box  # noqa: PLC0415 (heavy; `dse --help` prints no table)
        from rich.table import Table  # noqa: PLC0415
        from rich.text import Text  # noqa: PLC0415

        shown = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 2, 0, 0))
        for index, (name, cells, numbers) in enumerate(_columns(rows)):
            words = max(map(len, _heading(name).split()), default=0)
            width = max(map(len, cells), default=0)
            kept = width if numbers else min(width, NAME if index == 0 else TEXT)
            shown.add_column(
                _heading(name),
                justify="right" if numbers else "left",
                min_width=max(words, kept),
                overflow="fold",
            )
        for row in zip(*(cells for _, cells, _ in _columns(rows)), strict=True):
            shown.add_row(*map(Text, row))
        console = self.console()
        if not console.is_terminal:
            console.width = max(console.width, UNBROKEN)
        console.print(shown)


def _columns(rows: Rows) -> list[tuple[str, list[str], bool]]:
    """Name, cells as text, and whether they are numbers."""
    values = [[row[index] for row in rows.rows] for index in range(len(rows.columns))]
    return [
        (
            name,
            [shown_as(name, value) for value in column],
            all(isinstance(value, int | float) or _is_share(value) for value in column),
        )
        for name, column in zip(rows.columns, values, strict=True)
    ]


def _is_share(value: Value) -> bool:
    """Whether a cell is a percentage in words, or an empty one among them."""
    return isinstance(value, str) and (not value or value.endswith("%"))


def shown_as(column: str, value: Value) -> str:
    """A value as people read it: with the unit that the column's name ends in."""
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
    """`weight` for `weight_bytes`: the unit stands beside the numbers; paths stay as they are."""
    is_path = "." in column and not unit_of(column)
    return column if is_path else without_unit(column)


def _finite(value: Value) -> Value:
    return None if isinstance(value, float) and not math.isfinite(value) else value
