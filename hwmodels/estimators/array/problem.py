"""A placed nest as plain arrays: what compiled functions take.

`Shape` is all that mappings are made of, `Figures` what their cost depends on besides: devices
that differ in figures alone share a shape.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hwmodels.devices.spatial import LOOPS
from hwmodels.estimators.array.hierarchy import Hierarchy, Level
from hwmodels.estimators.array.nest import RELEVANT, Floats
from hwmodels.estimators.array.records import NOWHERE, SHAPE, Shape
from hwmodels.estimators.array.traffic import MULTIPLIER, REUSE_INDICES, Placed
from hwmodels.tensors import TENSORS, TensorName

Indices = NDArray[np.int64]


class Figures(NamedTuple):
    """Figures of the levels of n devices with one shape."""

    capacity: Floats
    """(n, levels) bytes of one instance."""
    rate: Floats
    """(n, levels) bytes a cycle of one instance, reads and writes together."""
    write_rate: Floats
    """(n, levels) of a port for writes; 0 where they share one."""
    read_j: Floats
    """(n, levels) joules a byte."""
    write_j: Floats
    base_j: Floats
    """(n,) joules that every mapping takes."""
    idle_j: Floats
    """(n,) joules a cycle."""

    @classmethod
    def of(
        cls,
        hierarchies: Sequence[Hierarchy],
        base_j: Sequence[float] | Floats,
        idle_j: Sequence[float] | Floats,
    ) -> Figures:
        """Those of hierarchies that differ in figures alone."""
        levels = [one.levels for one in hierarchies]
        writes = np.nan_to_num(_rows(levels, "write_bytes_per_cycle"), posinf=np.inf)
        return cls(
            capacity=_rows(levels, "capacity_bytes"),
            rate=_rows(levels, "bytes_per_cycle") + writes,
            write_rate=writes,
            read_j=_rows(levels, "read_j"),
            write_j=_rows(levels, "write_j"),
            base_j=np.array(base_j, dtype=float),
            idle_j=np.array(idle_j, dtype=float),
        )

    def taken(self, which: Indices) -> Figures:
        """Those of some of the devices."""
        return Figures(*(one[which] for one in self))


def _rows(levels: Sequence[Sequence[Level]], name: str) -> Floats:
    return np.array([[getattr(one, name) for one in each] for each in levels], dtype=float)


def shape_of(placed: Placed) -> Shape:
    """The shape of a placed nest."""
    hierarchy, nest = placed.hierarchy, placed.nest
    levels, stages = hierarchy.levels, hierarchy.stages
    systolic = hierarchy.movement == "systolic"
    sizes = [axis.size for axis in hierarchy.axes[:2]] if systolic else [0, 0]
    spread = np.asarray(placed.spread)
    added = (placed.sizes / placed.unrolling.tile)[REUSE_INDICES["output"]].prod()
    fields = {
        "levels": len(levels),
        "stages": len(stages),
        "real": nest.sizes,
        "whole": placed.sizes,
        "unrolled": placed.unrolling.tile,
        "in_size": nest.in_size,
        "stride": nest.stride,
        "dilation": nest.dilation,
        "taps": nest.taps,
        "expansion": nest.expansion,
        "each": [nest.element_bytes(tensor) for tensor in TENSORS],
        "partial": nest.partial_bytes,
        "register": nest.register_bytes,
        "elements": [placed.elements[tensor] for tensor in TENSORS],
        "path": [
            [_index(placed.path[tensor].get(stage)) for tensor in TENSORS]
            for stage in range(len(stages))
        ],
        "upper": [
            [_index(placed.upper(tensor, cut)) for tensor in TENSORS]
            for cut in range(MULTIPLIER, len(stages) - 1)
        ],
        "home": [placed.home(tensor) for tensor in TENSORS],
        "resident": [tensor in placed.resident for tensor in TENSORS],
        "spread": spread,
        "instances": placed.instances,
        "copies": np.stack(
            [spread[:, REUSE_INDICES[tensor]].prod(axis=1) for tensor in TENSORS], axis=1
        ),
        "saved": [
            [1 - placed.stored_share(tensor, level) for tensor in TENSORS]
            for level in range(len(levels))
        ],
        "in_place": [bool(level.per) for level in levels],
        "buffered": [[tensor in level.double_buffered for tensor in TENSORS] for level in levels],
        "hidden": [[tensor in level.hidden for tensor in TENSORS] for level in levels],
        "ended": [[tensor in level.ended for tensor in TENSORS] for level in levels],
        "roomed": [[tensor in level.waits_for_room for tensor in TENSORS] for level in levels],
        "waits_for_room": placed.waits_for_room,
        "lower": [
            [_lower(placed, tensor, level) for tensor in TENSORS] for level in range(len(levels))
        ],
        "word": [level.word_bytes for level in levels],
        "free": [_free(placed, stage) for stage in range(len(stages))],
        "sums": min(placed.path["output"].values()) if placed.accumulates else NOWHERE,
        "adds": added > 1,
        "settled": placed.lowest_home_cut,
        "stationary": TENSORS.index(hierarchy.stationary) if hierarchy.stationary else NOWHERE,
        "load_hidden": hierarchy.load_hidden,
        "rows": sizes[0],
        "columns": sizes[1],
        "throughput": placed.throughput,
    }
    found = np.zeros(1, dtype=SHAPE)
    for name, value in fields.items():
        room, whole = found[name], np.asarray(value)
        if whole.shape == room.shape[1:]:
            room[0] = whole
        else:  # fewer levels than there is room for
            room[0, : len(whole)] = whole
    return found


def _index(level: int | None) -> int:
    return NOWHERE if level is None else level


def _lower(placed: Placed, tensor: TensorName, level: int) -> int:
    """The next level of a tensor further in than one; NOWHERE at its lowest one."""
    further_in = [index for index in placed.path[tensor].values() if index < level]
    return max(further_in, default=NOWHERE)


def _free(placed: Placed, stage: int) -> list[bool]:
    """Loops that a tensor of the stage or below depends on, and that are not all unrolled."""
    hierarchy = placed.hierarchy
    members = [index for one in hierarchy.stages[: stage + 1] for index in one]
    held = {tensor for index in members for tensor in hierarchy.levels[index].holds}
    goes_on = (placed.sizes > placed.unrolling.tile).tolist()
    return [
        goes_on[index] and any(loop in RELEVANT[tensor] for tensor in held)
        for index, loop in enumerate(LOOPS)
    ]
