"""A kernel's work on a spatial array or an NPU: cycles, and bytes and joules by level."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from hwmodels.tensors import TensorName


@dataclass(frozen=True, slots=True, kw_only=True)
class LevelTraffic:
    """Bytes that one tensor moves at one level of the memory, and what they take."""

    level: str
    tensor: TensorName
    read_bytes: float
    write_bytes: float
    energy_j: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SpatialCost:
    """Cycles, multiplications and traffic of one kernel, or of kernels one after another."""

    cycles: float
    """Of the array's clock, stalls included; the launch is not."""
    compute_cycles: float
    """The same if every level delivered in time: filling and draining are in it."""
    moving_cycles: float = 0.0
    """Of the level that takes longest to move its bytes."""
    macs: float
    peak_macs_per_cycle: float
    """Of the array at the elements that it multiplies; of several kernels the largest."""
    compute_energy_j: float
    """Of multiplying and of the vector unit; levels hold theirs apart."""
    traffic: tuple[LevelTraffic, ...] = ()
    """Nearest to the array first."""
    gap: float = 0.0
    """Most that the best mapping of what is unrolled can be better than the one found: 0.02 is 2 %
    of the cost that the search minimised. 0 is the best of all, or a schedule that is not
    searched."""

    @property
    def utilisation(self) -> float:
        """Multiplications over those that the array could do in these cycles, in [0, 1]."""
        most = self.cycles * self.peak_macs_per_cycle
        return min(self.macs / most, 1.0) if most else 0.0

    @property
    def stall_cycles(self) -> float:
        """Cycles that the array waits for a level."""
        return self.cycles - self.compute_cycles

    @property
    def energy_j(self) -> float:
        """Dynamic energy, of computing and of every level."""
        return self.compute_energy_j + sum(one.energy_j for one in self.traffic)

    def scaled(self, factor: float) -> SpatialCost:
        """The work of `factor` such kernels."""
        return replace(
            self,
            cycles=self.cycles * factor,
            compute_cycles=self.compute_cycles * factor,
            moving_cycles=self.moving_cycles * factor,
            macs=self.macs * factor,
            compute_energy_j=self.compute_energy_j * factor,
            traffic=tuple(
                replace(
                    one,
                    read_bytes=one.read_bytes * factor,
                    write_bytes=one.write_bytes * factor,
                    energy_j=one.energy_j * factor,
                )
                for one in self.traffic
            ),
        )

    @classmethod
    def total(cls, parts: Iterable[SpatialCost]) -> SpatialCost | None:
        """The sum of kernels that run one after another; None of none.

        The gap is their mean, weighted by cycles.
        """
        costs = tuple(parts)
        if not costs:
            return None
        moved: dict[tuple[str, TensorName], list[LevelTraffic]] = {}
        for cost in costs:
            for one in cost.traffic:
                moved.setdefault((one.level, one.tensor), []).append(one)
        cycles = sum(cost.cycles for cost in costs)
        weighted = sum(cost.gap * cost.cycles for cost in costs)
        return cls(
            cycles=cycles,
            compute_cycles=sum(cost.compute_cycles for cost in costs),
            moving_cycles=sum(cost.moving_cycles for cost in costs),
            macs=sum(cost.macs for cost in costs),
            peak_macs_per_cycle=max(cost.peak_macs_per_cycle for cost in costs),
            compute_energy_j=sum(cost.compute_energy_j for cost in costs),
            traffic=tuple(
                LevelTraffic(
                    level=level,
                    tensor=tensor,
                    read_bytes=sum(one.read_bytes for one in found),
                    write_bytes=sum(one.write_bytes for one in found),
                    energy_j=sum(one.energy_j for one in found),
                )
                for (level, tensor), found in moved.items()
            ),
            gap=weighted / cycles if cycles else 0.0,
        )
