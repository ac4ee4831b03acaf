"""The operator table: one measured (or wanted) operator a row, read and checked.

Columns are `op, shape, dtype, median_us` (or `measured_us`), optionally `energy_mj` and `runtime`;
others are kept; `shape` is a JSON object of sizes. Times of torch runtimes are taken with cold
caches (as `dse profile` measures), those of serving runtimes with warm ones (as their own tables
are).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hwmodels.devices.device import FLAGS
from hwmodels.errors import MeasurementError, nearest
from hwmodels.operators.lower import OPTIONAL_SIZES, PARTS_OF_OP, SIZES_OF_OP
from hwmodels.operators.number_type import ATTENTION_TYPES, CACHES, TYPES_OF_OPERATORS

REQUIRED = ("op", "shape", "dtype")
TIME, TIME_TOO = "median_us", "measured_us"
"""The column of the times, and another name of it."""
ALIASES = {"int8_wo": "w8a16", "int4_wo": "w4a16", "sq": "w8a8_int8_dynamic", "bfloat16": "bf16"}
"""aiconfigurator's names of number types."""
KV_COLUMNS = ("kv_dtype", "kv_cache_dtype")
"""Column of a cache's number type; the second is aiconfigurator's name."""
KV = "_kv_"
MESSAGES_SHOWN = 20
Shape = Mapping[str, int]


@dataclass(frozen=True, kw_only=True)
class OpTable:
    """A checked table."""

    frame: pd.DataFrame
    """As read; rows in the order of the file."""
    ops: tuple[str, ...]
    shapes: tuple[Shape, ...]
    dtypes: tuple[str, ...]
    """Canonical names."""
    first: NDArray[np.intp]
    """For each row, the first row with the same op, shape and dtype."""
    source: str

    def take(self, rows: NDArray[np.intp]) -> OpTable:
        """The table of some rows, in the order given."""
        return replace(
            self,
            frame=self.frame.iloc[rows].reset_index(drop=True),
            ops=tuple(self.ops[row] for row in rows),
            shapes=tuple(self.shapes[row] for row in rows),
            dtypes=tuple(self.dtypes[row] for row in rows),
            first=_first_places(self.first[rows]),
        )


def read_optable(path: Path, *, timed: bool) -> OpTable:
    """The table of a `.csv` or `.csv.gz` file.

    `timed`: times are needed, so that an absent column, NaN, zero, negative and duplicate times
    are errors; rows with an empty time stay (see `timed_rows`). A column `measured_us` is called
    `median_us` then.

    Raises:
        MeasurementError: Wrong columns or rows; one line each, the first `MESSAGES_SHOWN`.
    """
    frame = read_rows(path, "one operator a row")
    if timed and TIME_TOO in frame:
        if TIME in frame:
            raise MeasurementError(
                f"{path}: has the columns {TIME} and {TIME_TOO}, which are both the measured "
                "time; keep one"
            )
        frame = frame.rename(columns={TIME_TOO: TIME})
    return checked_table(frame, source=str(path), timed=timed)


def checked_table(frame: pd.DataFrame, *, source: str, timed: bool) -> OpTable:
    """The table of rows that are in memory already; `source` begins every message.

    Raises:
        MeasurementError: As `read_optable`.
    """
    required = (*REQUIRED, "median_us") if timed else REQUIRED
    if missing := [name for name in required if name not in frame.columns]:
        hints = "".join(nearest(name, frame.columns) for name in missing)
        raise MeasurementError(
            f"{source}: columns missing: {', '.join(missing)} (it has {', '.join(frame.columns)})"
            f"{hints}"
        )
    shapes, first, problems = _checked(frame)
    if timed and not problems:
        problems = _time_problems(frame, shapes)
    elif "median_us" in frame:
        problems += _unfit_times(frame)
    if problems:
        shown = problems[:MESSAGES_SHOWN]
        more = len(problems) - len(shown)
        tail = [f"and {more} more"] if more else []
        raise MeasurementError("\n".join(f"{source}: {line}" for line in [*shown, *tail]))
    return OpTable(
        frame=frame,
        ops=tuple(_texts(frame, "op")),
        shapes=tuple(shapes),
        dtypes=tuple(_dtypes(frame)),
        first=first,
        source=source,
    )


def timed_rows(table: OpTable) -> np.ndarray:
    """Indices of rows with a time; the others are skipped by whoever fits."""
    return np.flatnonzero(table.frame["median_us"].notna().to_numpy())


def runtimes_of(table: OpTable, default: str) -> list[str]:
    """The runtime of each row: its own where the table says, else `default`."""
    if "runtime" not in table.frame:
        return [default] * len(table.shapes)
    named = table.frame["runtime"]
    return named.astype(object).where(named.notna(), default).astype(str).tolist()


def _first_places(keys: NDArray[np.intp]) -> NDArray[np.intp]:
    """For each key, where it stands first."""
    _, places, of_row = np.unique(keys, return_index=True, return_inverse=True)
    return places[of_row]


def read_rows(path: Path, expected: str, *, as_text: bool = False) -> pd.DataFrame:
    """The rows as text and numbers; only an empty cell counts as absent, "nan" does not.

    With `as_text` numbers stay the texts that they are in the file.

    Raises:
        MeasurementError: No file, no table, or no rows where there was `expected`.
    """
    if not path.exists():
        raise MeasurementError(f"{path}: no such file")
    try:
        frame = pd.read_csv(
            path, keep_default_na=False, na_values=[""], dtype=str if as_text else None
        )
    except (ValueError, OSError, EOFError, UnicodeDecodeError) as problem:
        raise MeasurementError(f"{path}: not a CSV table: {problem}") from None
    if frame.empty:
        raise MeasurementError(f"{path}: no rows; expected {expected}")
    if not isinstance(frame.index, pd.RangeIndex):  # pandas takes what is too much for labels
        more = frame.index.nlevels
        raise MeasurementError(
            f"{path}: rows have {len(frame.columns) + more} values under {len(frame.columns)} "
            "names; a value with a comma stands in quotes"
        )
    return frame


