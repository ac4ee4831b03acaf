"""A device's array and memories in numbers a cycle: what the mapping of a nest runs on."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from hwmodels.devices.device import Device, Memory
from hwmodels.devices.spatial import CORES, ArrayAxis, Goal, Loop, Movement, RunLengths
from hwmodels.errors import WorkError
from hwmodels.estimators.array.process import level_joules
from hwmodels.tensors import TensorName
from hwmodels.work.spatial_cost import LevelTraffic

Floats = NDArray[np.float64]
SHARED_BY_CORES: tuple[Loop, ...] = ("B", "G", "K", "OY", "OX")
"""Loops that cores divide among themselves, in that order: none of them adds up results."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """An axis of places; the cores of a unit are one, behind those of its array."""

    name: str
    size: int
    unrolls: tuple[Loop, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """A memory of the hierarchy; bandwidth and capacity are of one instance."""

    name: str
    holds: tuple[TensorName, ...]
    per: frozenset[str]
    """Axes with one instance a place."""
    capacity_bytes: float
    bytes_per_cycle: float
    read_j: float
    """Of a byte."""
    write_j: float
    double_buffered: frozenset[TensorName]
    """Tensors that are moved while the array works on the tile before."""
    word_bytes: float = 0.0
    """Of one access: what is moved at a time is rounded up to whole ones; 0 rounds nothing."""
    run_lengths: RunLengths | None = None
    """Code of inputs and complete outputs there."""
    streamed: frozenset[TensorName] = frozenset()
    """Tensors that are worked on as they come, and leave as they are done."""
    waits_for_room: frozenset[TensorName] = frozenset()
    """Streamed tensors of which a tile that does not fit twice is waited for."""
    write_bytes_per_cycle: float | None = None
    """Of a port for writes; the other one then reads. None: they share one."""

    @property
    def hidden(self) -> frozenset[TensorName]:
        """Tensors that are moved while the array works."""
        return self.double_buffered | self.streamed

    @property
    def ended(self) -> frozenset[TensorName]:
        """Tensors of whose tiles the first or the last one is waited for all the same."""
        return self.double_buffered - self.streamed

    def cycles(self, read: Floats | float, written: Floats | float) -> Floats | float:
        """Cycles in which one instance moves so many bytes."""
        if self.write_bytes_per_cycle is None:
            return (read + written) / self.bytes_per_cycle
        return np.maximum(read / self.bytes_per_cycle, written / self.write_bytes_per_cycle)

    def traffic(self, tensor: TensorName, read: float, written: float) -> LevelTraffic:
        """Bytes of a tensor that move here, with what they take."""
        return LevelTraffic(
            level=self.name,
            tensor=tensor,
            read_bytes=read,
            write_bytes=written,
            energy_j=read * self.read_j + written * self.write_j,
        )


@dataclass(frozen=True, kw_only=True)
class Hierarchy:
    """Axes and levels, nearest to the array first; the last level is main memory."""

    name: str
    clock_hz: float
    axes: tuple[Axis, ...]
    levels: tuple[Level, ...]
    movement: Movement
    stationary: TensorName | None
    load_hidden: bool
    goal: Goal = "edp"
    """Of its mapper."""

    @classmethod
    def of(cls, device: Device) -> Hierarchy:
        """The hierarchy of a device of kind `array`.

        Raises:
            WorkError: Its matrix unit has no array.
            CircuitError: A memory without a figure that no circuit model holds for.
        """
        unit = device.unit("matrix")
        if unit.array is None:
            raise WorkError(f"{device.name}: units: the matrix unit has no `array` to map on")
        cores = (CORES, round(unit.count.value), SHARED_BY_CORES)
        written = [_axis(axis) for axis in unit.array.axes]
        axes = [*written, cores] if cores[1] > 1 else written
        return cls(
            name=device.name,
            clock_hz=unit.clock_hz.value,
            axes=tuple(Axis(name=n, size=s, unrolls=u) for n, s, u in axes),
            levels=tuple(_level(memory, device) for memory in reversed(device.memories)),
            movement=unit.array.movement,
            stationary=unit.array.stationary,
            load_hidden=unit.array.load == "hidden",
            goal=unit.array.mapping,
        )

    @property
    def places(self) -> int:
        """Multiply-accumulates a cycle of all cores, at the array's own width."""
        found = 1
        for axis in self.axes:
            found *= axis.size
        return found

    @cached_property
    def layout(self) -> Hashable:
        """All that mappings are made of: equal for hierarchies that differ in figures alone."""
        levels = tuple(
            (
                level.holds,
                level.per,
                level.double_buffered,
                level.word_bytes,
                level.run_lengths,
                level.streamed,
                level.waits_for_room,
            )
            for level in self.levels
        )
        return (
            self.axes, levels, self.movement, self.stationary, self.load_hidden, self.goal,
        )  # fmt: skip

    @cached_property
    def stages(self) -> tuple[tuple[int, ...], ...]:
        """Levels that have one tile together, nearest to the array first.

        Neighbours with an instance at the same places that hold different tensors: the register
        files of a place.
        """
        found: list[list[int]] = []
        for index, level in enumerate(self.levels):
            joined = found and all(
                self.levels[other].per == level.per
                and not set(self.levels[other].holds) & set(level.holds)
                for other in found[-1]
            )
            if joined and index < len(self.levels) - 1:
                found[-1].append(index)
            else:
                found.append([index])
        return tuple(map(tuple, found))


def _axis(axis: ArrayAxis) -> tuple[str, int, tuple[Loop, ...]]:
    return axis.name, round(axis.size.value), axis.unrolls


def _level(memory: Memory, device: Device) -> Level:
    read, write = level_joules(device, memory)
    clock_hz = device.unit("matrix").clock_hz.value
    written = memory.write_bandwidth_bytes_per_s
    return Level(
        name=memory.name,
        holds=memory.holds,
        per=frozenset(memory.per),
        capacity_bytes=memory.capacity_bytes.value,
        bytes_per_cycle=memory.bandwidth_bytes_per_s.value / clock_hz,
        write_bytes_per_cycle=None if written is None else written.value / clock_hz,
        read_j=read,
        write_j=write,
        double_buffered=frozenset(memory.named(memory.double_buffered)),
        word_bytes=memory.word_bytes.value if memory.word_bytes else 0.0,
        run_lengths=memory.run_lengths,
        streamed=frozenset(memory.named(memory.streamed)),
        waits_for_room=frozenset(memory.named(memory.waits_for_room)),
    )
