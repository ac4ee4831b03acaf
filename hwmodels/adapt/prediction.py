"""Operator tables priced on a device: predictions, and the physical limit of every row."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hwmodels.devices.device import Device
from hwmodels.errors import MeasurementError, RuntimeModeError
from hwmodels.estimators.registry import estimator_of
from hwmodels.operators.lower import compute_elements, operator_kernels
from hwmodels.operators.optable import OpTable, runtimes_of
from hwmodels.runtimes.load import load_runtime
from hwmodels.runtimes.runtime import Runtime
from hwmodels.work.cost import BOUNDS, Bound
from hwmodels.work.kernel import Kernel

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]

DIGITS = 6
COLUMNS = ("predicted_us", "low_us", "high_us", "energy_mj")


def predict_ops(table: OpTable, device: Device, runtime: str) -> pd.DataFrame:
    """The table with `predicted_us, low_us, high_us, energy_mj`; a `runtime` column wins.

    A table that has a measured `energy_mj` keeps it: the prediction is `predicted_energy_mj`.

    Raises:
        HardwareError: An unknown runtime, or elements that the device cannot multiply.
    """
    predicted = _rounded(_priced(table, device, runtime)[0])
    names = COLUMNS
    if "energy_mj" in table.frame:
        names = (*COLUMNS[:3], "predicted_energy_mj")
    return table.frame.assign(**{name: predicted[:, i] for i, name in enumerate(names)})


def regimes(table: OpTable, device: Device, runtime: str) -> tuple[Bound, ...]:
    """The bound of each row (launch, memory, compute, conversion): that of most of its time."""
    by_bound = _priced(table, device, runtime)[1]
    return tuple(BOUNDS[index] for index in np.argmax(by_bound, axis=1))


def _priced(table: OpTable, device: Device, runtime: str) -> tuple[Floats, Floats]:
    """`COLUMNS` of every row, and its microseconds by bound, shape (rows, bounds)."""
    predicted = np.zeros((len(table.shapes), len(COLUMNS) + len(BOUNDS)))
    for run, rows in _rows_by_runtime(table, runtime):
        kernels, owners, of_row = _distinct_kernels(table, rows, device, run)
        costs = estimator_of(device).estimate(kernels, device, run)
        parts = np.array(
            [
                (
                    c.latency_s * 1e6, c.low_s * 1e6, c.high_s * 1e6, c.energy_j * 1e3,
                    *(c.latency_s * 1e6 * (c.bound == bound) for bound in BOUNDS),
                )
                for c in costs
            ]
        )  # fmt: skip
        sums = np.zeros((int(of_row.max()) + 1, predicted.shape[1]))
        np.add.at(sums, owners, parts)
        predicted[rows] = sums[of_row]
    return predicted[:, : len(COLUMNS)], predicted[:, len(COLUMNS) :]


def _rounded(values: Floats) -> Floats:
    """To `DIGITS` significant digits, which files then hold."""
    exponents = np.floor(np.log10(np.where(values > 0, values, 1.0)))
    scales = 10.0 ** (DIGITS - 1 - exponents)
    return np.asarray(np.round(values * scales) / scales)


def light_us(table: OpTable, device: Device, runtime: str) -> Floats:
    """The physical limit of every row in microseconds.

    Operations at the peak rate, or its bytes from main memory where caches are cold.
    """
    fastest = np.zeros(len(table.shapes))
    for run, rows in _rows_by_runtime(table, runtime):
        kernels, owners, of_row = _distinct_kernels(table, rows, device, run)
        sums = np.zeros(int(of_row.max()) + 1)
        np.add.at(sums, owners, [_light_us(kernel, device) for kernel in kernels])
        fastest[rows] = sums[of_row]
    return fastest


def rows_kernels(
    table: OpTable, rows: Sequence[int], device: Device, runtime: Runtime
) -> list[tuple[Kernel, ...]]:
    """Kernels of each of some rows, run by one runtime."""
    dtypes = {table.dtypes[row] for row in rows}
    compute = {dtype: compute_elements(dtype, device) for dtype in dtypes}
    return [
        operator_kernels(
            table.ops[row], table.shapes[row], table.dtypes[row], runtime,
            compute[table.dtypes[row]],
        )
        for row in rows
    ]  # fmt: skip


def _rows_by_runtime(table: OpTable, default: str) -> list[tuple[Runtime, Indices]]:
    """Runtimes with the indices of their rows.

    Raises:
        MeasurementError: A runtime of the column that nobody knows.
    """
    names = np.array(runtimes_of(table, default), dtype=object)
    found = []
    for name in dict.fromkeys(names.tolist()):
        rows = np.flatnonzero(names == name)
        try:
            found.append((load_runtime(name), rows))
        except RuntimeModeError as error:
            if name == default:
                raise
            where = f"{table.source}: line {rows[0] + 2}: runtime"
            raise MeasurementError(f"{where}: {error}") from None
    return found


def _distinct_kernels(
    table: OpTable, rows: Indices, device: Device, runtime: Runtime
) -> tuple[list[Kernel], list[int], Indices]:
    """Kernels of distinct operators, the operator of each kernel, and the operator of each row."""
    operators, of_row = np.unique(table.first[rows], return_inverse=True)
    groups = rows_kernels(table, operators.tolist(), device, runtime)
    kernels = [kernel for group in groups for kernel in group]
    owners = [index for index, group in enumerate(groups) for _ in group]
    return kernels, owners, of_row


def _light_us(kernel: Kernel, device: Device) -> float:
    rate = device.rate(kernel.weight_element, kernel.input_element)
    compute = 2 * kernel.macs / rate.ops_per_s.value if rate else 0.0
    bandwidth = device.main_memory.bandwidth_bytes_per_s.value
    memory = kernel.bytes / bandwidth if kernel.inputs_are_cold else 0.0
    return max(compute, memory) * 1e6
