"""Activations of a network that lie pixel after pixel on an NPU, and not in bricks of channels.

Bricks are the NPU's own: what a caller hands over or takes back, and what its host reads or
writes, lies pixel after pixel. So does what is turned from maps into rows, since a brick of the
one is none of the other.
"""

from __future__ import annotations

from collections.abc import Set

from hwmodels.devices.device import Device
from hwmodels.estimators.npu.estimator import on_host
from hwmodels.tables.activation import activations
from hwmodels.tables.sharing import Plans
from hwmodels.work.kernel import Kernel
from hwmodels.work.work import Operand, RegionWork, Work

RESHAPES = ("reshape", "flatten", "squeeze", "unsqueeze")
MAP_AXES = 4


def linear_values(work: Work, plans: Plans, choice: int, device: Device) -> frozenset[str]:
    """Names of the values that lie so where every region takes this choice, or its last one."""
    written = {operand.value for region in work.regions for operand in region.writes}
    found = set(work.outputs)
    for region, by_choice in zip(work.regions, plans, strict=True):
        reads, writes = activations(region.reads), activations(region.writes)
        found |= {operand.value for operand in reads if operand.value not in written}
        kernels: tuple[Kernel, ...] = by_choice[min(choice, len(by_choice) - 1)][0].kernels
        if kernels and on_host(kernels[0], device):
            found |= {operand.value for operand in reads}
        if kernels and on_host(kernels[-1], device):
            found |= {operand.value for operand in writes}
        if _turns(region) and _row(reads[0]) != _row(writes[0]):
            found |= {reads[0].value, writes[0].value}
    return frozenset(found)


def lies_of(region: RegionWork, linear: Set[str]) -> tuple[bool, bool]:
    """Whether the first operand that a region reads lies so, and what it writes."""
    reads, writes = activations(region.reads), activations(region.writes)
    return (
        bool(reads) and reads[0].value in linear,
        any(operand.value in linear for operand in writes),
    )


def _turns(region: RegionWork) -> bool:
    """Whether it only gives a value another shape."""
    alone = len(region.ops) == len(activations(region.reads)) == len(region.writes) == 1
    return alone and region.ops[0].detail in RESHAPES


def _row(operand: Operand) -> tuple[int, int]:
    """Width and channels, as an NPU has them."""
    shape = operand.shape
    if len(shape) == MAP_AXES:
        return shape[3], shape[1]
    return 1, shape[-1] if shape else 1
