"""The table of timed networks: one call of one network a row, read and checked.

The time has its unit in its column's name: `latency_ms` (or `measured_`, `median_`, `time_`; `_s`,
`_us`). Optional columns say what was run: `model`, `format` or `assignment`, `runtime`, `kv`,
`tensor_parallel`, `repeat`; every other column that has the name of a dimension of the model is
its size. What a row does not say, the command line says for all.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path

import pandas as pd

from dse.errors import DseError
from hwmodels.errors import MeasurementError
from hwmodels.operators.optable import MESSAGES_SHOWN, read_rows

SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6}
WHATS = ("latency", "measured", "median", "time")
TIME = re.compile(rf"^(?:{'|'.join(WHATS)})_({'|'.join(SECONDS)})$")
TEXTS = ("model", "format", "assignment", "runtime", "kv", "device")
COUNTS = ("tensor_parallel", "repeat")
MISSPELT = 0.75
"""Likeness (of difflib) to a known name from which on a column must be a misspelt one; others
are a user's own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Defaults:
    """Settings of rows that do not say theirs."""

    model: str
    format: str | None = None
    assignment: Path | None = None
    runtime: str | None = None
    kv: str | None = None
    tensor_parallel: int = 1
    repeat: int = 1
    dims: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A call that was timed."""

    line: int
    """In the file, whose header is line 1."""
    measured_s: float
    model: str
    format: str | None
    assignment: Path | None
    runtime: str | None
    kv: str | None
    tensor_parallel: int
    repeat: int
    dims: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkTable:
    """A checked table."""

    source: str
    time: str
    """Name of the column of the times."""
    rows: tuple[Row, ...]
    """Those with a time."""
    without_time: int
    unread: tuple[str, ...]
    """Columns that are neither known nor a size of any model."""


def is_optable(path: Path) -> bool:
    """Whether a table is one of operators.

    Raises:
        MeasurementError: No table.
    """
    return "op" in read_rows(path, EXPECTED, as_text=True).columns


EXPECTED = "one timed call of a network a row"


SizesOf = Callable[[str, Sequence[str]], Sequence[str]]
"""Names of a model's dimensions, by the model's name and the columns of the table."""


def read_networks(path: Path, defaults: Defaults, sizes_of: SizesOf) -> NetworkTable:
    """The rows of a `.csv` or `.csv.gz` file; paths in it are relative to its folder.

    Raises:
        MeasurementError: Wrong columns or rows; one line each, the first `MESSAGES_SHOWN`.
        DseError: A model of the defaults that cannot be opened.
    """
    frame = read_rows(path, EXPECTED, as_text=True)
    columns = [str(name) for name in frame.columns]
    time = _time_column(path, columns)
    cells = _cells(frame)
    sizes = _sizes(path, cells, defaults, lambda model: sizes_of(model, columns))
    known = {name for names in sizes.values() for name in names}
    unread = [name for name in columns if name not in (*TEXTS, *COUNTS, time, *known)]
    _refuse_misspelt(path, unread, columns, known)
    found: list[Row] = []
    problems = _devices(path, frame)
    for line, row in enumerate(cells, 2):
        if time in row:
            try:
                read = _Cells(path=path, line=line, cells=row).row(time, defaults, known)
                _check_sizes(read, sizes[read.model])
                found.append(read)
            except ValueError as problem:
                problems.append(f"{path}: line {line}: {problem}")
    if not problems and not found:
        problems.append(f"{path}: {time}: every row is empty; expected a time in some")
    if problems:
        more = len(problems) - MESSAGES_SHOWN
        tail = [f"{path}: and {more} more"] if more > 0 else []
        raise MeasurementError("\n".join([*problems[:MESSAGES_SHOWN], *tail]))
    return NetworkTable(
        source=str(path),
        time=time,
        rows=tuple(found),
        without_time=len(frame) - len(found),
        unread=tuple(unread),
    )


def _sizes(
    path: Path,
    cells: Sequence[Mapping[str, str]],
    defaults: Defaults,
    sizes_of: Callable[[str], Sequence[str]],
) -> dict[str, Sequence[str]]:
    """Names of the dimensions of every model that a row names."""
    found: dict[str, Sequence[str]] = {}
    for line, row in enumerate(cells, 2):
        model = _Cells(path=path, line=line, cells=row).model(defaults)
        if model not in found:
            try:
                found[model] = sizes_of(model)
            except DseError as problem:
                if "model" not in row:
                    raise
                raise MeasurementError(f"{path}: line {line}: model: {problem}") from None
    return found


def _cells(frame: pd.DataFrame) -> list[dict[str, str]]:
    """The cells of every row that are not empty, by column."""
    return [
        {str(name): value.strip() for name, value in row.items() if isinstance(value, str)}
        for row in frame.to_dict("records")
    ]


def _time_column(path: Path, columns: Sequence[str]) -> str:
    times = [name for name in columns if TIME.match(name)]
    if len(times) == 1:
        return times[0]
    if times:
        raise MeasurementError(
            f"{path}: has the columns {' and '.join(times)}, which are all the measured time; "
            "keep one"
        )
    bare = [name for name in columns if name in WHATS]
    hint = f"; {bare[0]!r} says no unit, call it {bare[0]}_ms" if bare else ""
    raise MeasurementError(
        f"{path}: no column with the measured time and its unit, such as latency_ms, latency_us "
        f"or latency_s (it has {', '.join(columns)}){hint}"
    )


def _refuse_misspelt(
    path: Path, unread: Sequence[str], columns: Sequence[str], sizes: set[str]
) -> None:
    """Refuses a column whose name is nearly that of one that is not there."""
    absent = [name for name in (*TEXTS, *COUNTS, *sorted(sizes)) if name not in columns]
    for name in unread:
        if near := get_close_matches(name, absent, n=1, cutoff=MISSPELT):
            raise MeasurementError(
                f"{path}: unknown column {name!r}; did you mean {near[0]!r}? Known: the time, "
                f"{', '.join((*TEXTS, *COUNTS, *sorted(sizes)))}; rename it"
            )


def _devices(path: Path, frame: pd.DataFrame) -> list[str]:
    """Says that a table holds the times of several devices."""
    if "device" not in frame or frame["device"].nunique() < 2:
        return []
    names = ", ".join(map(str, frame["device"].dropna().unique()))
    return [f"{path}: device: has times of {names}; keep the rows of the one that is checked"]


def _check_sizes(row: Row, names: Sequence[str]) -> None:
    """Raises `ValueError` for a size that the row's model does not have, or that is missing."""
    if other := [name for name in row.dims if name not in names]:
        raise ValueError(
            f"{other[0]}: {row.model} has no such dimension ({', '.join(names) or 'none'}); "
            "leave the cell empty"
        )
    if missing := [name for name in names if name not in row.dims]:
        raise ValueError(
            f"{missing[0]}: the size is missing; add a column {missing[0]!r}, or "
            f"--dim {missing[0]}=N for all rows"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cells:
    """The cells of one row."""

    path: Path
    line: int
    cells: Mapping[str, str]

    def row(self, time: str, defaults: Defaults, sizes: set[str]) -> Row:
        """The row.

        Raises:
            ValueError: A cell that is no such thing.
        """
        cells = self.cells
        if "format" in cells and "assignment" in cells:
            raise ValueError("has a format and an assignment; keep one")
        own = "format" in cells or "assignment" in cells
        return Row(
            line=self.line,
            measured_s=self._time(time),
            model=self.model(defaults),
            format=cells.get("format") if own else defaults.format,
            assignment=self._assignment(defaults, own=own),
            runtime=cells.get("runtime", defaults.runtime),
            kv=cells.get("kv", defaults.kv),
            tensor_parallel=self._count("tensor_parallel", defaults.tensor_parallel),
            repeat=self._count("repeat", defaults.repeat),
            dims={
                **{name: size for name, size in defaults.dims.items() if name in sizes},
                **{name: self._count(name, 0) for name in cells if name in sizes},
            },
        )

    def _time(self, column: str) -> float:
        text = self.cells[column]
        unit = column.rpartition("_")[2]
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"{column}: expected a positive number of {unit}, got {text[:40]!r}")
        return value * SECONDS[unit]

    def _count(self, column: str, default: int) -> int:
        if column not in self.cells:
            return default
        text = self.cells[column]
        if not (text.isascii() and text.isdigit() and int(text) > 0):
            raise ValueError(f"{column}: expected a positive whole number, got {text[:40]!r}")
        return int(text)

    def model(self, defaults: Defaults) -> str:
        """The model's name as it is opened."""
        text = self.cells.get("model")
        if text is None:
            return defaults.model
        return text if text.startswith("zoo:") else str(self.path.parent / text)

    def _assignment(self, defaults: Defaults, *, own: bool) -> Path | None:
        text = self.cells.get("assignment")
        if text is not None:
            return self.path.parent / text
        return None if own else defaults.assignment
