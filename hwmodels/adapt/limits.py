"""Measured times against what the device can do: a unit that is off by 1000 is refused."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hwmodels.adapt.prediction import light_us, predict_ops
from hwmodels.devices.device import Device
from hwmodels.errors import MeasurementError
from hwmodels.operators.optable import OpTable, timed_rows

Floats = NDArray[np.float64]
UNITS = {"us": "microseconds", "ms": "milliseconds", "s": "seconds"}

TOO_FAST = 0.9
"""A time below this share of the speed of light cannot be true."""
TOO_FAR = 300.0
"""No estimator here is off by this factor in the median, whatever the device: seconds,
milliseconds and nanoseconds are off by 1000."""


def refuse_impossible_times(table: OpTable, device: Device, runtime: str) -> None:
    """Refuses times that are faster than light on the device, or far from any prediction.

    The median row decides, so that single outliers pass: they are the user's to judge.

    Raises:
        MeasurementError: The median is below `TOO_FAST` of the physical limit, or more than
            `TOO_FAR` times above or below the prediction.
    """
    rows = timed_rows(table)
    if not len(rows):
        return
    measured = table.frame["median_us"].to_numpy(dtype=float)[rows]
    limits = light_us(table, device, runtime)[rows]
    light = float(np.median(np.divide(measured, limits, where=limits > 0, out=limits + np.inf)))
    if light < TOO_FAST:
        raise MeasurementError(
            f"{table.source}: median_us is {light:.2g} times the physical limit of {device.name} "
            "in the median; expected microseconds at or above it: check the unit of the column, "
            "and the device"
        )
    predicted = predict_ops(table, device, runtime)["predicted_us"].to_numpy()[rows]
    refuse_far(measured, predicted, source=table.source, column="median_us", device=device)


def refuse_far(
    measured: Floats, predicted: Floats, *, source: str, column: str, device: Device
) -> None:
    """Refuses times that are `TOO_FAR` from predictions in the median, both in one unit.

    Raises:
        MeasurementError: They are; the message names the column, whose unit must be wrong.
    """
    ratio = float(np.median(measured / predicted))
    if not 1 / TOO_FAR < ratio < TOO_FAR:
        unit = UNITS.get(column.rpartition("_")[2], "its unit")
        raise MeasurementError(
            f"{source}: {column} is {ratio:.2g} times what is predicted for {device.name} "
            f"in the median; expected {unit}: check the unit of the column, and the device"
        )
