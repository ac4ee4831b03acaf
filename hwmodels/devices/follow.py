"""Figures of a device that follow from others when those are varied."""

from __future__ import annotations

from dataclasses import replace

from hwmodels.devices.device import ComputeUnit, Device, Memory, Rate
from hwmodels.devices.npu import Npu
from hwmodels.devices.spatial import CORES


def followed(before: Device, after: Device, *, by: str) -> Device:
    """A varied device with the rates that its cores, clocks, arrays and NPU's steps give.

    A rate is of all cores at the clock; one that was varied itself stays. A chip of one core that
    gets more has the memories inside of its array in each. An NPU's output unit has the array's
    clock. The area of the die is unknown once
    cores, arrays or memories on the chip are others.

    Args:
        before: The device as its file has it.
        after: The same one with some figures varied.
        by: Who varied them, for the sources of what follows.
    """
    known = {unit.name: unit for unit in before.units}
    after = _at_one_clock(before, after)
    units = tuple(
        _with_rates(known[unit.name], unit, before.npu, after.npu, by)
        if unit.name in known
        else unit
        for unit in after.units
    )
    memories = after.memories
    if _cores(before) == 1 < _cores(after):
        memories = tuple(_in_every_core(memory) for memory in memories)
    found = replace(after, units=units, memories=memories)
    return found if _same_silicon(before, after) else replace(found, area_mm2=None)


def _at_one_clock(before: Device, after: Device) -> Device:
    """An NPU whose output unit keeps step with its array, unless its clock was varied itself."""
    clock = after.unit("matrix").clock_hz
    if after.npu is None or clock.value == before.unit("matrix").clock_hz.value:
        return after
    known = {unit.name: unit.clock_hz for unit in before.units}
    return replace(
        after,
        units=tuple(
            replace(unit, clock_hz=clock)
            if unit.role == "vector" and unit.clock_hz == known.get(unit.name)
            else unit
            for unit in after.units
        ),
    )


def _with_rates(
    before: ComputeUnit, after: ComputeUnit, npu_before: Npu | None, npu_after: Npu | None, by: str
) -> ComputeUnit:
    """A unit whose rates that nobody varied are in proportion to what it does in a second."""
    speed = _speed(after) / _speed(before)
    kept = {one.ops_per_s for one in before.rates}
    if after.role == "vector" and npu_before is not None and npu_after is not None:
        speed *= npu_before.output.product / npu_after.output.product

    def rate(one: Rate) -> Rate:
        factor = speed
        if after.role == "matrix" and npu_before is not None and npu_after is not None:
            factor *= _walked(npu_after, one) / _walked(npu_before, one)
        if factor == 1.0 or one.ops_per_s not in kept:
            return one
        figure = replace(
            one.ops_per_s,
            value=one.ops_per_s.value * factor,
            kind="assumed",
            source=f"in proportion to figures of its unit that were varied by {by}",
            low=None,
            high=None,
        )
        return replace(one, ops_per_s=figure, elements=())

    return replace(after, rates=tuple(rate(one) for one in after.rates))


def _cores(device: Device) -> float:
    """Cores that share the work of an array; 0 without one."""
    arrays = [unit for unit in device.units if unit.role == "matrix" and unit.array is not None]
    return arrays[0].count.value if arrays else 0.0


def _in_every_core(memory: Memory) -> Memory:
    """A memory with an instance a place of an array: of one core nobody says so in the file."""
    if not memory.per or CORES in memory.per:
        return memory
    return replace(memory, per=(*memory.per, CORES))


def _speed(unit: ComputeUnit) -> float:
    """Steps of all places of all cores in a second."""
    places = unit.array.places if unit.array is not None else 1.0
    return places * unit.count.value * unit.clock_hz.value


def _walked(npu: Npu, rate: Rate) -> float:
    """Multiply-accumulates a cycle of the walk over operands of that rate; 1 without one."""
    return npu.macs_per_cycle(rate.widest_input_bits) or 1.0


def _same_silicon(before: Device, after: Device) -> bool:
    """Whether two devices have the same cores, arrays and memories on the chip."""

    def parts(device: Device) -> list[object]:
        units = [(unit.name, unit.count.value, _places(unit)) for unit in device.units]
        memories = [(one.name, one.capacity_bytes.value) for one in device.memories[1:]]
        return [*units, *memories]

    return after.area_mm2 != before.area_mm2 or parts(before) == parts(after)


def _places(unit: ComputeUnit) -> float:
    return unit.array.places if unit.array is not None else 0.0
