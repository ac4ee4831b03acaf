"""The cost of a nest on a hierarchy: unrolled, mapped, and accounted by level and tensor."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from hwmodels.devices.spatial import Goal
from hwmodels.errors import WorkError
from hwmodels.estimators.array.hierarchy import Hierarchy
from hwmodels.estimators.array.mapping import Mapping, decided
from hwmodels.estimators.array.nest import Nest
from hwmodels.estimators.array.search import search
from hwmodels.estimators.array.timing import cycles_of, moving
from hwmodels.estimators.array.traffic import Placed
from hwmodels.estimators.array.unrolling import unrollings
from hwmodels.tensors import TENSORS, TensorName
from hwmodels.work.spatial_cost import SpatialCost


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A nest and what it takes besides its tensors' ways."""

    nest: Nest
    resident: frozenset[TensorName] = frozenset()
    """Tensors that stay on chip, if they fit."""
    throughput: float = 1.0
    mac_j: float = 0.0
    """Joules of one multiply-accumulate."""
    idle_j: float = 0.0
    """Joules a cycle."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """A placed nest, its mapping and its cost."""

    placed: Placed
    mapping: Mapping
    cost: SpatialCost


@lru_cache(maxsize=4096)
def schedule(hierarchy: Hierarchy, task: Task, goal: Goal | None = None) -> Schedule:
    """The best mapping found of a nest for a goal (the hierarchy's own), and its cost.

    Tensors that should stay on chip do so if some mapping leaves them room.

    Raises:
        WorkError: A level that cannot hold the smallest tile.
    """
    nest = task.nest.flattened() if hierarchy.movement == "systolic" else task.nest
    candidates = unrollings(hierarchy, nest)

    def best(resident: frozenset[TensorName]) -> Schedule:
        placed = [
            Placed(
                hierarchy=hierarchy,
                nest=nest,
                unrolling=unrolling,
                resident=resident,
                throughput=task.throughput,
            )
            for unrolling in candidates
        ]
        base_j = task.mac_j * nest.macs
        found = [
            search(one, goal or hierarchy.goal, base_j=base_j, idle_j=task.idle_j)
            for one in placed
        ]
        index = min(range(len(found)), key=lambda one: found[one].goal)
        # A gap of another unrolling is one of this mapping, too.
        least = min(one.goal / (1 + one.gap) for one in found)
        gap = max(found[index].goal / least - 1.0, 0.0)
        mapping = found[index].mapping
        return Schedule(
            placed=placed[index],
            mapping=mapping,
            cost=account(placed[index], mapping, task, gap),
        )

    if task.resident:
        try:
            return best(task.resident)
        except WorkError:  # no room: through main memory
            pass
    return best(frozenset())


def account(placed: Placed, mapping: Mapping, task: Task, gap: float = 0.0) -> SpatialCost:
    """The cost of a nest under one mapping, by level and tensor."""
    found, crossings = decided(placed, mapping)
    cycles, compute = cycles_of(placed, found)
    traffic = []
    for index, level in enumerate(placed.hierarchy.levels):
        for tensor in TENSORS:
            here = [one for one in crossings if (one.level, one.tensor) == (index, tensor)]
            if not here:
                continue
            read = sum(float(one.read[0]) for one in here)
            written = sum(float(one.written[0]) for one in here)
            traffic.append(level.traffic(tensor, read, written))
    return SpatialCost(
        cycles=float(cycles[0]),
        compute_cycles=float(compute[0]),
        moving_cycles=float(moving(placed, found.level_bytes)[0]),
        macs=placed.nest.macs,
        peak_macs_per_cycle=placed.hierarchy.places * placed.throughput,
        compute_energy_j=placed.nest.macs * task.mac_j,
        traffic=tuple(traffic),
        gap=gap,
    )
