"""Processors: latency and energy of kernels, corrected by what was timed on the device."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache

from hwmodels.devices.device import Device, DeviceKind
from hwmodels.errors import WorkError
from hwmodels.estimators.cpu.attention import attention_demand
from hwmodels.estimators.cpu.convolution import convolution_demand
from hwmodels.estimators.cpu.correction import (
    Correction,
    corrections,
    processor_of,
    sample_of,
)
from hwmodels.estimators.cpu.demand import Demand, Timing, timing_of
from hwmodels.estimators.cpu.family import element_of, family_of
from hwmodels.estimators.cpu.memory import main_bytes
from hwmodels.estimators.cpu.processor import Processor
from hwmodels.estimators.cpu.product import product_demand
from hwmodels.estimators.cpu.rows import rows_demand
from hwmodels.estimators.gpu.kernel_correction import KernelSample
from hwmodels.estimators.gpu.samples import measured_kernels
from hwmodels.runtimes.runtime import Runtime
from hwmodels.work.cost import Bound
from hwmodels.work.kernel import MULTIPLYING, Kernel, KernelCost
from hwmodels.work.lookup import NARROW_SUMS

DEMANDS: Mapping[str, Callable[[Kernel, Processor], Demand]] = {
    "gemm": product_demand,
    "tiled_gemm": product_demand,
    "conv2d": convolution_demand,
    "attention": attention_demand,
}
"""By kind of kernel; the others are rows."""
NOTHING = KernelCost(
    latency_s=0.0, low_s=0.0, high_s=0.0, energy_j=0.0, traffic_bytes=0.0, bound="launch"
)
"""The cost of a product without rows: no kernel is called for it."""


class CpuEstimator:
    """Latency and energy of kernels on processors."""

    @property
    def kinds(self) -> frozenset[DeviceKind]:
        """Processors."""
        return frozenset({"cpu"})

    def estimate(
        self, kernels: Sequence[Kernel], device: Device, runtime: Runtime
    ) -> tuple[KernelCost, ...]:
        """Costs in the order given.

        Raises:
            WorkError: Operands that the processor has no instructions for.
        """
        processor = processor_of(device, runtime.name)
        found = corrections(_samples(device), kernels, processor)
        return tuple(
            _cost(kernel, processor, device, corrected)
            for kernel, corrected in zip(kernels, found, strict=True)
        )


@lru_cache(maxsize=64)
def _samples(device: Device) -> tuple[KernelSample, ...]:
    """Operators of one kernel that were timed on the device."""
    found = []
    for entry in device.measurements:
        kernel, *others = measured_kernels(entry, device)
        if not others:
            processor = processor_of(device, entry.runtime)
            _, timing = kernel_timing(kernel, processor)
            found.append(sample_of(kernel, entry.median_us * 1e-6, timing.latency_s, processor))
    return tuple(found)


@lru_cache(maxsize=65536)
def kernel_timing(kernel: Kernel, processor: Processor) -> tuple[Demand, Timing]:
    """The demand and the time of one kernel, as the figures say."""
    demand = DEMANDS.get(kernel.kind, rows_demand)(kernel, processor)
    call = processor.factor("call", family_of(kernel), element_of(kernel))
    return demand, timing_of(demand, processor, call)


def _cost(
    kernel: Kernel, processor: Processor, device: Device, corrected: Correction
) -> KernelCost:
    if kernel.kind in MULTIPLYING and kernel.macs == 0:
        return NOTHING
    demand, timing = kernel_timing(kernel, processor)
    light_s = max(demand.light_s, _peak_s(kernel, device), _cold_s(kernel, demand, processor))
    least_s = max(light_s, device.launch_s.value)
    latency_s = max(timing.latency_s * corrected.factor, least_s)
    main = main_bytes(demand.cold, demand.warm, processor)
    power = device.power
    energy = device.main_memory.energy_per_byte_j
    dynamic = 2 * kernel.macs * device.energy_per_op_j(kernel.input_element)
    dynamic += main * (0.0 if energy is None else energy.value)
    return KernelCost(
        latency_s=latency_s,
        low_s=min(max(latency_s * corrected.low, light_s), latency_s),
        high_s=latency_s * corrected.high,
        energy_j=min(power.idle_w.value * latency_s + dynamic, power.limit_w.value * latency_s),
        traffic_bytes=main,
        bound=_bound(kernel, timing),
    )


def _peak_s(kernel: Kernel, device: Device) -> float:
    """Operations at the device's rate; none where products are looked up, saved or narrow."""
    other = kernel.lookup is not None or kernel.algorithm == "winograd"
    if not kernel.macs or other or kernel.accumulator in NARROW_SUMS:
        return 0.0
    rate = device.rate(kernel.weight_element, kernel.input_element)
    if rate is None:
        raise WorkError(
            f"{device.name} has no unit that multiplies {kernel.weight_element} with "
            f"{kernel.input_element}; it has {', '.join(sorted(device.elements))}"
        )
    return 2 * kernel.macs / rate.ops_per_s.value


def _cold_s(kernel: Kernel, demand: Demand, processor: Processor) -> float:
    weights = kernel.weight_bytes if kernel.weight_is_cold else 0
    return max(demand.cold, weights) / processor.main.bytes_per_s


def _bound(kernel: Kernel, timing: Timing) -> Bound:
    if kernel.kind == "quantize":
        return "conversion"
    terms: dict[Bound, float] = {
        "compute": timing.compute_s, "memory": timing.memory_s, "launch": timing.fixed_s,
    }  # fmt: skip
    return max(terms, key=lambda name: terms[name])
