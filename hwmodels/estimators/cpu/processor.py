"""Figures of a processor under one runtime, with what was fitted to measurements."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from hwmodels.devices.cpu import Cpu, FittedFactor, Instructions, Term
from hwmodels.devices.device import Device, Memory
from hwmodels.errors import WorkError
from hwmodels.estimators.cpu.constants import CONSTANTS, SOCKET_REACH, Constants
from hwmodels.work.kernel import Kernel
from hwmodels.work.lookup import NARROW_SUMS

SAME_LIBRARIES = {"torch-eager": "torch-cpu", "torch-compile": "torch-cpu"}
"""Runtimes that call another one's kernels on a processor."""
OWN = "cores"
"""Entry of `Memory.per` of a level that every core has one of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """A cache, or main memory."""

    name: str
    capacity_bytes: float
    """Of one instance."""
    bytes_per_s: float
    """Of one instance."""
    core_bytes_per_s: float
    """The most that one core draws."""
    is_own: bool
    """Whether every core has one."""
    factor: float = 1.0
    """On its time, from measurements."""
    core_factor: float = 1.0
    """On the time in which its cores draw, whatever all of them share."""
    reach: float = 1.0
    """Share of its bandwidth that all cores draw together."""

    def holds(self, threads: int) -> float:
        """Bytes that so many cores have there together."""
        return self.capacity_bytes * (threads if self.is_own else 1)

    def rate(self, threads: int) -> float:
        """Bytes a second that so many cores draw together."""
        if self.is_own:
            return self.bytes_per_s * threads
        own = self.core_bytes_per_s / self.core_factor
        return min(self.bytes_per_s * self.reach, own * threads)


@dataclass(frozen=True, slots=True, kw_only=True)
class Processor:
    """A processor under a runtime."""

    name: str
    cpu: Cpu
    cores: int
    clock_hz: float
    levels: tuple[Level, ...]
    """From the nearest to main memory."""
    call_s: float
    fork_s: float
    runtime: str
    factors: tuple[FittedFactor, ...]
    constants: Constants

    @classmethod
    def of(cls, device: Device, runtime: str, constants: Constants = CONSTANTS) -> Processor:
        """The processor of a device file (`hwmodels.devices.check` has looked at it)."""
        runtime = SAME_LIBRARIES.get(runtime, runtime)
        cpu = device.cpu
        assert cpu is not None, "a device of kind `cpu` has the section"
        factors = (*constants.factors, *cpu.fitted)
        call = cpu.call_s(runtime)
        unit = device.unit("matrix")
        return cls(
            name=device.name,
            cpu=cpu,
            cores=round(unit.count.value),
            clock_hz=unit.clock_hz.value,
            levels=_levels(device, runtime, constants.factors, cpu.fitted),
            call_s=(device.launch_s.value if call is None else call),
            fork_s=cpu.fork_s.value * _factor(factors, "fork", runtime),
            runtime=runtime,
            factors=factors,
            constants=constants,
        )

    @property
    def main(self) -> Level:
        """Main memory."""
        return self.levels[-1]

    @property
    def lanes(self) -> float:
        """Float32 elements of a vector."""
        return self.cpu.vector_bytes / 4

    def factor(self, term: Term, family: str, element: str) -> float:
        """The product of what measurements say of a term of such kernels."""
        return _factor(self.factors, term, self.runtime, family, element)

    def instructions(self, kernel: Kernel) -> Instructions:
        """The fastest way to multiply a kernel's elements into its accumulator, else a wide one.

        Raises:
            WorkError: There is none.
        """
        pair = (kernel.weight_element, kernel.input_element)
        fitting = [
            one
            for one in self.cpu.instructions
            if one.accepts(*pair)
            and (one.accumulator == kernel.accumulator or one.accumulator not in NARROW_SUMS)
        ]
        if not fitting:
            known = sorted({name for one in self.cpu.instructions for name in one.weight})
            raise WorkError(
                f"{self.name} has no unit that multiplies {pair[0]} with {pair[1]}; it has "
                f"{', '.join(known)}"
            )
        exact = [one for one in fitting if one.accumulator == kernel.accumulator]
        return max(exact or fitting, key=self.macs_per_s)

    def macs_per_s(self, one: Instructions) -> float:
        """Multiply-accumulates a second and core."""
        clock = self.clock_hz if one.clock_hz is None else one.clock_hz.value
        return one.macs * clock


def _levels(
    device: Device,
    runtime: str,
    libraries: Sequence[FittedFactor],
    fitted: Sequence[FittedFactor],
) -> tuple[Level, ...]:
    """From the nearest to main memory, whose cores alone are as slow as libraries make them.

    Two cores were timed, which leave a part of a socket's bandwidth unused: what they lack is
    their own, and many more of them reach what the socket has.
    """
    *caches, main = sorted(device.memories, key=lambda one: one.capacity_bytes.value)
    every = (*libraries, *fitted)
    return (
        *(_level(one, factor=_factor(every, "memory", runtime, one.name)) for one in caches),
        _level(
            main,
            factor=_factor(fitted, "memory", runtime, main.name),
            core_factor=_factor(libraries, "memory", runtime, main.name),
            reach=_reach(main),
        ),
    )


def _reach(memory: Memory) -> float:
    """Share of a bandwidth that all cores draw together: all, where it was measured."""
    return 1.0 if memory.bandwidth_bytes_per_s.kind == "measured" else SOCKET_REACH


def _level(
    memory: Memory, *, factor: float, core_factor: float = 1.0, reach: float = 1.0
) -> Level:
    whole = memory.bandwidth_bytes_per_s.value
    core = memory.core_bandwidth_bytes_per_s
    return Level(
        name=memory.name,
        capacity_bytes=memory.capacity_bytes.value,
        bytes_per_s=whole,
        core_bytes_per_s=whole if core is None else core.value,
        is_own=OWN in memory.per,
        factor=factor,
        core_factor=core_factor,
        reach=reach,
    )


def _factor(
    factors: Iterable[FittedFactor], term: str, runtime: str, family: str = "", element: str = ""
) -> float:
    found = 1.0
    for one in factors:
        if one.holds_for(term, runtime, family, element):
            found *= one.factor
    return found
