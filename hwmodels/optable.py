"""The operator table: one measured (or wanted) operator a row, read, checked and priced.

Columns are `op, shape, dtype, median_us`, optionally `energy_mj` and `runtime`; others are kept;
`shape` is a JSON object of sizes. Times of torch runtimes are taken with cold caches (as
`dse profile` measures), those of serving runtimes with warm ones (as their own tables are).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from hwmodels.device import Device
from hwmodels.errors import MeasurementError, nearest
from hwmodels.kernel import Kernel
from hwmodels.number_type import NUMBER_TYPES
from hwmodels.op_kernels import SIZES_OF_OP, compute_elements, op_kernels
from hwmodels.price import estimator_of
from hwmodels.runtime_file import load_runtime

REQUIRED = ("op", "shape", "dtype")
ALIASES = {"int8_wo": "w8a16", "int4_wo": "w4a16", "sq": "w8a8_int8_dynamic", "bfloat16": "bf16"}
"""aiconfigurator's names of number types."""
MESSAGES_SHOWN = 20
TOO_FAST = 0.9
"""A time below this share of the speed of light cannot be true."""


@dataclass(frozen=True, kw_only=True)
class OpTable:
    """A checked table."""

    frame: pd.DataFrame
    """As read; rows in the order of the file."""
    ops: tuple[str, ...]
    shapes: tuple[dict[str, int], ...]
    dtypes: tuple[str, ...]
    """Canonical names."""
    source: str


def read_optable(path: Path, *, timed: bool) -> OpTable:
    """The table of a `.csv` or `.csv.gz` file.

    `timed`: times are needed, so that an absent column, NaN, zero, negative and duplicate times
    are errors; rows with an empty time stay (see `timed_rows`).

    Raises:
        MeasurementError: Wrong columns or rows; one line each, the first `MESSAGES_SHOWN`.
    """
    if not path.exists():
        raise MeasurementError(f"{path}: no such file")
    try:
        frame = pd.read_csv(path)
    except (ValueError, OSError, UnicodeDecodeError) as problem:
        raise MeasurementError(f"{path}: not a CSV table: {problem}") from None
    required = (*REQUIRED, "median_us") if timed else REQUIRED
    if missing := [name for name in required if name not in frame.columns]:
        hints = "".join(nearest(name, frame.columns) for name in missing)
        raise MeasurementError(
            f"{path}: columns missing: {', '.join(missing)} (it has {', '.join(frame.columns)})"
            f"{hints}"
        )
    shapes, problems = _checked(frame, timed=timed)
    if problems:
        shown = problems[:MESSAGES_SHOWN]
        more = len(problems) - len(shown)
        tail = [f"and {more} more"] if more else []
        raise MeasurementError("\n".join(f"{path}: {line}" for line in [*shown, *tail]))
    dtypes = tuple(ALIASES.get(str(name), str(name)) for name in frame["dtype"])
    ops = tuple(map(str, frame["op"]))
    return OpTable(frame=frame, ops=ops, shapes=tuple(shapes), dtypes=dtypes, source=str(path))


def timed_rows(table: OpTable) -> np.ndarray:
    """Indices of rows with a time; the others are skipped by whoever fits."""
    return np.flatnonzero(table.frame["median_us"].notna().to_numpy())


def predict_ops(table: OpTable, device: Device, runtime: str) -> pd.DataFrame:
    """The table with `predicted_us, low_us, high_us, energy_mj`; a `runtime` column wins.

    Raises:
        HardwareError: An unknown runtime, or elements that the device cannot multiply.
    """
    runtimes = runtimes_of(table, runtime)
    predicted = np.zeros((len(table.shapes), 4))
    for name in dict.fromkeys(runtimes):
        rows = [index for index, found in enumerate(runtimes) if found == name]
        groups = rows_kernels(table, rows, device, name)
        kernels = [kernel for group in groups for kernel in group]
        costs = iter(estimator_of(device).estimate(kernels, device, load_runtime(name)))
        for index, group in zip(rows, groups, strict=True):
            for cost in [next(costs) for _ in group]:
                predicted[index] += (
                    cost.latency_s * 1e6, cost.low_s * 1e6, cost.high_s * 1e6, cost.energy_j * 1e3,
                )  # fmt: skip
    names = ("predicted_us", "low_us", "high_us", "predicted_energy_mj")
    if "energy_mj" not in table.frame:
        names = (*names[:3], "energy_mj")
    return table.frame.assign(**{name: predicted[:, i] for i, name in enumerate(names)})


