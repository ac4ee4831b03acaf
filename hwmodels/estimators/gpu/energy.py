"""Energy of a kernel: idle power while it runs, plus what its operations and bytes add.

    E = min(P_idle t + e_op(element) n_op + e_byte n_byte,  P_limit t)

with e_op per operation (two a multiply-accumulate) and e_byte per byte of main memory. The energy
per operation of an H100 is fitted to board power, so it holds what register files, shared memory
and the L2 spend on average; other devices scale it (see the device file). The power limit caps the
average power; the time is taken as measured under that limit.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hwmodels.devices.device import Device

Floats = NDArray[np.float64]


def energy_j(
    device: Device, *, latency_s: Floats, ops: Floats, per_op_j: Floats, dram_bytes: Floats
) -> Floats:
    """Joules of kernels, elementwise over equal shapes, by the equation of this module."""
    memory = device.main_memory.energy_per_byte_j
    per_byte = memory.value if memory else 0.0
    dynamic = ops * per_op_j + dram_bytes * per_byte
    idle = device.power.idle_w.value * latency_s
    return np.minimum(idle + dynamic, device.power.limit_w.value * latency_s)
