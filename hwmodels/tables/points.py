"""A network on many devices at once: what `CostTable` says of each under one assignment.

Which kernels run, and how often, depends on the formats and rates of a device, not on its figures:
they are planned once for all devices that are alike in that. Arrays are priced together, other
devices one by one.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from hwmodels.devices.device import Device
from hwmodels.errors import CircuitError, WorkError
from hwmodels.estimators.array.points import estimate_points
from hwmodels.estimators.array.process import device_area_mm2
from hwmodels.estimators.array.records import EFFORT, Effort
from hwmodels.runtimes.runtime import Runtime
from hwmodels.tables.network import Choices, CostTable, Floats, PhaseWork


@dataclass(frozen=True, kw_only=True)
class PointPrices:
    """A network on each of n devices."""

    latency_s: Floats
    """(n,); infinite on a device that does not run the network."""
    energy_j: Floats
    area_mm2: Floats
    """NaN where neither the file nor a process says it."""
    gap: Floats
    """Most that the best mappings on the searched grids can be better than those found, by the
    arrays' goal, as a mean over kernels weighted by time; NaN where no mappings are searched."""
    refused: dict[int, str]
    """Device -> what it cannot do."""


def price_points(
    phases: Sequence[PhaseWork],
    choices: Choices,
    devices: Sequence[Device],
    runtime: Runtime,
    *,
    effort: Effort = EFFORT,
) -> PointPrices:
    """Prices a network on many devices, each region under the first of its choices.

    With several phases latency and energy are their sums weighted by share, as in
    `CostTable.totals`.

    Args:
        phases: the network's work.
        choices: by region.
        devices: of any kinds.
        runtime: that drives them.
        effort: limits of the search of mappings where many arrays are priced together; `QUICK`
            for thousands of them.

    Raises:
        WorkError: As `CostTable.build`, for a network without regions or unknown ones.
    """
    first = {region: offered[:1] for region, offered in choices.items()}
    count = len(devices)
    found = PointPrices(
        latency_s=np.full(count, np.inf), energy_j=np.full(count, np.inf),
        area_mm2=np.full(count, np.nan), gap=np.full(count, np.nan), refused={},
    )  # fmt: skip
    alike: dict[Hashable, list[int]] = {}
    for index, device in enumerate(devices):
        try:
            area = device_area_mm2(device)
        except CircuitError:  # a part that no circuit model holds for
            area = None
        found.area_mm2[index] = np.nan if area is None else area
        alike.setdefault(_planned_by(device, runtime, index), []).append(index)
    for members in alike.values():
        _price_alike(members, devices, phases, first, runtime, found=found, effort=effort)
    if devices and len(found.refused) == count:
        raise WorkError(f"none of {count} devices runs the network; the first: {found.refused[0]}")
    return found


def _price_alike(
    members: Sequence[int],
    devices: Sequence[Device],
    phases: Sequence[PhaseWork],
    choices: Choices,
    runtime: Runtime,
    *,
    found: PointPrices,
    effort: Effort,
) -> None:
    """Prices those of the devices that run the same kernels, into `found`."""
    left = list(members)
    while left:
        try:
            table = CostTable.build(phases, choices, devices[left[0]], runtime, detailed=True)
            break
        except (WorkError, CircuitError) as error:  # another one may be large enough
            found.refused[left.pop(0)] = str(error)
    else:
        return
    if len(left) == 1:
        total = table.total({})
        found.latency_s[left], found.energy_j[left] = total.latency_s, total.energy_j
        found.gap[left] = total.spatial.gap if total.spatial is not None else np.nan
        return
    counts = {one.kernel: time / one.cost.latency_s for one, time in table.times({}).items()}
    kernels = tuple(counts)
    costs = estimate_points(kernels, [devices[index] for index in left], effort)
    repeats = np.array([counts[kernel] for kernel in kernels])
    found.latency_s[left] = costs.latency_s @ repeats
    found.energy_j[left] = costs.energy_j @ repeats
    weighted = (costs.gaps * costs.latency_s) @ repeats
    found.gap[left] = weighted / found.latency_s[left]
    found.refused.update({left[place]: why for place, why in costs.refused.items()})


def _planned_by(device: Device, runtime: Runtime, index: int) -> Hashable:
    """All that plans depend on: equal for devices that run the same kernels."""
    if device.kind != "array" or device.corrections or runtime.switch_cycles:
        return index
    rates = tuple(
        (
            unit.role,
            tuple(
                (rate.weight, rate.input, rate.accumulator, rate.ops_per_s.value / first)
                for rate in unit.rates
            ),
        )
        for unit in device.units
        for first in [unit.rates[0].ops_per_s.value]
    )
    return device.name, device.family, device.architecture, rates
