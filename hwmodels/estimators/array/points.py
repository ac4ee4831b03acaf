"""Kernels on many arrays at once: what the estimator says of each, without its overheads.

Arrays whose axes and levels are laid out alike share unrollings and all that mappings are made of;
the search runs on one after another, compiled, and finds on each what it finds alone.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from hwmodels.devices.device import Device
from hwmodels.errors import CircuitError, WorkError
from hwmodels.estimators.array.estimator import (
    launched,
    softmax_cost,
    tasks_of,
    warm_tensors,
    width_of,
)
from hwmodels.estimators.array.hierarchy import Hierarchy
from hwmodels.estimators.array.nest import Floats
from hwmodels.estimators.array.problem import Figures, Indices
from hwmodels.estimators.array.process import multiply_j
from hwmodels.estimators.array.records import EFFORT, Effort
from hwmodels.estimators.array.schedule import Task, schedules, too_small
from hwmodels.estimators.array.vector import multiplied_by_vectors, vector_cost
from hwmodels.tensors import TensorName
from hwmodels.work.kernel import Kernel
from hwmodels.work.loops import AttentionLoops
from hwmodels.work.spatial_cost import SpatialCost

VectorCost = Callable[[Kernel, Device, Hierarchy], SpatialCost]


@dataclass(frozen=True, kw_only=True)
class PointCosts:
    """Costs of one launch of each kernel on each of n arrays."""

    latency_s: Floats
    """(n, kernels); infinite on an array that does not run all of them."""
    energy_j: Floats
    gaps: Floats
    """Most that the best mapping can be better, by the array's goal."""
    refused: Mapping[int, str]
    """Array -> what it cannot do."""


def estimate_points(
    kernels: Sequence[Kernel], devices: Sequence[Device], effort: Effort = EFFORT
) -> PointCosts:
    """Costs of kernels on many devices of kind `array`, as `ArrayEstimator.estimate` has them.

    Args:
        kernels: of a network.
        devices: of kind `array`.
        effort: limits of the search of every mapping; `QUICK` for thousands of devices.
    """
    points = _Points(devices, effort)
    shape = (len(devices), len(kernels))
    found = PointCosts(
        latency_s=np.full(shape, np.inf), energy_j=np.full(shape, np.inf),
        gaps=np.full(shape, np.nan), refused=points.refused,
    )  # fmt: skip
    for place, kernel in enumerate(kernels):
        if kernel.macs:
            points.contract(kernel)
        else:
            points.run(kernel, vector_cost, points.alive)
        for index in points.alive:
            busy_s = points.cycles[index] / points.hierarchies[index].clock_hz
            found.latency_s[index, place], found.energy_j[index, place] = launched(
                devices[index], busy_s, points.joules[index]
            )
        found.gaps[:, place] = points.gaps
    lacking = list(points.refused)
    found.latency_s[lacking], found.energy_j[lacking], found.gaps[lacking] = np.inf, np.inf, np.nan
    return found


