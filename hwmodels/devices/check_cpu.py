"""Figures of a processor that contradict each other."""

from __future__ import annotations

from collections.abc import Iterator

from hwmodels.devices.cpu import Cpu
from hwmodels.devices.device import ComputeUnit, Device, Memory, Rate
from hwmodels.devices.spatial import CORES

TOLERANCE = 1.05
"""Most that a rate may differ from instructions x cores x clock: files round both."""


def bandwidth_of_all(memory: Memory, device: Device) -> float:
    """Bytes a second of all instances of a level."""
    every = device.unit("matrix").count.value if CORES in memory.per else 1
    return memory.bandwidth_bytes_per_s.value * every


def absurd_processor(device: Device) -> Iterator[str]:
    """One sentence for each figure of the section `cpu` that the rest of the file contradicts."""
    cpu = device.cpu
    if (cpu is None) == (device.kind == "cpu"):
        lacks = "needs the" if cpu is None else "has no"
        yield f"cpu: a device of kind {device.kind!r} {lacks} section `cpu`"
    if cpu is None:
        return
    yield from _levels(device)
    for index, unit in enumerate(device.units):
        for place, rate in enumerate(unit.rates):
            yield from _rate(f"units.{index}.rates.{place}", rate, unit, cpu)


def _levels(device: Device) -> Iterator[str]:
    for index, one in enumerate(device.memories):
        if {*one.per} - {CORES}:
            yield (
                f"memories.{index}.per: {', '.join(one.per)}; a processor has one instance of a "
                f"level, or one a core: [{CORES}]"
            )
        core = one.core_bandwidth_bytes_per_s
        if core is not None and core.value > one.bandwidth_bytes_per_s.value:
            yield (
                f"memories.{index}.core_bandwidth: {core.value:.3g} B/s of one core is above the "
                f"{one.bandwidth_bytes_per_s.value:.3g} B/s of all"
            )
    own = [one for one in device.memories if CORES in one.per]
    whole = [one for one in device.memories if CORES not in one.per]
    if not whole:
        yield f"memories.0.per: main memory is one for all cores; leave [{CORES}] out"
    elif own and max(map(_bytes, own)) >= min(map(_bytes, whole)):
        yield "memories: a level that every core has one of is no larger than a shared one"


def _rate(where: str, rate: Rate, unit: ComputeUnit, cpu: Cpu) -> Iterator[str]:
    """A rate is that of the fastest instructions for it."""
    fitting = [
        one
        for one in cpu.instructions
        if one.accepts(rate.weight[0], rate.input[0]) and one.accumulator == rate.accumulator
    ]
    if not fitting:
        yield (
            f"{where}: no cpu.instructions multiply {rate.input[0]} into {rate.accumulator}; "
            f"there are {', '.join(one.name for one in cpu.instructions)}"
        )
        return
    peaks = {
        2 * one.macs * unit.count.value * (one.clock_hz or unit.clock_hz).value: one
        for one in fitting
    }
    peak = max(peaks)
    if not 1 / TOLERANCE <= rate.ops_per_s.value / peak <= TOLERANCE:
        yield (
            f"{where}: {rate.ops_per_s.value:.4g} op/s; {peaks[peak].name} is "
            f"{peaks[peak].macs:g} MACs a cycle, {peak:.4g} op/s on {unit.count.value:g} cores"
        )


def _bytes(memory: Memory) -> float:
    return memory.capacity_bytes.value
