"""Integer accelerators: a MAC array with an SRAM for activations and a slower store for weights.

The array computes `rows` output pixels x `inputs` input channels x `outputs` output channels a
cycle; a layer that does not fill it wastes the rest:

    cycles = B ceil(M/rows) ceil(N/outputs) taps ceil(C/inputs) * (array MACs / rate)
    t = t_launch + max(cycles / f, weight bytes / W_store, activation bytes / W_sram)

Weights stream once a layer, overlapped with computing (double buffering); activations are read
once for every `REUSE_BLOCKS` blocks of output channels and written once. Activations that do not
fit the SRAM move through the store instead. Valid for one layer at a time (no cascading over
layers). Spec-based: not validated against silicon, the interval says so.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from hwmodels.devices.device import Device, DeviceKind, Memory
from hwmodels.errors import WorkError
from hwmodels.runtimes.runtime import Runtime
from hwmodels.work.cost import Bound
from hwmodels.work.kernel import Kernel, KernelCost
from hwmodels.work.loops import ConvolutionLoops, ProductLoops

REUSE_BLOCKS = 8
"""Blocks of output channels whose accumulators a layer keeps at once (assumed)."""
SPREAD = 2.0
"""Half-width of the interval as a factor; assumed, there is nothing measured to learn from."""


class ArrayEstimator:
    """Latency and energy of kernels on integer MAC arrays."""

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
            WorkError: Elements that no unit of the device multiplies, even widened.
        """
        return tuple(_cost(kernel, device) for kernel in kernels)


def _cost(kernel: Kernel, device: Device) -> KernelCost:
    store, sram = device.main_memory, device.memory("sram") or device.main_memory
    compute_s = _compute_s(kernel, device)
    cold = kernel.weight_bytes if kernel.weight_is_cold else 0
    warm = _activation_bytes(kernel, device)
    home = sram if warm <= sram.capacity_bytes.value else store
    weight_s = cold / store.bandwidth_bytes_per_s.value
    activation_s = warm / home.bandwidth_bytes_per_s.value
    if home is store:
        activation_s += weight_s
    memory_s = max(weight_s, activation_s)
    launch_s = device.launch_s.value
    latency_s = launch_s + max(compute_s, memory_s)
    light_s = max(2 * kernel.macs / _peak(kernel, device) if kernel.macs else 0.0, weight_s)
    bound: Bound = "compute" if compute_s >= memory_s else "memory"
    if kernel.kind == "quantize":
        bound = "conversion"
    elif launch_s > max(compute_s, memory_s):
        bound = "launch"
    return KernelCost(
        latency_s=latency_s,
        low_s=max(latency_s / SPREAD, light_s),
        high_s=latency_s * SPREAD,
        energy_j=_energy(kernel, device, latency_s, (cold, store), (warm, home)),
        traffic_bytes=float(cold + warm),
        bound=bound,
    )


def _compute_s(kernel: Kernel, device: Device) -> float:
    if not kernel.macs:
        moved = kernel.input_bytes + kernel.other_bytes + kernel.write_bytes
        vector = device.unit("vector")
        fastest = max(rate.ops_per_s.value for rate in vector.rates)
        return moved / fastest  # one operation a byte: elements are 8 bit
    ideal_s = 2 * kernel.macs / (_peak(kernel, device) * kernel.efficiency)
    return ideal_s / utilisation(kernel, device)


def utilisation(kernel: Kernel, device: Device) -> float:
    """Share of the array's MACs that a GEMM or convolution uses, in (0, 1].

    1 where the device gives no shape or the kernel runs on another unit.
    """
    shape = device.unit("matrix").shape
    on_array = any(
        rate.accepts(kernel.weight_element, kernel.input_element)
        for rate in device.unit("matrix").rates
    )
    loops = kernel.loops
    if shape is None or not on_array or not isinstance(loops, ProductLoops | ConvolutionLoops):
        return 1.0
    product = loops.product
    return math.prod(
        size / (math.ceil(size / width) * width)
        for size, width in (
            (product.m, shape.rows.value),
            (product.n, shape.outputs.value),
            (product.k / loops.taps, shape.inputs.value),
        )
    )


def _activation_bytes(kernel: Kernel, device: Device) -> float:
    shape = device.unit("matrix").shape
    passes = 1
    if shape is not None and isinstance(kernel.loops, ProductLoops | ConvolutionLoops):
        passes = math.ceil(kernel.loops.product.n / (shape.outputs.value * REUSE_BLOCKS))
    second = 0 if kernel.weight_is_cold else kernel.weight_bytes
    return kernel.input_bytes * passes + second + kernel.other_bytes + kernel.write_bytes


def _peak(kernel: Kernel, device: Device) -> float:
    rate = device.rate(kernel.weight_element, kernel.input_element)
    if rate is None:
        raise WorkError(
            f"{device.name} has no unit that multiplies {kernel.weight_element} with "
            f"{kernel.input_element}; it has {', '.join(sorted(device.elements))}"
        )
    return rate.ops_per_s.value


def _energy(
    kernel: Kernel, device: Device, latency_s: float, *moved: tuple[float, Memory]
) -> float:
    dynamic = 2 * kernel.macs * device.energy_per_op_j(kernel.input_element)
    for count, memory in moved:
        if memory.energy_per_byte_j is not None:
            dynamic += count * memory.energy_per_byte_j.value
    return device.power.idle_w.value * latency_s + dynamic