def rows_kernels(
    table: OpTable, rows: Sequence[int], device: Device, runtime: str
) -> list[tuple[Kernel, ...]]:
    """Kernels of each of some rows, run by one runtime."""
    cold = runtime.startswith("torch")
    compute = {dtype: compute_elements(dtype, device) for dtype in {table.dtypes[i] for i in rows}}
    return [
        op_kernels(
            table.ops[row], table.shapes[row], table.dtypes[row], compute[table.dtypes[row]],
            cold=cold,
        )
        for row in rows
    ]  # fmt: skip


def runtimes_of(table: OpTable, default: str) -> list[str]:
    """The runtime of each row: its own where the table says, else `default`."""
    if "runtime" not in table.frame:
        return [default] * len(table.shapes)
    return [default if pd.isna(name) else str(name) for name in table.frame["runtime"]]


def refuse_impossible(table: OpTable, device: Device, light_us: np.ndarray) -> None:
    """Refuses times that are faster than light on the device: a unit off by 1000.

    Raises:
        MeasurementError: The median row is faster than `TOO_FAST` of the physical limit.
    """
    rows = timed_rows(table)
    measured = table.frame["median_us"].to_numpy(dtype=float)[rows]
    ratio = float(np.median(measured / light_us[rows])) if len(rows) else 1.0
    if ratio < TOO_FAST:
        raise MeasurementError(
            f"{table.source}: median_us is {ratio:.2g} times the physical limit of {device.name} "
            "in the median; expected microseconds at or above it: check the unit of the column"
        )


def _checked(frame: pd.DataFrame, *, timed: bool) -> tuple[list[dict[str, int]], list[str]]:
    shapes: list[dict[str, int]] = []
    problems: list[str] = []
    for line, (op, text, dtype) in enumerate(
        zip(frame["op"], frame["shape"], frame["dtype"], strict=True), start=2
    ):
        shape, problem = _row(str(op), str(text), str(dtype))
        shapes.append(shape)
        if problem:
            problems.append(f"line {line}: {problem}")
    if timed:
        problems += _time_problems(frame)
    return shapes, problems


def _row(op: str, text: str, dtype: str) -> tuple[dict[str, int], str]:
    if op not in SIZES_OF_OP:
        return {}, f"op: unknown operator {op!r}{nearest(op, SIZES_OF_OP)}"
    if ALIASES.get(dtype, dtype) not in NUMBER_TYPES:
        return {}, f"dtype: unknown number type {dtype!r}{nearest(dtype, NUMBER_TYPES)}"
    try:
        shape = json.loads(text)
    except ValueError:
        return {}, f"shape: not a JSON object: {text!r}"
    if not isinstance(shape, dict):
        return {}, f"shape: expected a JSON object, got {text!r}"
    wanted = SIZES_OF_OP[op]
    if missing := [name for name in wanted if name not in shape]:
        return {}, f"shape: {op} needs {', '.join(wanted)}; missing {', '.join(missing)}"
    if wrong := [name for name in wanted if not _is_size(shape[name])]:
        return {}, f"shape.{wrong[0]}: expected a positive integer, got {shape[wrong[0]]!r}"
    return {name: int(value) for name, value in shape.items() if _is_size(value)}, ""


def _is_size(value: object) -> bool:
    return isinstance(value, bool) or (isinstance(value, int) and value > 0)


def _time_problems(frame: pd.DataFrame) -> list[str]:
    times = pd.to_numeric(frame["median_us"], errors="coerce")
    problems = [
        f"line {index + 2}: median_us: expected a positive number of microseconds, got "
        f"{frame['median_us'].iat[int(index)]!r}"
        for index in np.flatnonzero(
            frame["median_us"].notna() & (times.isna() | (times <= 0) | np.isinf(times))
        )
    ]
    key = [name for name in ("op", "shape", "dtype", "runtime") if name in frame]
    twice = frame.duplicated(key, keep="first") & times.notna()
    problems += [
        f"line {index + 2}: the same operator as in an earlier line; keep one time for it"
        for index in np.flatnonzero(twice)
    ]
    return problems
