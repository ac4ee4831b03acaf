"""The file that a profile appends to, a row a measurement; a torn last line is cut off."""

from __future__ import annotations

import csv
import json
import os
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Self

from dse.files import writing
from dse.profile.plan import Operator
from hwmodels.errors import MeasurementError


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A row of the table; field names are the columns."""

    op: str
    shape: str
    """A JSON object."""
    dtype: str
    median_us: float
    energy_mj: float | None
    runtime: str
    min_us: float
    max_us: float
    calls: int
    watts: float | None
    clock_mhz: int | None
    spent_s: float
    """Effort of the measurement, which a resumed profile goes on counting from."""
    device: str
    software: str


COLUMNS = tuple(field.name for field in fields(Row))
HEADER = ",".join(COLUMNS) + "\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorder:
    """Appends to a table, and knows what it holds."""

    path: Path
    spent_s: dict[Operator, float]
    """Seconds by operator that is measured."""

    @classmethod
    def open(cls, path: Path, device: str) -> Self:
        """Starts a table, or goes on with the one that is there.

        Raises:
            MeasurementError: The file is another table, or of another device.
            WriteError: It cannot be written.
        """
        if path.suffix != ".csv":
            raise MeasurementError(
                f"{path}: rows are appended to it: expected a name that ends in .csv"
            )
        with writing(path):
            if path.exists() and path.stat().st_size:
                _cut_torn_line(path)
            if not path.exists() or not path.stat().st_size:
                path.write_text(HEADER, encoding="utf-8")
            return cls(path=path, spent_s=_read(path, device))

    def add(self, operator: Operator, row: Row) -> None:
        """Appends a row and has it on disk when this returns."""
        with self.path.open("a", encoding="utf-8", newline="") as stream:
            values = [getattr(row, name) for name in COLUMNS]
            csv.writer(stream, lineterminator="\n").writerow(map(_text, values))
            stream.flush()
            os.fsync(stream.fileno())
        self.spent_s[operator] = row.spent_s


def _cut_torn_line(path: Path) -> None:
    """Drops what follows the last line end: a profile was killed while it wrote."""
    content = path.read_bytes()
    if not content.endswith(b"\n"):
        with path.open("r+b") as stream:
            stream.truncate(content.rfind(b"\n") + 1)


def _read(path: Path, device: str) -> dict[Operator, float]:
    spent: dict[Operator, float] = {}
    with path.open(encoding="utf-8", newline="") as stream:
        rows = csv.DictReader(stream)
        if tuple(rows.fieldnames or ()) != COLUMNS:
            raise MeasurementError(
                f"{path}: not a table of dse profile: expected the columns {', '.join(COLUMNS)}; "
                "give another -o"
            )
        for line, row in enumerate(rows, start=2):
            if row["device"] != device:
                raise MeasurementError(
                    f"{path}: line {line} was measured on {row['device']!r}, not {device!r}; "
                    "give another -o, or the same --device-name"
                )
            try:
                shape, seconds = json.loads(row["shape"]), float(row["spent_s"])
                operator = Operator.of(row["op"], shape, row["dtype"], row["runtime"])
            except (ValueError, KeyError, AttributeError, TypeError):
                raise MeasurementError(f"{path}: line {line} is not a measurement") from None
            spent[operator] = seconds
    return spent


def _text(value: str | float | None) -> str:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)
