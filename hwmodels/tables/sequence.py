"""Time of a kernel in a network beyond that of the same kernel alone, again and again.

Operators are measured as many launches of one kernel. In a network each follows a kernel of
another kind: its code is not in the instruction cache, and shared memory is divided anew.

    t = t_alone + n_switch / f

with the cycles of the runtime's file (a chain of 22 different elementwise kernels beside one of
equal ones on an H100: 0.31 us a kernel; docs/cost-model.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from hwmodels.devices.device import Device
from hwmodels.runtimes.runtime import Runtime
from hwmodels.work.kernel import KernelCost


def in_sequence(
    costs: Sequence[KernelCost], device: Device, runtime: Runtime
) -> tuple[KernelCost, ...]:
    """The costs of kernels that run one after another, in order."""
    if runtime.switch_cycles == 0:
        return tuple(costs)
    switch_s = runtime.switch_cycles / device.unit("matrix").clock_hz.value
    return tuple(
        replace(
            cost,
            latency_s=cost.latency_s + switch_s,
            low_s=cost.low_s + switch_s,
            high_s=cost.high_s + switch_s,
            energy_j=cost.energy_j + switch_s * device.power.idle_w.value,
        )
        for cost in costs
    )
