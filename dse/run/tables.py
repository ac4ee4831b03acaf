"""Readers of a run folder's files: JSON and CSV to records; what is torn is a `RunError`."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from dse.errors import RunError
from dse.run import files
from dse.run.entries import MeasuredPoint

TEXT_COLUMNS = ("trial", "source", "name", "state", "digest", "tied", "told")

Record = TypeVar("Record")
Row = Mapping[str, str]


def read_json(adapter: TypeAdapter[Record], path: Path) -> Record:
    """The record of a JSON file.

    Raises:
        RunError: it cannot be read, or does not fit; one line a field.
    """
    try:
        return adapter.validate_json(path.read_bytes())
    except ValidationError as error:
        raise RunError(_complaint(path, error)) from None
    except OSError as error:
        raise RunError(f"{path}: {error.strerror}") from None


def read_rows(folder: Path, name: str, *, required: bool = True) -> list[Row]:
    """The rows of a CSV file.

    Raises:
        RunError: it is missing though `required`, or a row is cut short.
    """
    path = folder / name
    if not path.is_file():
        if required:
            raise RunError(
                f"{folder}: {name} is missing: the run has not got that far, or the folder is torn"
            )
        return []
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            rows: list[Row] = list(csv.DictReader(stream))
    except (UnicodeDecodeError, csv.Error) as error:
        raise RunError(f"{path}: expected CSV in UTF-8: {error}: the file is damaged") from error
    for number, row in enumerate(rows, start=2):
        if None in row or None in row.values():
            raise RunError(f"{path}:{number}: the row does not match the header: the file is torn")
    return rows


def read_records(folder: Path, name: str, kind: type[Record]) -> tuple[Record, ...]:
    """The rows of a CSV file as records, empty cells left out; none where there is no file.

    Raises:
        RunError: the file is torn, or a row does not fit.
    """
    rows = read_rows(folder, name, required=False)
    filled = [{key: cell for key, cell in row.items() if cell != ""} for row in rows]
    try:
        return tuple(TypeAdapter(list[kind]).validate_python(filled))  # type: ignore[valid-type]
    except ValidationError as error:
        raise RunError(_complaint(folder / name, error)) from None


def read_points(folder: Path, name: str) -> tuple[MeasuredPoint, ...]:
    """The points of `trials.csv` or `front.csv`.

    Raises:
        RunError: the file is missing or torn.
    """
    return tuple(_point(row, folder / name) for row in read_rows(folder, name))


def trial_of(row: Row, path: Path) -> int:
    """The number of a row's trial.

    Raises:
        RunError: it has none.
    """
    try:
        return int(row["trial"])
    except (KeyError, ValueError):
        raise RunError(
            f"{path}: trial: expected a whole number, got {row.get('trial')!r}"
        ) from None


def number_of(cell: str) -> float | None:
    """The number of a cell; None of an empty one and of words."""
    try:
        return float(cell)
    except ValueError:
        return None


def _point(row: Row, path: Path) -> MeasuredPoint:
    return MeasuredPoint(
        trial=trial_of(row, path),
        source=row.get("source", ""),
        name=row.get("name", ""),
        state=row.get("state", "complete"),
        digest=row.get("digest", ""),
        tied=row.get("tied", "").lower() in ("true", "1"),
        told=tuple(row.get("told", "").split()),
        columns={
            key: value
            for key, cell in row.items()
            if key not in TEXT_COLUMNS
            and not key.startswith(files.HARDWARE_COLUMN)
            and (value := number_of(cell)) is not None
        },
        hardware={
            key.removeprefix(files.HARDWARE_COLUMN): cell
            for key, cell in row.items()
            if key.startswith(files.HARDWARE_COLUMN)
        },
    )


def _complaint(path: Path, error: ValidationError) -> str:
    """Every error of a file, one a line, with the field's path."""
    lines = (
        f"{path}: {'.'.join(str(part) for part in one['loc']) or 'file'}: {one['msg']}"
        for one in error.errors()
    )
    return "\n".join(lines)
