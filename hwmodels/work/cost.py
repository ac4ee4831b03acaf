"""The cost of an assignment, and the rules by which costs compose."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass, replace
from typing import Literal

from hwmodels.work.spatial_cost import SpatialCost

Bound = Literal["compute", "memory", "launch", "conversion", "communication"]
BOUNDS: tuple[Bound, ...] = ("compute", "memory", "launch", "conversion", "communication")
Status = Literal["native", "weight_only", "upcast", "substituted", "emulated"]

Note = Hashable
"""Remark on a cost: a text, or what words itself (`str`) when it is shown."""

STATUS_ORDER: tuple[Status, ...] = ("native", "weight_only", "upcast", "substituted", "emulated")
"""From what a kernel does as asked to what no kernel does.

`native`: the unit multiplies the formats asked for. `weight_only`: a kernel for 16-bit
activations, as asked, dequantizes the weights. `upcast`: the unit multiplies wider elements that
hold both exactly. `substituted`: no kernel takes the activations asked for; the weights run in
the weight-only kernel with 16-bit activations, which is not what was asked and not what an
emulation of the formats measures. `emulated`: no kernel at all; 16-bit weights, rounding on top,
and 16 bits for floats that were asked for in more.
"""
AS_ASKED: tuple[Status, ...] = ("native", "weight_only")
"""Statuses that count as native: a kernel of the runtime does exactly what was asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CostEstimate:
    """Cost of one kernel, region, phase or network call.

    Rules of composition (`total`): latency, energy, traffic, weight and KV bytes add, because
    kernels run one after the other and weights are stored once each; the ends of the interval add,
    because errors of one estimator on one device are taken as fully correlated (the widest
    interval that the parts allow); the peak is a maximum; the bound is that of the most time; the
    status is the worst.
    """

    latency_s: float = 0.0
    low_s: float = 0.0
    high_s: float = 0.0
    """The interval that holds the latency nine times in ten, by the estimator's own account."""
    energy_j: float = 0.0
    traffic_bytes: float = 0.0
    """Bytes moved between the device and its main memory (and its SRAM, for arrays)."""
    weight_bytes: int = 0
    kv_bytes: int = 0
    peak_bytes: int = 0
    """Most bytes of activations alive at once; weights and KV cache are counted apart."""
    bound: Bound = "launch"
    status: Status = "native"
    spatial: SpatialCost | None = None
    """Cycles and traffic by level of what runs on an array, where the estimator says them."""
    notes: tuple[Note, ...] = ()
    """The reason why the status is not native: what is missing, and who has it."""
    parts: tuple[tuple[str, CostEstimate], ...] = ()

    @property
    def note(self) -> str:
        """The notes as one text, each once."""
        return "; ".join(dict.fromkeys(map(str, self.notes)))

    @classmethod
    def total(cls, parts: Iterable[tuple[str, CostEstimate]]) -> CostEstimate:
        """The sum of named parts, by the rules of composition; zero for no parts."""
        named = tuple(parts)
        costs = [cost for _, cost in named]
        if not costs:
            return cls()
        worst = max(costs, key=lambda cost: STATUS_ORDER.index(cost.status))
        return cls(
            latency_s=sum(cost.latency_s for cost in costs),
            low_s=sum(cost.low_s for cost in costs),
            high_s=sum(cost.high_s for cost in costs),
            energy_j=sum(cost.energy_j for cost in costs),
            traffic_bytes=sum(cost.traffic_bytes for cost in costs),
            weight_bytes=sum(cost.weight_bytes for cost in costs),
            kv_bytes=sum(cost.kv_bytes for cost in costs),
            peak_bytes=max(cost.peak_bytes for cost in costs),
            bound=_ruling_bound(costs),
            status=worst.status,
            spatial=SpatialCost.total(cost.spatial for cost in costs if cost.spatial),
            notes=tuple(dict.fromkeys(note for cost in costs for note in cost.notes)),
            parts=named,
        )

    @classmethod
    def mean(cls, shares: Iterable[tuple[str, float, CostEstimate]]) -> CostEstimate:
        """Phases of one model weighted by their share of the calls.

        Latency, energy and traffic are the sums weighted by share; weights, KV cache and peak are
        the maximum over the phases, which share one memory.
        """
        phases = tuple(shares)
        if not phases:
            return cls()
        weighted = [(name, cost.scaled(share)) for name, share, cost in phases]
        summed = cls.total(weighted)
        return replace(
            summed,
            weight_bytes=max(cost.weight_bytes for _, _, cost in phases),
            kv_bytes=max(cost.kv_bytes for _, _, cost in phases),
            peak_bytes=max(cost.peak_bytes for _, _, cost in phases),
            parts=tuple((name, cost) for name, _, cost in phases),
        )

    def scaled(self, factor: float) -> CostEstimate:
        """The cost of `factor` calls: time, energy and traffic scale, memory stays."""
        return replace(
            self,
            latency_s=self.latency_s * factor,
            low_s=self.low_s * factor,
            high_s=self.high_s * factor,
            energy_j=self.energy_j * factor,
            traffic_bytes=self.traffic_bytes * factor,
            spatial=self.spatial and self.spatial.scaled(factor),
        )

    def replaced(self, **changes: object) -> CostEstimate:
        """A copy with some fields changed."""
        return replace(self, **changes)  # type: ignore[arg-type]


def _ruling_bound(costs: list[CostEstimate]) -> Bound:
    seconds: dict[Bound, float] = {}
    for cost in costs:
        seconds[cost.bound] = seconds.get(cost.bound, 0.0) + cost.latency_s
    return max(seconds, key=lambda bound: seconds[bound])
