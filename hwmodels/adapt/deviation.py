"""Predictions beside what was measured: errors of groups of rows, and where the most of them is.

The error of a row is predicted / measured - 1: negative where the prediction is too short. The
absolute error of a group is the sum of |predicted - measured|, so that long rows count for what
they cost.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hwmodels.adapt.prediction import predict_ops, regimes
from hwmodels.devices.device import Device
from hwmodels.operators.optable import OpTable, runtimes_of, timed_rows

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]
Group = tuple[str, ...]

CLOSE = 0.1 * (1 + 1e-9)
"""Errors up to a tenth count as close, whatever its last bit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Errors:
    """Errors of some rows; shares are of all rows of the comparison."""

    rows: int
    mape: float
    """Mean of |predicted / measured - 1|."""
    median: float
    bias: float
    """Mean of predicted / measured - 1."""
    within_10_percent: float
    """Share of the rows."""
    in_interval: float
    """Share of the rows whose time lies in the interval."""
    share_of_time: float
    """Share of the measured time."""
    share_of_error: float
    """Share of the absolute error."""
    total: float
    """Predicted time of all rows together over the measured one, less 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Predicted and measured times of rows, each of shape (rows,), in one unit."""

    measured: Floats
    predicted: Floats
    low: Floats
    high: Floats
    labels: Mapping[str, Sequence[str]]
    """Names that tell rows apart, by kind of label (operator, format, regime): one a row."""

    def errors(self, rows: Indices | None = None) -> Errors:
        """Errors of some rows, by default of all."""
        chosen = np.arange(len(self.measured)) if rows is None else rows
        measured, predicted = self.measured[chosen], self.predicted[chosen]
        relative = predicted / measured - 1
        missed = np.abs(self.predicted - self.measured)
        inside = (measured >= self.low[chosen]) & (measured <= self.high[chosen])
        return Errors(
            rows=len(chosen),
            mape=float(np.abs(relative).mean()),
            median=float(np.median(np.abs(relative))),
            bias=float(relative.mean()),
            within_10_percent=float((np.abs(relative) <= CLOSE).mean()),
            in_interval=float(inside.mean()),
            share_of_time=float(measured.sum() / self.measured.sum()),
            share_of_error=float(missed[chosen].sum() / missed.sum()) if missed.any() else 0.0,
            total=float(predicted.sum() / measured.sum() - 1),
        )

    def by(self, *kinds: str) -> dict[Group, Errors]:
        """Errors of the rows that agree in these labels, those with the most error first."""
        places: dict[Group, list[int]] = {}
        for row, group in enumerate(zip(*(self.labels[kind] for kind in kinds), strict=True)):
            places.setdefault(group, []).append(row)
        found = {group: self.errors(np.array(rows)) for group, rows in places.items()}
        return dict(sorted(found.items(), key=lambda pair: -pair[1].share_of_error))


def known_rows(table: OpTable, device: Device, runtime: str) -> int:
    """Number of timed rows that the device's file is adapted to already."""
    known = {(one.op, one.sizes, one.dtype, one.runtime) for one in device.measurements}
    runtimes = runtimes_of(table, runtime)
    return sum(
        (
            table.ops[row],
            tuple(sorted(table.shapes[row].items())),
            table.dtypes[row],
            runtimes[row],
        )
        in known
        for row in timed_rows(table)
    )


def compare_ops(table: OpTable, device: Device, runtime: str) -> Comparison:
    """The timed rows of an operator table beside the predictions for a device.

    Raises:
        HardwareError: As `predict_ops`.
    """
    rows = timed_rows(table)
    timed = table.take(rows)
    frame = predict_ops(timed, device, runtime)
    measured, predicted, low, high = (
        frame[name].to_numpy(dtype=float)
        for name in ("median_us", "predicted_us", "low_us", "high_us")
    )
    labels = {
        "operator": timed.ops,
        "format": timed.dtypes,
        "regime": regimes(timed, device, runtime),
    }
    runtimes = runtimes_of(timed, runtime)
    if len(set(runtimes)) > 1:
        labels["runtime"] = tuple(runtimes)
    return Comparison(measured=measured, predicted=predicted, low=low, high=high, labels=labels)
