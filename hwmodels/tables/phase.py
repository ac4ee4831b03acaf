"""The cost table of one phase: arrays to gather from, couplings, liveness."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hwmodels.tables.shared_cost import RequantizationCost, SharedCost
from hwmodels.work.cost import AS_ASKED, BOUNDS, STATUS_ORDER, CostEstimate, Note, Status
from hwmodels.work.kernel import PricedKernel
from hwmodels.work.memory import Liveness
from hwmodels.work.spatial_cost import SpatialCost

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]

COLUMNS = (
    "latency_s", "low_s", "high_s", "energy_j", "traffic_bytes", "weight_bytes", "kv_bytes",
    *(f"{bound}_s" for bound in BOUNDS),
)  # fmt: skip
"""Additive columns; the last ones are the latency by what bounds it."""


@dataclass(frozen=True, kw_only=True)
class PhaseTable:
    """Costs of one phase. R regions, C the most choices of any, V activations."""

    regions: tuple[str, ...]
    choice_counts: tuple[int, ...]
    base: Floats
    """Shape (R, C, O, columns): region under its choice and the choice of the region that decides
    the format of its output (O is C), or O = 1 where outputs are always 16 bit; padded with
    infinity."""
    implied: Indices
    """Region whose choice each region runs under, shape (R,): its own, unless it has none."""
    output_owner: Indices
    """Region that decides the format of each region's output, shape (R,)."""
    status: Indices
    """Index into `STATUS_ORDER`, shape (R, C)."""
    notes: tuple[tuple[tuple[Note, ...], ...], ...]
    macs: Floats
    """Shape (R,)."""
    conversions: tuple[SharedCost, ...]
    constants: tuple[SharedCost, ...]
    edges: tuple[RequantizationCost, ...]
    liveness: Liveness
    value_bytes: Floats
    """Bytes of each activation by the choice of its owner, shape (V, C)."""
    value_owner: Indices
    """Shape (V,)."""
    workspace: Floats
    """Converted copies that only a region's own step needs, shape (R, C)."""
    kernels: tuple[PricedKernel, ...] = ()
    """Kernels whose seconds are further columns behind `COLUMNS`, if asked for."""

    @property
    def is_coupled(self) -> bool:
        """Whether some cost depends on the choices of two regions."""
        own = np.arange(len(self.regions))
        several = np.array(self._counts(self.output_owner)) > 1
        depends = (self.base.shape[2] > 1) & (self.output_owner != own) & several
        shared = [entry for entry in self.conversions if len(entry.regions) > 1]
        return bool(self.edges or shared or depends.any())

    def total(self, chosen: Indices) -> CostEstimate:
        """The cost of one assignment, chosen: (R,); parts are regions, and what they share."""
        own, out = self._own_and_out(chosen)
        rows = self.base[np.arange(len(self.regions)), own, out]
        parts = [
            (name, self._estimate(rows[index], int(index), int(own[index])))
            for index, name in enumerate(self.regions)
        ]
        shared = self._shared(chosen)
        columns = rows.sum(axis=0) + shared
        if shared.any():
            extra = self._estimated(shared, "native", ())
            parts.append(("shared conversions and constants", extra))
        worst = int(self.status[np.arange(len(self.regions)), own].max(initial=0))
        notes = dict.fromkeys(
            note for index, choice in enumerate(own) for note in self.notes[index][int(choice)]
        )
        estimate = self._estimated(columns, STATUS_ORDER[worst], tuple(notes))
        peak = int(self._peaks(chosen))
        return estimate.replaced(parts=tuple(parts), peak_bytes=peak)

    def times(self, chosen: Indices) -> dict[PricedKernel, float]:
        """Seconds of every kernel that runs under one assignment, chosen: (R,).

        They add up to the latency. Empty where the table keeps no kernels apart.
        """
        own, out = self._own_and_out(chosen)
        rows = self.base[np.arange(len(self.regions)), own, out]
        seconds = (rows.sum(axis=0) + self._shared(chosen))[len(COLUMNS) :]
        timed = zip(self.kernels, map(float, seconds), strict=True)
        return {one: time for one, time in timed if time > 0}

    def column(self, chosen: Indices, column: str) -> Floats:
        """One column of many assignments: (assignments, R) to (assignments,)."""
        if column == "peak_bytes":
            return self._peaks(chosen)
        index = COLUMNS.index(column)
        own, out = self._own_and_out(chosen)
        base = self.base[np.arange(len(self.regions)), own, out, index].sum(axis=-1)
        total: Floats = base + self._shared(chosen)[..., index]
        return total

    def additive(self, column: str) -> dict[str, Floats]:
        """Region to what each of its choices adds, shape (choices,).

        As if the regions that decide for it chose alike.
        """
        if column == "peak_bytes":
            found = self._alone_bytes()
        else:
            index = COLUMNS.index(column)
            found = self._diagonal()[..., index].copy()
            for entry in (*self.conversions, *self.constants):
                for region, costs in entry.first_payers():
                    found[region] += costs[:, index]
        return {
            name: found[index, : self.choice_counts[index]]
            for index, name in enumerate(self.regions)
        }

    def native_macs(self, chosen: Indices) -> Floats:
        """Multiply-accumulates of regions whose kernels do what is asked: (..., R) to (...)."""
        own, _ = self._own_and_out(chosen)
        as_asked = np.isin(self.status, [STATUS_ORDER.index(status) for status in AS_ASKED])
        found: Floats = as_asked[np.arange(len(self.regions)), own] @ self.macs
        return found

    def alone(self, region: int, choice: int) -> CostEstimate:
        """A region under one choice, its own conversions included."""
        columns = self._diagonal()[region, choice].copy()
        for entry in (*self.conversions, *self.constants):
            for payer, costs in entry.first_payers():
                if payer == region:
                    columns += costs[choice] * len(entry.regions)
        return self._estimate(columns, region, choice)

    def _estimate(self, columns: Floats, region: int, choice: int) -> CostEstimate:
        status = STATUS_ORDER[int(self.status[region, choice])]
        return self._estimated(columns, status, self.notes[region][choice])

    def _estimated(self, columns: Floats, status: Status, notes: tuple[Note, ...]) -> CostEstimate:
        by_bound = columns[len(COLUMNS) - len(BOUNDS) : len(COLUMNS)]
        return CostEstimate(
            latency_s=float(columns[0]),
            low_s=float(columns[1]),
            high_s=float(columns[2]),
            energy_j=float(columns[3]),
            traffic_bytes=float(columns[4]),
            weight_bytes=round(columns[5]),
            kv_bytes=round(columns[6]),
            bound=BOUNDS[int(np.argmax(by_bound))],
            status=status,
            spatial=self._spatial(columns),
            notes=notes,
        )

    def _spatial(self, columns: Floats) -> SpatialCost | None:
        """The work on an array of the kernels kept apart, by their seconds in these columns."""
        return SpatialCost.total(
            one.cost.spatial.scaled(float(seconds) / one.cost.latency_s)
            for one, seconds in zip(self.kernels, columns[len(COLUMNS) :], strict=True)
            if one.cost.spatial is not None and seconds > 0
        )

    def _own_and_out(self, chosen: Indices) -> tuple[Indices, Indices]:
        own = chosen[..., self.implied]
        out = chosen[..., self.output_owner] if self.base.shape[2] > 1 else np.zeros_like(own)
        return own, out

    def _diagonal(self) -> Floats:
        """Regions whose output is decided as they are, shape (R, C, columns)."""
        if self.base.shape[2] == 1:
            return self.base[:, :, 0]
        every = np.arange(self.base.shape[1])
        # A region that decides an output with fewer choices stays at its last one.
        most = np.array(self.choice_counts)[self.output_owner] - 1
        outputs = np.minimum(every, most[:, None])
        found: Floats = self.base[np.arange(len(self.regions))[:, None], every, outputs]
        return found

    def _shared(self, chosen: Indices) -> Floats:
        total = np.zeros((*chosen.shape[:-1], self.base.shape[-1]))
        for shared in (*self.conversions, *self.constants):
            total += shared.cost(chosen)
        for edge in self.edges:
            total += edge.cost(chosen)
        return total

    def _peaks(self, chosen: Indices) -> Floats:
        if not self.regions:
            return np.zeros(chosen.shape[:-1])
        stored = self.value_bytes[np.arange(len(self.value_owner)), chosen[..., self.value_owner]]
        own, _ = self._own_and_out(chosen)
        extra = self.workspace[np.arange(len(self.regions)), own]
        peaks: Floats = np.max(self.liveness.alive(stored) + extra, axis=-1)
        return peaks

    def _alone_bytes(self) -> Floats:
        """Workspace of each region beside the values that it touches, shape (R, C)."""
        alive = self.liveness.alive(self.value_bytes.T)
        found: Floats = alive.T + self.workspace
        return found

    def _counts(self, regions: Indices) -> list[int]:
        return [self.choice_counts[int(region)] for region in regions]
