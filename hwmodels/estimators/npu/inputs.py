"""The inputs under blocks of outputs, padded to the units in which they lie in the buffer."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hwmodels.devices.npu import Block, Layout, Npu
from hwmodels.estimators.npu.operation import Operation

Axes = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]


def units(depths: NDArray[np.int64], layout: Layout, micro: Block) -> Axes:
    """Rows, columns and channels that blocks of so many channels of inputs are padded to."""
    whole = np.ones_like(depths)
    channels = layout.input_channels * whole
    if layout.unit is None:
        return micro[0] * whole, micro[1] * whole, channels
    count = depths * layout.bits // 8
    parts = np.where(count <= layout.unit, 1, np.where(count <= 2 * layout.unit, 2, 4))
    across = np.minimum(parts, micro[0])
    along = np.minimum(parts // across, micro[1])
    return micro[0] // across, micro[1] // along, channels * parts


def extent(
    operation: Operation, places: NDArray[np.int64], axis: int, npu: Npu, unit: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Rows or columns of the input that so many places of the output read."""
    reach = min(operation.reach[axis], npu.blocks.window)
    read = (places - 1) * operation.stride[axis] + reach
    extent: NDArray[np.int64] = -(-read // unit) * unit
    return extent
