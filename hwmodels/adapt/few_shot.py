"""`dse fit`: a device file that carries a few measurements of the device."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hwmodels.adapt.limits import refuse_impossible_times
from hwmodels.adapt.next_measurements import next_measurements
from hwmodels.devices.device import Device, Measurement
from hwmodels.devices.load import load_device
from hwmodels.devices.rewrite import rewritten
from hwmodels.errors import DeviceError
from hwmodels.estimators.gpu.estimator import GpuEstimator
from hwmodels.estimators.registry import estimator_of
from hwmodels.operators.optable import OpTable, runtimes_of, timed_rows

MOST_SAMPLES = 200
"""Taken from a long table: the Gaussian process is cubic in them, and more say little."""
Indices = NDArray[np.intp]


def fittable_device(device_file: str | Path) -> Device:
    """The device of a name or file, if its estimator learns from measurements.

    Raises:
        DeviceError: The file is wrong, or the device is of a kind without such an estimator.
    """
    device = load_device(device_file)
    if not isinstance(estimator_of(device), GpuEstimator):
        raise DeviceError(
            f"{device_file}: dse fit adapts GPUs and processors; {device.name} is a device of "
            f"kind {device.kind!r}, whose estimator learns nothing from measurements"
        )
    return device


def samples_of(
    table: OpTable, device: Device, *, runtime: str, samples: int | None, seed: int = 0
) -> Indices:
    """Rows to fit to: the `samples` (`MOST_SAMPLES`) that say the most about the others.

    Raises:
        MeasurementError: Times that the device cannot have (`refuse_impossible_times`).
    """
    refuse_impossible_times(table, device, runtime)
    rows = timed_rows(table)
    count = samples or MOST_SAMPLES
    if count >= len(rows):
        return rows
    return next_measurements(table, rows, device, runtime=runtime, count=count, seed=seed)


def measurements_of(
    table: OpTable, rows: Indices | Sequence[int], runtime: str
) -> tuple[Measurement, ...]:
    """Rows of a table as measurements of a device."""
    runtimes = runtimes_of(table, runtime)
    times = table.frame["median_us"].to_numpy(dtype=float)
    return tuple(
        Measurement(
            op=table.ops[row],
            sizes=tuple(sorted(table.shapes[row].items())),
            dtype=table.dtypes[row],
            runtime=runtimes[row],
            median_us=float(times[row]),
        )
        for row in map(int, rows)
    )


def fitted_device_file(device_file: str | Path, measurements: Sequence[Measurement]) -> str:
    """The text of a device file with these measurements.

    Those that the file already has stay, apart from operators that were measured again. Its
    corrections, which are of networks as they were predicted without, are dropped.

    Raises:
        DeviceError: The device file cannot be read.
    """
    known = load_device(device_file).measurements
    every = {_operator(one): one for one in (*known, *measurements)}
    entries = [
        {
            "op": one.op,
            "shape": dict(one.sizes),
            "dtype": one.dtype,
            "runtime": one.runtime,
            "median_us": one.median_us,
        }
        for one in every.values()
    ]
    return rewritten(device_file, measurements=entries, corrections=None)


def _operator(one: Measurement) -> tuple[object, ...]:
    return one.op, one.sizes, one.dtype, one.runtime
