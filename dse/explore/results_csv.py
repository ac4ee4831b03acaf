"""Measurements of users as a CSV: read whole, or refused whole with every error."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dse.errors import RunError, nearest
from dse.explore.problem.constraint import NATIVE_SHARE
from dse.explore.problem.records import QUALITY_COLUMNS, elsewhere_columns
from dse.run.files import HARDWARE_COLUMN
from dse.space.problem import Point

KEYS = ("digest", "trial")
IGNORED = ("file", "name", "source")
"""Columns of our own tables that say nothing new; so do those that begin with `predicted_` or
`hardware.`."""
PREDICTED = "predicted_"


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The measurements of one assignment."""

    digest: str
    point: Point
    values: Mapping[str, float]


def read_results(
    path: Path,
    known: Mapping[str, Point],
    *,
    trials: Mapping[int, str],
    columns: Sequence[str],
    targets: Sequence[str],
    apart: Sequence[str] = (),
) -> tuple[Result, ...]:
    """The measurements of a CSV file.

    Each row names an assignment by `digest` or `trial` and has at least one of `quality_loss`,
    `quality_stderr`, `report_quality_loss`, `report_quality_stderr` and the cost columns; an empty
    cell was not measured.

    Args:
        path: the file.
        known: digest -> point of what was measured or proposed.
        trials: trial -> digest.
        columns: cost columns.
        targets: their prefixes, for hints.
        apart: those of them that have loss columns of their own.

    Raises:
        RunError: no such file, wrong columns, an unknown or repeated assignment, a value that is
            no finite positive number, a row without any; all errors in one message.
    """
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            reader = csv.DictReader(stream)
            header = list(reader.fieldnames or ())
            rows = list(reader)
    except FileNotFoundError:
        raise RunError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise RunError(f"{path}: cannot be read as CSV: {error}") from error
    qualities = [*QUALITY_COLUMNS, *elsewhere_columns(apart, "")]
    allowed = [*qualities, *(name for name in columns if not name.endswith(NATIVE_SHARE))]
    problems = _header_problems(header, allowed, targets)
    if problems:
        raise RunError("\n".join(f"{path}: {problem}" for problem in problems))
    found: dict[str, Result] = {}
    for number, row in enumerate(rows, start=2):
        errors: list[str] = []
        digest = _digest(row, known, trials, errors)
        values = _values(row, allowed, errors)
        if digest in found:
            errors.append(f"digest {digest}: is there twice; give one row an assignment")
        problems += [f"{number}: {error}" for error in errors]
        if digest is not None and not errors:
            found[digest] = Result(digest=digest, point=known[digest], values=values)
    if not rows:
        problems.append("2: no rows")
    if problems:
        raise RunError("\n".join(f"{path}:{problem}" for problem in problems))
    return tuple(found.values())


def _header_problems(
    header: Sequence[str], allowed: Sequence[str], targets: Sequence[str]
) -> list[str]:
    problems = []
    if not any(key in header for key in KEYS):
        given = ", ".join(header) or "none"
        problems.append(f"expected a column 'digest' or 'trial', got {given}")
    repeated = sorted({name for name in header if header.count(name) > 1})
    problems += [f"column {name!r} is there twice" for name in repeated]
    measured = [name for name in header if name in allowed]
    for name in header:
        if name in (*KEYS, *IGNORED, *measured) or name.startswith((PREDICTED, HARDWARE_COLUMN)):
            continue
        spelt = next((f"{t}.{name}" for t in targets if f"{t}.{name}" in allowed), "")
        hint = f"; of which target? e.g. {spelt!r}" if spelt else nearest(name, allowed)
        problems.append(f"unknown column {name!r}{hint} (known: {', '.join(allowed)})")
    if not measured and not problems:
        problems.append(f"no column with a measurement; known are {', '.join(allowed)}")
    return problems


def _digest(
    row: Mapping[str, str | None],
    known: Mapping[str, Point],
    trials: Mapping[int, str],
    errors: list[str],
) -> str | None:
    """The assignment that a row speaks of, or None with what is wrong."""
    digest, trial = ((row.get(key) or "").strip() for key in KEYS)
    if digest and digest not in known:
        errors.append(
            f"digest {digest!r}: neither measured nor proposed by this run{nearest(digest, known)}"
        )
        return None
    if not trial:
        if not digest:
            errors.append("neither digest nor trial")
        return digest or None
    of_trial = trials.get(int(trial)) if trial.isdecimal() else None
    if of_trial is None:
        errors.append(f"trial {trial!r}: not a completed trial of this run")
    elif digest and of_trial != digest:
        errors.append(f"trial {trial} has digest {of_trial}, not {digest}")
    return digest or of_trial


def _values(
    row: Mapping[str, str | None], allowed: Sequence[str], errors: list[str]
) -> dict[str, float]:
    """The measurements of a row; adds what is wrong to `errors`."""
    values: dict[str, float] = {}
    if None in row or None in row.values():
        errors.append("the row does not match the header")
        return values
    for name in allowed:
        text = (row.get(name) or "").strip()
        if not text:
            continue
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        positive = value >= 0 if _is_quality(name) else value > 0
        if not (math.isfinite(value) and positive):
            errors.append(f"{name}: expected a finite positive number, got {text!r}")
        values[name] = value
    qualities = [name for name in allowed if _is_quality(name)]
    for loss, stderr in zip(qualities[::2], qualities[1::2], strict=True):
        if stderr in values and loss not in values:
            errors.append(f"{stderr}: without {loss}")
    if not values:
        errors.append("no measurement in the row")
    return values


def _is_quality(column: str) -> bool:
    """Whether a column is a loss or its error, of whatever target."""
    return column.rpartition(".")[2] in QUALITY_COLUMNS
