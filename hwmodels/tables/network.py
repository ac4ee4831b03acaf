"""Costs of every region under each of its choices, so that an assignment costs a look-up.

A network has one table a phase. Additive costs are gathered; what is not additive stays exact:
an activation that several regions want in one format is converted once, a constant that several
name is stored once, with tensor-side Q/DQ a tensor is stored in one format and converted for the
readers that want another, and the peak of the activations is a maximum over time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hwmodels.devices.device import Device
from hwmodels.errors import WorkError, nearest
from hwmodels.formats.quantizer import Quantizer
from hwmodels.runtimes.runtime import Runtime
from hwmodels.tables.build import build_phase
from hwmodels.tables.phase import COLUMNS, PhaseTable
from hwmodels.work.cost import CostEstimate
from hwmodels.work.kernel import PricedKernel
from hwmodels.work.work import OperandName, Work

Choices = Mapping[str, Sequence[Mapping[OperandName, Quantizer]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseWork:
    """One kind of call (prefill, decode) and its share of the calls."""

    name: str
    share: float
    work: Work


@dataclass(frozen=True, slots=True, kw_only=True)
class TableEntry:
    """One line of the table: what a region costs alone under one of its choices."""

    phase: str
    region: str
    choice: int
    cost: CostEstimate


@dataclass(frozen=True, kw_only=True)
class CostTable:
    """Costs of all assignments of a network on one device under one runtime."""

    regions: tuple[str, ...]
    """Names in the order of the first phase."""
    phases: tuple[tuple[str, float, PhaseTable], ...]
    """Name, share, table."""

    @classmethod
    def build(
        cls,
        phases: Sequence[PhaseWork],
        choices: Choices,
        device: Device,
        runtime: Runtime,
        *,
        gpus: int = 1,
        detailed: bool = False,
    ) -> CostTable:
        """Prices every region under every choice, once; equal regions share the work.

        With several `gpus` the work is that of one of them (`hwmodels.work.sharding`): bytes are
        of one, energy is of all. `detailed` keeps the time of every kernel
        (`times`), and what each does on an array (`CostEstimate.spatial`).

        A region that `choices` does not name runs unquantized; an operand that a choice does not
        name keeps the default 16-bit format.

        Raises:
            WorkError: No phases, phases with different regions, or a choice for a region that no
                phase has.
        """
        names = _region_names(phases)
        if unknown := [name for name in choices if name not in names]:
            raise WorkError(f"unknown region {unknown[0]!r}{nearest(unknown[0], names)}")
        by_region = {name: tuple(choices.get(name, ({},))) or ({},) for name in names}
        return cls(
            regions=names,
            phases=tuple(
                (
                    phase.name,
                    phase.share,
                    build_phase(
                        phase.work, by_region, device, runtime, gpus=gpus, detailed=detailed
                    ),
                )
                for phase in phases
            ),
        )

    @property
    def has_conversions(self) -> bool:
        """Whether costs depend on what neighbouring regions choose together.

        Then latency, energy and bytes are not exactly the sum of `matrix`.
        """
        return any(table.is_coupled for _, _, table in self.phases)

    def total(self, assignment: Mapping[str, int]) -> CostEstimate:
        """The cost of an assignment (region to choice index; a region left out takes choice 0).

        With one phase the parts are regions; with several they are phases, whose parts are
        regions, and the total is their mean by share (`CostEstimate.mean`).

        Raises:
            WorkError: A region that the table does not have.
        """
        chosen = self._indices(assignment)
        if len(self.phases) == 1:
            return self.phases[0][2].total(chosen)
        return CostEstimate.mean(
            (name, share, table.total(chosen)) for name, share, table in self.phases
        )

    def times(
        self, assignment: Mapping[str, int], phase: str | None = None
    ) -> dict[PricedKernel, float]:
        """Seconds of every kernel that runs, which add up to the latency of `total`.

        Of one phase, where one is named. Empty unless the table was built `detailed`.
        """
        chosen = self._indices(assignment)
        alone = phase is not None or len(self.phases) == 1
        found: dict[PricedKernel, float] = {}
        for name, share, table in self.phases:
            if phase in (None, name):
                for kernel, seconds in table.times(chosen).items():
                    found[kernel] = found.get(kernel, 0.0) + seconds * (1.0 if alone else share)
        return found

    def totals(self, chosen: NDArray[np.int64], column: str, phase: str | None = None) -> Floats:
        """One column for many assignments at once.

        chosen: (assignments, regions), choice indices in the order of `regions`. A column is a
        field of `CostEstimate` that is a number; `peak_bytes` and weights take the maximum over
        phases, the others the sum weighted by share.
        """
        picked = [entry for entry in self.phases if phase in (None, entry[0])]
        values = [table.column(chosen, column) for _, _, table in picked]
        if column in ("weight_bytes", "kv_bytes", "peak_bytes"):
            largest: Floats = np.max(np.stack(values), axis=0)
            return largest
        alone = phase is not None or len(self.phases) == 1
        shares = [1.0 if alone else share for _, share, _ in picked]
        summed: Floats = np.tensordot(np.array(shares), np.stack(values), axes=1)
        return summed

    def matrix(self, column: str, phase: str | None = None) -> dict[str, Floats]:
        """The share of each choice of each region in a column: region to (choices,).

        Sums to the total exactly where nothing is shared between regions; a shared conversion
        counts in equal parts for its consumers. `peak_bytes` is the region's own need.
        """
        picked = [entry for entry in self.phases if phase in (None, entry[0])]
        memory = column in ("weight_bytes", "kv_bytes", "peak_bytes")
        found: dict[str, Floats] = {}
        for _, share, table in picked:
            weight = 1.0 if memory or phase is not None or len(self.phases) == 1 else share
            for name, values in table.additive(column).items():
                if name not in found:
                    found[name] = values * weight
                elif memory:
                    found[name] = np.maximum(found[name], values)
                else:
                    found[name] = found[name] + values * weight
        return found

    def native_share(self, assignment: Mapping[str, int]) -> float:
        """Share of the multiply-accumulates that kernels execute as asked, weighted by phase.

        1 for a network that multiplies nothing.
        """
        return float(self.native_shares(self._indices(assignment)[None])[0])

    def native_shares(self, chosen: NDArray[np.int64]) -> Floats:
        """`native_share` of many assignments: chosen (assignments, regions) as in `totals`."""
        total = sum(share * float(table.macs.sum()) for _, share, table in self.phases)
        native = np.zeros(len(chosen))
        for _, share, table in self.phases:
            native += share * table.native_macs(chosen)
        return native / total if total else np.ones(len(chosen))

    def entries(self) -> Iterator[TableEntry]:
        """Every phase, region and choice."""
        for name, _, table in self.phases:
            for index, region in enumerate(table.regions):
                for choice in range(table.choice_counts[index]):
                    yield TableEntry(
                        phase=name, region=region, choice=choice, cost=table.alone(index, choice)
                    )

    def _indices(self, assignment: Mapping[str, int]) -> NDArray[np.int64]:
        known = set(self.regions)
        if unknown := [name for name in assignment if name not in known]:
            raise WorkError(f"unknown region {unknown[0]!r}{nearest(unknown[0], known)}")
        return np.array([assignment.get(name, 0) for name in self.regions], dtype=np.int64)


Floats = NDArray[np.float64]


def _region_names(phases: Sequence[PhaseWork]) -> tuple[str, ...]:
    if not phases:
        raise WorkError("a cost table needs at least one phase")
    names = tuple(region.name for region in phases[0].work.regions)
    for phase in phases[1:]:
        if tuple(region.name for region in phase.work.regions) != names:
            raise WorkError(f"phase {phase.name!r} has other regions than {phases[0].name!r}")
    return names


__all__ = ["COLUMNS", "Choices", "CostTable", "PhaseWork", "TableEntry"]
