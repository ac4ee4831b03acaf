"""Gains from few measurements: errors before, on samples left out, and on rows that were not used.

A sample's own prediction after the fit says nothing: it was fitted to. So samples are left out in
turn, in up to `FOLDS` groups, each predicted from the others.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hwmodels.adapt.few_shot import with_measurements
from hwmodels.adapt.prediction import predict_ops
from hwmodels.devices.device import Device, Measurement
from hwmodels.operators.optable import OpTable, timed_rows

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]

FOLDS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class FitErrors:
    """Medians of |predicted / measured - 1|, and the share of times inside the interval."""

    before: float
    """On the samples, without them."""
    left_out: float | None
    """On samples left out, with the others; none for a single sample."""
    left_out_inside: float | None
    unused: int
    """Timed rows of the table that were not sampled."""
    unused_before: float | None
    unused_after: float | None


def fit_errors(
    table: OpTable,
    rows: Indices,
    measurements: tuple[Measurement, ...],
    device: Device,
    *,
    runtime: str,
) -> FitErrors:
    """Errors of fitting `device` to `measurements`, which are the `rows` of the table."""
    sampled = table.take(rows)
    others = table.take(np.setdiff1d(timed_rows(table), rows))
    fitted = with_measurements(device, measurements)
    left = _left_out(sampled, measurements, device, runtime)
    unused = len(others.shapes)
    return FitErrors(
        before=_Predicted.of(sampled, device, runtime).error,
        left_out=left.error if left else None,
        left_out_inside=left.inside if left else None,
        unused=unused,
        unused_before=_Predicted.of(others, device, runtime).error if unused else None,
        unused_after=_Predicted.of(others, fitted, runtime).error if unused else None,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Predicted:
    """Times and predictions of rows, microseconds."""

    measured: Floats
    predicted: Floats
    low: Floats
    high: Floats

    @classmethod
    def of(cls, table: OpTable, device: Device, runtime: str) -> _Predicted:
        frame = predict_ops(table, device, runtime)
        measured, predicted, low, high = (
            frame[name].to_numpy(dtype=float)
            for name in ("median_us", "predicted_us", "low_us", "high_us")
        )
        return cls(measured=measured, predicted=predicted, low=low, high=high)

    @property
    def error(self) -> float:
        return float(np.median(np.abs(self.predicted / self.measured - 1)))

    @property
    def inside(self) -> float:
        return float(np.mean((self.measured >= self.low) & (self.measured <= self.high)))


def _left_out(
    table: OpTable, measurements: tuple[Measurement, ...], device: Device, runtime: str
) -> _Predicted | None:
    """Each sampled row as the samples of the other folds predict it; None for a single one."""
    count = len(measurements)
    if count < 2:
        return None
    folds = np.arange(count) % min(FOLDS, count)
    parts = []
    for fold in range(folds.max() + 1):
        kept = tuple(measurements[row] for row in np.flatnonzero(folds != fold))
        held = table.take(np.flatnonzero(folds == fold))
        parts.append(_Predicted.of(held, with_measurements(device, kept), runtime))
    return _Predicted(
        measured=np.concatenate([part.measured for part in parts]),
        predicted=np.concatenate([part.predicted for part in parts]),
        low=np.concatenate([part.low for part in parts]),
        high=np.concatenate([part.high for part in parts]),
    )
