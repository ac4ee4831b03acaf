"""The cost of a nest on a hierarchy: unrolled, mapped, and accounted by level and tensor."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hwmodels.devices.spatial import Goal
from hwmodels.errors import WorkError
from hwmodels.estimators.array.hierarchy import Hierarchy
from hwmodels.estimators.array.mapping import Mapping
from hwmodels.estimators.array.nest import Floats, Nest
from hwmodels.estimators.array.problem import Figures, Indices, shape_of
from hwmodels.estimators.array.records import EFFORT, Effort
from hwmodels.estimators.array.traffic import Placed
from hwmodels.estimators.array.unrolling import unrollings
from hwmodels.tensors import TENSORS, TensorName
from hwmodels.work.spatial_cost import LevelTraffic, SpatialCost

if TYPE_CHECKING:
    from hwmodels.estimators.array.search import Found


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


@dataclass(frozen=True, kw_only=True)
class Schedules:
    """A nest on n devices with one layout: the mapping found on each, and what it costs."""

    placed: tuple[Placed, ...]
    """Unrollings that were searched."""
    found: tuple[Found, ...]
    """The best mappings of each."""
    chosen: Indices
    """(n,) index of the unrolling that is best."""
    gaps: Floats
    """(n,) of mappings of any of the unrollings; infinite where none fits."""
    cycles: Floats
    """(n, 3): all, those without stalls, those of the level that takes longest to move its
    bytes."""
    read: Floats
    """(n, levels, 3) bytes."""
    written: Floats

    @property
    def fit(self) -> NDArray[np.bool_]:
        """(n,) whether a mapping fits."""
        return np.isfinite(self.gaps)

    def replaced(self, which: Indices, other: Schedules) -> Schedules:
        """The same with other schedules on some of the devices."""
        parts = {}
        for name in ("gaps", "cycles", "read", "written"):
            parts[name] = getattr(self, name).copy()
            parts[name][which] = getattr(other, name)
        return replace(self, **parts)


@lru_cache(maxsize=4096)
def schedule(
    hierarchy: Hierarchy, task: Task, goal: Goal | None = None, effort: Effort = EFFORT
) -> Schedule:
    """The best mapping found of a nest for a goal (the hierarchy's own), and its cost.

    Tensors that should stay on chip do so if some mapping leaves them room.

    Raises:
        WorkError: A level that cannot hold the smallest tile.
    """
    figures = Figures.of([hierarchy], [task.mac_j * task.nest.macs], [task.idle_j])
    for resident in dict.fromkeys((task.resident, frozenset[TensorName]())):
        found = _schedules(hierarchy, replace(task, resident=resident), figures, goal, effort)
        if found.fit[0]:
            break
    else:
        raise WorkError(too_small(found.placed[0]))
    index = int(found.chosen[0])
    return Schedule(
        placed=found.placed[index],
        mapping=found.found[index].mapping(0),
        cost=SpatialCost(
            cycles=float(found.cycles[0, 0]),
            compute_cycles=float(found.cycles[0, 1]),
            moving_cycles=float(found.cycles[0, 2]),
            macs=task.nest.macs,
            peak_macs_per_cycle=hierarchy.places * task.throughput,
            compute_energy_j=task.nest.macs * task.mac_j,
            traffic=tuple(_traffic(hierarchy, found)),
            gap=float(found.gaps[0]),
        ),
    )


def schedules(
    hierarchy: Hierarchy, task: Task, figures: Figures, effort: Effort = EFFORT
) -> Schedules:
    """The finds of `schedule` on each of n devices that differ in figures alone, if any fits.

    Args:
        hierarchy: of any of them.
        task: whose joules are left to the figures.
        figures: of all of them.
        effort: limits of each search.
    """
    found = _schedules(hierarchy, task, figures, effort=effort)
    lacking = np.flatnonzero(~found.fit)
    if len(lacking) and task.resident:  # no room: through main memory
        outside = replace(task, resident=frozenset())
        again = _schedules(hierarchy, outside, figures.taken(lacking), effort=effort)
        found = found.replaced(lacking, again)
    return found


def _schedules(
    hierarchy: Hierarchy,
    task: Task,
    figures: Figures,
    goal: Goal | None = None,
    effort: Effort = EFFORT,
) -> Schedules:
    # Imported with numba by whoever maps, and by nobody else.
    from hwmodels.estimators.array import search as compiled  # noqa: PLC0415

    nest = task.nest.flattened() if hierarchy.movement == "systolic" else task.nest
    placed = tuple(
        Placed(
            hierarchy=hierarchy,
            nest=nest,
            unrolling=unrolling,
            resident=task.resident,
            throughput=task.throughput,
        )
        for unrolling in unrollings(hierarchy, nest)
    )
    shapes = [shape_of(one) for one in placed]
    found = tuple(
        compiled.search(shape, figures, goal or hierarchy.goal, effort) for shape in shapes
    )
    goals = np.stack([one.goals for one in found])
    chosen = goals.argmin(axis=0)
    # A gap of another unrolling is one of this mapping, too.
    least = np.min([one.least for one in found], axis=0)
    count, levels = goals.shape[1], len(hierarchy.levels)
    cycles = np.zeros((count, 3))
    read, written = (
        np.zeros((count, levels, len(TENSORS))),
        np.zeros((count, levels, len(TENSORS))),
    )
    for index, (shape, one) in enumerate(zip(shapes, found, strict=True)):
        which = np.flatnonzero((chosen == index) & np.isfinite(one.goals))
        if not len(which):
            continue
        read[which], written[which], cycles[which] = compiled.priced(
            shape, figures.taken(which), one.tiles[which], one.orders[which]
        )
    best = goals.min(axis=0)
    gaps = np.full(count, np.inf)
    fit = np.isfinite(best)
    gaps[fit] = np.maximum(best[fit] / least[fit] - 1.0, 0.0)
    return Schedules(
        placed=placed, found=found, chosen=chosen, gaps=gaps, cycles=cycles, read=read,
        written=written,
    )  # fmt: skip


def _traffic(hierarchy: Hierarchy, found: Schedules) -> Iterable[LevelTraffic]:
    for index, level in enumerate(hierarchy.levels):
        for place, tensor in enumerate(TENSORS):
            read, written = (
                float(found.read[0, index, place]),
                float(found.written[0, index, place]),
            )
            if read or written:
                yield level.traffic(tensor, read, written)


def too_small(placed: Placed) -> str:
    """The memories that no mapping of a placed nest fits."""
    hierarchy = placed.hierarchy
    tile = placed.unrolling.tile[None, :]
    counts = np.ceil(placed.sizes / tile)
    for index, members in enumerate(hierarchy.stages[:-1]):
        if not placed.fits(index, tile, counts)[0]:
            names = " and ".join(
                f"{hierarchy.levels[one].name} of {hierarchy.levels[one].capacity_bytes:g} B"
                for one in members
            )
            return (
                f"{hierarchy.name}: memories: {names} cannot hold one tile of the loops that are "
                "unrolled on the array; give more capacity, `double_buffered: false`, or fewer "
                "tensors (`holds`)"
            )
    return f"{hierarchy.name}: memories: no tiling of the nest fits all levels at once"
