"""`dse fit`: a device file that carries a few measurements of the device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hwmodels.adapt.limits import refuse_impossible_times
from hwmodels.adapt.next_measurements import next_measurements
from hwmodels.devices.device import Device, Measurement
from hwmodels.devices.load import device_content, load_device
from hwmodels.devices.rewrite import rewritten
from hwmodels.errors import DeviceError
from hwmodels.estimators.cpu.constants import CONSTANTS
from hwmodels.estimators.cpu.estimator import CpuEstimator
from hwmodels.estimators.cpu.fitting import fitted_factors
from hwmodels.estimators.gpu.estimator import GpuEstimator
from hwmodels.estimators.registry import estimator_of
from hwmodels.operators.optable import OpTable, timed_rows

MOST_SAMPLES = 200
"""Taken from a long table: the Gaussian process is cubic in them, and more say little."""
Indices = NDArray[np.intp]


def fittable_device(device_file: str | Path) -> Device:
    """The device of a name or file, if its estimator learns from measurements.

    Raises:
        DeviceError: The file is wrong, or the device is of a kind without such an estimator.
    """
    device = load_device(device_file)
    if not isinstance(estimator_of(device), GpuEstimator | CpuEstimator):
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


def fitted_device_file(device_file: str | Path, measurements: Sequence[Measurement]) -> str:
    """The text of a device file with these measurements.

    Those that the file already has stay, apart from operators that were measured again. Its
    corrections, which are of networks as they were predicted without, are dropped.

    Raises:
        DeviceError: The device file cannot be read.
    """
    device = load_device(device_file)
    every = {_operator(one): one for one in (*device.measurements, *measurements)}
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
    return rewritten(
        device_file,
        measurements=entries,
        corrections=None,
        **_brought(device_file, device, tuple(every.values())),
    )


def with_measurements(device: Device, measurements: tuple[Measurement, ...]) -> Device:
    """The device with further measurements; a processor's figures are brought to all of them."""
    every = (*device.measurements, *measurements)
    if device.cpu is not None and every:
        factors = fitted_factors(every, device, CONSTANTS)
        device = replace(device, cpu=replace(device.cpu, fitted=factors))
    return replace(device, measurements=every)


def _brought(
    device_file: str | Path, device: Device, measurements: tuple[Measurement, ...]
) -> dict[str, object]:
    """The section of a processor's file with what brings its figures to the measurements."""
    if device.cpu is None:
        return {}
    section = device_content(device_file)[1]["cpu"]
    assert isinstance(section, dict), "the file was read"
    factors = fitted_factors(measurements, device, CONSTANTS)
    shown = [{name: value for name, value in asdict(one).items() if value} for one in factors]
    return {"cpu": section | {"fitted": shown}}


def _operator(one: Measurement) -> tuple[object, ...]:
    return one.op, one.sizes, one.dtype, one.runtime