def _texts(frame: pd.DataFrame, name: str) -> list[str]:
    return [str(value) for value in frame[name].to_numpy(dtype=object)]


def _checked(frame: pd.DataFrame) -> tuple[list[Shape], NDArray[np.intp], list[str]]:
    """The shape of every row, its first occurrence, and what is wrong; equal rows read once."""
    keys = list(zip(_texts(frame, "op"), _texts(frame, "shape"), _dtypes(frame), strict=True))
    known: dict[tuple[str, ...], int] = {}
    first = np.array([known.setdefault(key, row) for row, key in enumerate(keys)], dtype=np.intp)
    read = {row: _row(*key) for key, row in known.items()}
    found = [read[row] for row in first.tolist()]
    problems = [f"line {line}: {problem}" for line, (_, problem) in enumerate(found, 2) if problem]
    return [shape for shape, _ in found], first, problems


def _row(op: str, text: str, dtype: str) -> tuple[Shape, str]:
    wanted = SIZES_OF_OP.get(op)
    if wanted is None:
        return {}, f"op: unknown operator {op!r}{nearest(op, SIZES_OF_OP)}"
    if dtype not in TYPES_OF_OPERATORS:
        return {}, f"dtype: {_unknown_type(dtype)}"
    if dtype in ATTENTION_TYPES and op != "attention":
        return {}, f"dtype: {dtype} is of attention, got {op}; a narrow cache is attention's"
    try:
        shape = json.loads(text)
    except ValueError:
        return {}, f"shape: not a JSON object: {text!r}"
    if not isinstance(shape, dict):
        return {}, f"shape: expected a JSON object, got {text!r}"
    if missing := [name for name in wanted if name not in shape]:
        return {}, f"shape: {op} needs {', '.join(wanted)}; missing {', '.join(missing)}"
    if problem := _wrong_size(op, shape):
        return {}, problem
    names = (*wanted, *OPTIONAL_SIZES.get(op, ()), *FLAGS)
    return {name: int(shape[name]) for name in names if name in shape}, ""


def _wrong_size(op: str, shape: Mapping[str, object]) -> str:
    """The first size of a shape that cannot be; empty where all can."""
    sizes: dict[str, int] = {}
    for name in (*SIZES_OF_OP[op], *OPTIONAL_SIZES.get(op, ())):
        size = shape.get(name, 1)
        if type(size) is not int or size <= 0:
            return f"shape.{name}: expected a positive integer, got {size!r}"
        sizes[name] = size
    for name in FLAGS:
        if shape.get(name, False) not in (False, True):
            return f"shape.{name}: expected true or false, got {shape[name]!r}"
    for part, *wholes in PARTS_OF_OP.get(op, ()):
        for whole in wholes:
            if (total := sizes[whole]) % sizes[part]:
                return f"shape.{part}: expected a divisor of {whole}, {total}, got {sizes[part]}"
    return ""


def _unknown_type(dtype: str) -> str:
    queries, separator, cache = dtype.partition(KV)
    if separator and cache not in CACHES:
        return f"unknown cache {cache!r} (column kv_dtype); expected one of {', '.join(CACHES)}"
    if separator:
        return f"a narrow cache goes with queries in bf16 or fp16, got {queries}"
    return f"unknown number type {dtype!r}{nearest(dtype, TYPES_OF_OPERATORS)}"


def _dtypes(frame: pd.DataFrame) -> list[str]:
    """Canonical names: an attention's cache is part of its number type."""
    names = [ALIASES.get(name, name) for name in _texts(frame, "dtype")]
    column = next((name for name in KV_COLUMNS if name in frame.columns), None)
    if column is None:
        return names
    given = frame[column].notna().to_numpy() & (frame["op"] == "attention").to_numpy()
    caches = [ALIASES.get(name, name) for name in _texts(frame, column)]
    return [
        f"{name}{KV}{cache}" if is_given and cache != name else name
        for name, cache, is_given in zip(names, caches, given, strict=True)
    ]


def _time_problems(frame: pd.DataFrame, shapes: list[Shape]) -> list[str]:
    given = frame["median_us"].notna()
    problems = _unfit_times(frame)
    if not given.any():
        problems.append("median_us: every row is empty; expected microseconds in some")
    key = [name for name in ("op", "dtype", "runtime") if name in frame]
    sizes = pd.Series([tuple(sorted(shape.items())) for shape in shapes], index=frame.index)
    twice = frame[key].assign(sizes=sizes)[given].duplicated(keep="first")
    problems += [
        f"line {index + 2}: the same operator as in an earlier line; keep one time for it"
        for index in twice.index[twice]
    ]
    return problems


def _unfit_times(frame: pd.DataFrame) -> list[str]:
    """Texts that are given as a time and are none."""
    times = pd.to_numeric(frame["median_us"], errors="coerce")
    given = frame["median_us"].notna()
    return [
        f"line {index + 2}: median_us: expected a positive number of microseconds, got "
        f"{str(frame['median_us'].iat[int(index)])[:40]!r}"
        for index in np.flatnonzero(given & (times.isna() | (times <= 0) | np.isinf(times)))
    ]
