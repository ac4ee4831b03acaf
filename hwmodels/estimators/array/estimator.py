"""Spatial arrays: kernels mapped on axes and memories that the device file describes.

A contraction is unrolled on the array's axes, tiled for its memories by a search, and costs what
its traffic and its cycles are (`traffic`, `timing`); other kernels run on the vector unit. Each
kernel is scheduled alone: activations stay on chip between kernels where the kernel's fit there.

    t = t_launch + max(cycles / f, dynamic energy / (power limit - idle power))
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

from hwmodels.devices.device import Device, DeviceKind, Rate
from hwmodels.errors import WorkError
from hwmodels.estimators.array.hierarchy import Hierarchy
from hwmodels.estimators.array.nest import nests_of
from hwmodels.estimators.array.process import multiply_j
from hwmodels.estimators.array.schedule import Task, schedule
from hwmodels.estimators.array.vector import (
    home_of,
    multiplied_by_vectors,
    rate_of,
    vector_cost,
    vector_cycles,
)
from hwmodels.runtimes.runtime import Runtime
from hwmodels.tensors import TensorName
from hwmodels.work.cost import Bound
from hwmodels.work.kernel import Kernel, KernelCost
from hwmodels.work.loops import AttentionLoops
from hwmodels.work.spatial_cost import SpatialCost

FASTER, SLOWER = 1.25, 2.75
"""Ends of the interval as factors: all of seven networks, and 20 of their 23 layers and
applications, that were published of two chips are within (`studies/array_silicon`). Chips are
hardly faster than their best mapping, and up to five times slower where their mapper finds another
one."""


SCORES: tuple[frozenset[TensorName], ...] = (frozenset({"output"}), frozenset({"input"}))
"""The scores among the tensors of the two products of attention: they stay on chip if they fit."""


class ArrayEstimator:
    """Latency and energy of kernels on spatial arrays."""

    @property
    def kinds(self) -> frozenset[DeviceKind]:
        """Spatial arrays."""
        return frozenset({"array"})

    def estimate(
        self,
        kernels: Sequence[Kernel],
        device: Device,
        runtime: Runtime,
    ) -> tuple[KernelCost, ...]:
        """Costs in the order given.

        Raises:
            WorkError: Elements that no unit of the device multiplies, even widened, or a level
                that cannot hold the smallest tile.
        """
        hierarchy = _hierarchy(device)
        return tuple(_cost(kernel, device, hierarchy) for kernel in kernels)


@lru_cache(maxsize=256)
def _hierarchy(device: Device) -> Hierarchy:
    return Hierarchy.of(device)


def _cost(kernel: Kernel, device: Device, hierarchy: Hierarchy) -> KernelCost:
    spatial = (
        _contraction(kernel, device, hierarchy)
        if kernel.macs
        else vector_cost(kernel, device, hierarchy)
    )
    main = hierarchy.levels[-1]
    busy_s, launch_s = spatial.cycles / hierarchy.clock_hz, device.launch_s.value
    latency_s, energy_j = launched(device, busy_s, spatial.energy_j)
    in_main = sum(
        one.read_bytes + one.write_bytes for one in spatial.traffic if one.level == main.name
    )
    return KernelCost(
        latency_s=latency_s,
        low_s=max(latency_s / FASTER, _light_s(kernel, device)),
        high_s=latency_s * SLOWER,
        energy_j=energy_j,
        traffic_bytes=max(in_main, float(kernel.weight_bytes if kernel.weight_is_cold else 0)),
        bound=_bound(kernel, spatial, launch_s, busy_s),
        spatial=spatial,
    )


def launched(device: Device, busy_s: float, dynamic_j: float) -> tuple[float, float]:
    """Seconds and joules of one launch that is busy for so long and takes so much energy."""
    idle, limit = device.power.idle_w.value, device.power.limit_w.value
    latency_s = device.launch_s.value + max(busy_s, dynamic_j / (limit - idle))
    return latency_s, idle * latency_s + dynamic_j


def _bound(kernel: Kernel, spatial: SpatialCost, launch_s: float, busy_s: float) -> Bound:
    if kernel.kind == "quantize":
        return "conversion"
    if launch_s > busy_s:
        return "launch"
    return "compute" if spatial.compute_cycles >= spatial.moving_cycles else "memory"


def _contraction(kernel: Kernel, device: Device, hierarchy: Hierarchy) -> SpatialCost:
    width = width_of(kernel, device, hierarchy)
    if width is None:
        return multiplied_by_vectors(kernel, device, hierarchy)
    tasks = tasks_of(
        kernel,
        width,
        warm_tensors(kernel, hierarchy),
        mac_j=multiply_j(kernel, device),
        idle_j=device.power.idle_w.value / hierarchy.clock_hz,
    )
    found = [schedule(hierarchy, task).cost for task in tasks]
    if isinstance(kernel.loops, AttentionLoops):
        found.append(softmax_cost(kernel, device, hierarchy))
    total = SpatialCost.total(found)
    assert total is not None
    return total


def width_of(kernel: Kernel, device: Device, hierarchy: Hierarchy) -> float | None:
    """Products of a kernel a place and cycle; None where only the vector unit multiplies them.

    Raises:
        WorkError: Elements that no unit of the device multiplies.
    """
    rate = rate_of(kernel, device)
    if rate is None:
        raise WorkError(
            f"{device.name} has no unit that multiplies {kernel.weight_element} with "
            f"{kernel.input_element}; it has {', '.join(sorted(device.elements))}"
        )
    if rate not in device.unit("matrix").rates:
        return None
    return _width(rate, device, hierarchy)


def tasks_of(
    kernel: Kernel,
    width: float,
    warm: frozenset[TensorName],
    *,
    mac_j: float = 0.0,
    idle_j: float = 0.0,
) -> tuple[Task, ...]:
    """Nests that an array works on for a kernel.

    Args:
        kernel: that multiplies.
        width: as `width_of`.
        warm: as `warm_tensors`.
        mac_j: joules of one product.
        idle_j: joules a cycle.
    """
    attention = isinstance(kernel.loops, AttentionLoops)
    return tuple(
        Task(
            # Places that join for a wide element join their registers, too.
            nest=replace(nest, register_bytes=nest.register_bytes * width),
            resident=warm | (SCORES[place] if attention else frozenset()),
            throughput=width * kernel.efficiency,
            mac_j=mac_j,
            idle_j=idle_j,
        )
        for place, nest in enumerate(nests_of(kernel))
    )


def _width(rate: Rate, device: Device, hierarchy: Hierarchy) -> float:
    """Elements a place and cycle: a rate over that next to what the array's shape gives.

    Files round their rates; the ratio of two of them is exact.
    """
    peak = 2 * hierarchy.places * hierarchy.clock_hz
    rates = [rate.ops_per_s.value for rate in device.unit("matrix").rates]
    return rate.ops_per_s.value / min(rates, key=lambda one: abs(one - peak))


def warm_tensors(kernel: Kernel, hierarchy: Hierarchy) -> frozenset[TensorName]:
    """Tensors that come from and stay on chip between kernels."""
    if home_of(kernel, hierarchy) is hierarchy.levels[-1]:
        return frozenset()
    return frozenset({"input", "output"})


def softmax_cost(kernel: Kernel, device: Device, hierarchy: Hierarchy) -> SpatialCost:
    """The scores' way through the vector unit, between the two products of attention."""
    scores = nests_of(kernel)[0]
    elements = scores.size("G") * scores.size("OX") * scores.size("K")
    cycles = vector_cycles(elements, kernel, device, hierarchy, "softmax")
    return SpatialCost(
        cycles=cycles,
        compute_cycles=cycles,
        macs=0.0,
        peak_macs_per_cycle=float(hierarchy.places),
        compute_energy_j=0.0,
    )


def _light_s(kernel: Kernel, device: Device) -> float:
    """The least that physics allows: operations over the rate, cold bytes over the bandwidth."""
    cold = kernel.weight_bytes if kernel.weight_is_cold else 0
    rate = rate_of(kernel, device) if kernel.macs else None
    computing = 2 * kernel.macs / rate.ops_per_s.value if rate else 0.0
    return max(computing, cold / device.main_memory.bandwidth_bytes_per_s.value)
