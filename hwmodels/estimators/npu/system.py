"""The memories of an NPU as it sees them: bytes a cycle, latencies, what is under way."""

from __future__ import annotations

from dataclasses import dataclass

from hwmodels.devices.device import Device, Memory
from hwmodels.devices.npu import Npu, Port

REQUESTED = 0.8
"""Share of the bursts that a port can have under way which are, and of the bytes that come in
their latency: Vela's figures for a channel of an Ethos-U85."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One memory with its port."""

    memory: Memory
    port: Port
    bytes_per_cycle: float

    def channel(self, under_way: int | None) -> float:
        """Bytes a cycle of a channel with so many bytes under way (Little's law)."""
        latency, most = self.port.read_latency, self.port.outstanding
        if under_way is None or not latency:
            return self.bytes_per_cycle
        asked = float(under_way)
        if most is not None:
            asked = min(asked, most * self.port.burst * REQUESTED)
        return min(self.bytes_per_cycle, asked / latency * REQUESTED)


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """An NPU between the memory of its activations and that of its weights."""

    npu: Npu
    clock_hz: float
    arena: Side
    store: Side


def system_of(device: Device) -> System:
    """The memory system of a device of kind `npu` (`hwmodels.devices.check` has looked at it)."""
    npu, clock = device.npu, device.unit("matrix").clock_hz.value
    assert npu is not None, "a device of kind `npu` has the section"
    return System(
        npu=npu,
        clock_hz=clock,
        arena=_side(device, npu, npu.arena, clock),
        store=_side(device, npu, device.main_memory.name, clock),
    )


def _side(device: Device, npu: Npu, name: str, clock_hz: float) -> Side:
    memory = device.memory(name)
    assert memory is not None, "ports are those of memories"
    return Side(
        memory=memory,
        port=npu.port(name),
        bytes_per_cycle=memory.bandwidth_bytes_per_s.value / clock_hz,
    )