class _Points:
    """Arrays, what is known of each, and what the kernel at hand takes on each."""

    def __init__(self, devices: Sequence[Device], effort: Effort) -> None:
        self.devices = devices
        self.effort = effort
        self.refused: dict[int, str] = {}
        self.hierarchies: dict[int, Hierarchy] = {}
        for index, device in enumerate(devices):
            try:
                self.hierarchies[index] = Hierarchy.of(device)
            except (WorkError, CircuitError) as error:
                self.refused[index] = str(error)
        by_layout: dict[Hashable, list[int]] = {}
        for index, hierarchy in self.hierarchies.items():
            by_layout.setdefault(hierarchy.layout, []).append(index)
        nothing = np.zeros(len(devices))
        self.idle_j = nothing.copy()
        self.layout, self.row = nothing.astype(np.int64), nothing.astype(np.int64)
        """(n,) number of each array's layout, and its place among those of it."""
        self.figures: list[Figures] = []
        """Of each layout, joules of products left out."""
        for number, members in enumerate(by_layout.values()):
            self.layout[members], self.row[members] = number, np.arange(len(members))
            alike = [self.hierarchies[index] for index in members]
            self.figures.append(Figures.of(alike, np.zeros(len(alike)), np.zeros(len(alike))))
        for index, hierarchy in self.hierarchies.items():
            self.idle_j[index] = devices[index].power.idle_w.value / hierarchy.clock_hz
        self.cycles, self.joules, self.gaps = nothing.copy(), nothing.copy(), nothing.copy()
        self.products: dict[Hashable, dict[int, tuple[float | None, float]]] = {}
        """Formats of operands -> array -> products a place and cycle, joules of one."""

    @property
    def alive(self) -> list[int]:
        """Arrays that have run all kernels so far."""
        return [index for index in self.hierarchies if index not in self.refused]

    def run(self, kernel: Kernel, cost: VectorCost, members: Sequence[int]) -> None:
        """Cycles and joules of a kernel on the vector units of some arrays."""
        for index in members:
            found = cost(kernel, self.devices[index], self.hierarchies[index])
            self.cycles[index], self.joules[index] = found.cycles, found.energy_j
            self.gaps[index] = 0.0

    def contract(self, kernel: Kernel) -> None:
        """Cycles and joules of a kernel that multiplies on every array."""
        products = self._products(kernel)
        groups: dict[tuple[int, float, frozenset[TensorName]], list[int]] = {}
        by_vectors = []
        for index in self.alive:
            width, _ = products[index]
            if width is None:
                by_vectors.append(index)
                continue
            warm = warm_tensors(kernel, self.hierarchies[index])
            groups.setdefault((int(self.layout[index]), width, warm), []).append(index)
        tasks = {
            (width, warm): tasks_of(kernel, width, warm)
            for width, warm in {(width, warm) for _, width, warm in groups}
        }
        for (layout, width, warm), members in groups.items():
            mac_j = np.array([products[index][1] for index in members])
            self._search(tasks[width, warm], layout, np.array(members), mac_j)
            if isinstance(kernel.loops, AttentionLoops):
                self._add_softmax(kernel, members)
        self.run(kernel, multiplied_by_vectors, by_vectors)

    def _products(self, kernel: Kernel) -> dict[int, tuple[float | None, float]]:
        key = (
            kernel.weight_format, kernel.input_format, kernel.weight_element,
            kernel.input_element, kernel.accumulator,
        )  # fmt: skip
        found = self.products.setdefault(key, {})
        for index in self.alive:
            if index in found:
                continue
            device = self.devices[index]
            try:
                width = width_of(kernel, device, self.hierarchies[index])
                found[index] = width, multiply_j(kernel, device)
            except (WorkError, CircuitError) as error:
                self.refused[index] = str(error)
        return found

    def _search(self, tasks: Sequence[Task], layout: int, members: Indices, mac_j: Floats) -> None:
        figures = self.figures[layout].taken(self.row[members])
        hierarchy = self.hierarchies[int(members[0])]
        cycles, joules, weighted = (np.zeros(len(members)) for _ in range(3))
        for task in tasks:
            base_j = mac_j * task.nest.macs
            figures = figures._replace(base_j=base_j, idle_j=self.idle_j[members])
            found = schedules(hierarchy, task, figures, self.effort)
            for place in np.flatnonzero(~found.fit):
                index = int(members[place])
                own = replace(found.placed[0], hierarchy=self.hierarchies[index])
                self.refused[index] = too_small(own)
            moved = found.read.sum(axis=2) * figures.read_j
            moved += found.written.sum(axis=2) * figures.write_j
            cycles += found.cycles[:, 0]
            joules += base_j + moved.sum(axis=1)
            weighted += np.where(found.fit, found.gaps, 0.0) * found.cycles[:, 0]
        self.cycles[members], self.joules[members] = cycles, joules
        self.gaps[members] = weighted / np.maximum(cycles, 1.0)

    def _add_softmax(self, kernel: Kernel, members: Sequence[int]) -> None:
        for index in members:
            more = softmax_cost(kernel, self.devices[index], self.hierarchies[index]).cycles
            self.gaps[index] *= self.cycles[index] / max(self.cycles[index] + more, 1.0)
            self.cycles[index] += more
