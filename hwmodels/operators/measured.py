"""Timed rows of an operator table as what a device file holds of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hwmodels.devices.device import Measurement
from hwmodels.operators.optable import OpTable, runtimes_of

Indices = NDArray[np.intp]


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
