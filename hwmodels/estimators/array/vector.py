"""Kernels without products: rows that the vector unit works through, beside what they move.

t = max(operations / rate, bytes at the nearest level that holds them / bandwidth)
"""

from __future__ import annotations

from collections.abc import Mapping

from hwmodels.devices.device import Device, Rate
from hwmodels.estimators.array.hierarchy import Hierarchy, Level
from hwmodels.estimators.array.process import multiply_j
from hwmodels.tensors import TensorName
from hwmodels.work.kernel import Kernel
from hwmodels.work.spatial_cost import SpatialCost

OPS_PER_ELEMENT: Mapping[str, float] = {
    "softmax": 5.0,  # maximum, subtract, exponential, sum, divide
    "layernorm": 6.0,  # mean, subtract, square and sum, scale, multiply, add
    "rmsnorm": 4.0,
    "quantize": 2.0,  # scale and round
}
"""Vector operations of an element by kernel (`Kernel.detail` or kind); 1 of any other."""


def vector_cost(kernel: Kernel, device: Device, hierarchy: Hierarchy) -> SpatialCost:
    """The cost of a kernel that multiplies nothing; its activations stay on chip if they fit."""
    computing = vector_cycles(elements_of(kernel), kernel, device, hierarchy)
    return _moved(kernel, hierarchy, computing, 0.0)


def multiplied_by_vectors(kernel: Kernel, device: Device, hierarchy: Hierarchy) -> SpatialCost:
    """The cost of a contraction in elements that only the vector unit multiplies.

    Every operand is read once: what the unit holds between operations is not modelled.
    """
    rate = rate_of(kernel, device)
    assert rate is not None
    computing = 2 * kernel.macs / rate.ops_per_s.value * hierarchy.clock_hz / kernel.efficiency
    energy = kernel.macs * multiply_j(kernel, device)
    return _moved(kernel, hierarchy, computing, energy)


def rate_of(kernel: Kernel, device: Device) -> Rate | None:
    """The rate into the kernel's accumulator, else the fastest."""
    elements = (kernel.weight_element, kernel.input_element)
    return device.rate(*elements, kernel.accumulator) or device.rate(*elements)


def _moved(
    kernel: Kernel, hierarchy: Hierarchy, computing: float, compute_j: float
) -> SpatialCost:
    home, main = home_of(kernel, hierarchy), hierarchy.levels[-1]
    cold = float(kernel.weight_bytes) if kernel.weight_is_cold else 0.0
    warm = float(kernel.weight_bytes) - cold
    read = float(kernel.input_bytes + kernel.other_bytes)
    moved: tuple[tuple[TensorName, float, float, Level], ...] = (
        ("input", read, 0.0, home),
        ("weight", cold, 0.0, main),
        ("weight", warm, 0.0, home),
        ("output", 0.0, float(kernel.write_bytes), home),
    )
    slowest = max(
        float(
            level.cycles(
                sum(got for _, got, _, other in moved if other is level),
                sum(put for _, _, put, other in moved if other is level),
            )
        )
        for level in (home, main)
    )
    return SpatialCost(
        cycles=max(computing, slowest),
        compute_cycles=computing,
        moving_cycles=slowest,
        macs=float(kernel.macs),
        peak_macs_per_cycle=float(hierarchy.places),
        compute_energy_j=compute_j,
        traffic=tuple(
            level.traffic(name, got, put) for name, got, put, level in moved if got or put
        ),
    )


def vector_cycles(
    elements: float, kernel: Kernel, device: Device, hierarchy: Hierarchy, name: str = ""
) -> float:
    """Cycles of the array's clock that the vector unit works on so many elements."""
    unit = device.unit("vector")
    fastest = max(rate.ops_per_s.value for rate in unit.rates)
    operations = OPS_PER_ELEMENT.get(name or kernel.detail, OPS_PER_ELEMENT.get(kernel.kind, 1.0))
    return elements * operations / fastest * hierarchy.clock_hz


def elements_of(kernel: Kernel) -> float:
    """Elements that a kernel reads or writes, whichever are more."""
    counted = []
    for bytes_, stored in (
        (kernel.input_bytes + kernel.other_bytes, kernel.input_format),
        (kernel.write_bytes, kernel.output_format),
    ):
        bits = stored.element.bits if stored is not None else 8
        counted.append(bytes_ * 8 / bits)
    return max(counted)


def home_of(kernel: Kernel, hierarchy: Hierarchy) -> Level:
    """The outermost level on chip that holds inputs and outputs, if the kernel's fit it."""
    main = hierarchy.levels[-1]
    if kernel.inputs_are_cold:
        return main
    moved = kernel.input_bytes + kernel.other_bytes + kernel.write_bytes
    for level in reversed(hierarchy.levels[:-1]):
        if level.per or not {"input", "output"} <= set(level.holds):
            continue
        return level if moved <= level.capacity_bytes else main
    return main
