"""Kernels in networks as networks that were timed on the device say (`Device.corrections`).

    t = max(t_predicted prod(factors), t_light),  t_light = max(2 MACs / R, bytes / W_dram)

Ends of the interval move alike, idle power is paid for the time that is added. Which factors there
are, and how they are found: `hwmodels.adapt.network_fit`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from hwmodels.devices.device import Device
from hwmodels.runtimes.runtime import Runtime
from hwmodels.work.kernel import Kernel, KernelCost, KernelGroup


def corrected(
    costs: Sequence[KernelCost], kernels: Sequence[Kernel], device: Device, runtime: Runtime
) -> tuple[KernelCost, ...]:
    """The costs of kernels under a runtime, by the corrections of the device's file."""
    if not any(one.runtime == runtime.name for one in device.corrections):
        return tuple(costs)
    factors: dict[KernelGroup, float] = {}
    found = []
    for kernel, cost in zip(kernels, costs, strict=True):
        group = KernelGroup.of(kernel, cost.bound)
        if group not in factors:
            factors[group] = group_factor(group, device, runtime.name)
        found.append(_scaled(cost, factors[group], kernel, device))
    return tuple(found)


def group_factor(group: KernelGroup, device: Device, runtime: str) -> float:
    """The product of the corrections that hold for a group of kernels."""
    return math.prod(
        one.factor
        for one in device.corrections
        if one.runtime == runtime and one.holds_for(group.kind, group.formats, group.bound)
    )


def _scaled(cost: KernelCost, factor: float, kernel: Kernel, device: Device) -> KernelCost:
    light = min(_light_s(cost, kernel, device), cost.latency_s)
    latency = max(cost.latency_s * factor, light)
    return replace(
        cost,
        latency_s=latency,
        low_s=min(max(cost.low_s * factor, light), latency),
        high_s=max(cost.high_s * factor, latency),
        energy_j=max(cost.energy_j + device.power.idle_w.value * (latency - cost.latency_s), 0.0),
    )


def _light_s(cost: KernelCost, kernel: Kernel, device: Device) -> float:
    rate = device.rate(kernel.weight_element, kernel.input_element) if kernel.macs else None
    computing = 2 * kernel.macs / rate.ops_per_s.value if rate else 0.0
    moving = cost.traffic_bytes / device.main_memory.bandwidth_bytes_per_s.value
    return max(computing, moving)
