"""The cost columns of one target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from dse.evaluate.deployment import Deployment
from dse.queue import RATES, Queue
from hwmodels.tables.network import Choices, CostTable, PhaseWork
from hwmodels.tables.served import MORE_IS_BETTER as SERVED_MORE
from hwmodels.tables.served import ServedTable
from hwmodels.tables.speedup import Following, Times, error_parts, following_errors

TOTAL_COLUMNS = ("latency_s", "energy_j", "weight_bytes", "kv_bytes", "peak_bytes")
PHASE_COLUMNS = ("latency_s", "energy_j")
NATIVE_SHARE = "native_share"
LATENCY = "latency_s"
AREA, POWER = "area_mm2", "power_w"
"""Columns of a target whose device varies: its area, and its mean power while the network runs."""
ADDITIVE_COLUMNS = ("latency_s", "energy_j", "weight_bytes", "kv_bytes")
SERVED_ADDITIVE = ("ttft_s", "tpot_s")
"""Serving numbers that are sums over phases."""
MORE_IS_BETTER = (NATIVE_SHARE, *SERVED_MORE, *RATES)
"""Columns that a constraint bounds from below and that are no objectives."""
AT_ONCE = 4
"""Assignments that are priced together, kernel by kernel, where a region's kernels depend on its
neighbour's format: the table grows with the cube of their number."""


@dataclass(frozen=True, kw_only=True)
class TargetCosts:
    """One target of a search with its tables."""

    label: str
    deployment: Deployment
    table: CostTable
    served: ServedTable | None
    """None where the scenario is no prefill with a decoding phase."""
    queue: Queue | None = None
    """None where the scenario has no load."""
    phases: tuple[PhaseWork, ...] = ()
    choices: Choices = field(default_factory=dict)
    """Those that `table` was built of."""
    area_mm2: float | None = None
    """Of a device that varies, where its area is known."""
    has_power: bool = False
    """Whether its device varies, so that its power is a column."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Names without the target's prefix, in the order of the run folder's tables."""
        names = list(TOTAL_COLUMNS)
        phases = [name for name, _, _ in self.table.phases]
        if len(phases) > 1:
            names += [f"{phase}.{column}" for phase in phases for column in PHASE_COLUMNS]
        names += self.served_columns
        if self.area_mm2 is not None:
            names.append(AREA)
        if self.has_power:
            names.append(POWER)
        return (*names, NATIVE_SHARE)

    @property
    def served_columns(self) -> tuple[str, ...]:
        """Those of them that are about requests: they follow from prices of two calls."""
        tables = (one for one in (self.served, self.queue) if one is not None)
        return tuple(name for table in tables for name in table.columns)

    def total(self, chosen: Mapping[str, int]) -> Mapping[str, float]:
        """Every column of one assignment (region to choice index)."""
        estimate = self.table.total(chosen)
        row = {column: float(getattr(estimate, column)) for column in TOTAL_COLUMNS}
        if len(self.table.phases) > 1:
            for name, part in estimate.parts:
                row |= {f"{name}.{column}": getattr(part, column) for column in PHASE_COLUMNS}
        if self.served is not None:
            row |= self.served.total(chosen)
        if self.queue is not None:
            row |= self.queue.total(chosen)
        if self.area_mm2 is not None:
            row[AREA] = self.area_mm2
        if self.has_power:
            row[POWER] = row["energy_j"] / row[LATENCY]
        row[NATIVE_SHARE] = self.table.native_share(chosen)
        return row

    def totals(self, chosen: np.ndarray, column: str) -> np.ndarray:
        """One column of many assignments: (assignments, regions of the table) choice indices."""
        if column == NATIVE_SHARE:
            return self.table.native_shares(chosen)
        if column == AREA and self.area_mm2 is not None:
            return np.full(len(chosen), self.area_mm2)
        if column == POWER:
            power: np.ndarray = self.totals(chosen, "energy_j") / self.totals(chosen, LATENCY)
            return power
        if self.served is not None and column in self.served.columns:
            return self.served.column(chosen, column)
        if self.is_of_queue(column):
            assert self.queue is not None
            return self.queue.column(chosen, column)
        phase, _, name = column.rpartition(".")
        return self.table.totals(chosen, name, phase or None)

    def latency_errors(
        self, chosen: Sequence[Mapping[str, int]], served: Sequence[str] = ()
    ) -> Mapping[str, np.ndarray]:
        """Column -> parts of the errors of assignments (`error_parts`): latencies, and `served`.

        Args:
            chosen: as of `latency_times`.
            served: further columns, of serving and of the queue, whose errors follow from those
                of their calls.
        """
        device = self.deployment.device.name
        times = self.latency_times(chosen)
        errors = {column: error_parts(found, device) for column, found in times.items()}
        if self.served is None:
            return errors
        rows = np.array([[one.get(name, 0) for name in self.table.regions] for one in chosen])
        calls = [
            times[f"{phase}.{LATENCY}"] for phase in (self.served.prefill, self.served.decode)
        ]
        for column in served:
            table = self.queue if self.is_of_queue(column) else self.served
            assert table is not None
            moved = table.elasticities(rows, column)
            numbers = [
                Following.of(pair, shares)
                for pair, shares in zip(zip(*calls, strict=True), moved, strict=True)
            ]
            errors[column] = following_errors(numbers, device)
        return errors

    def latency_times(self, chosen: Sequence[Mapping[str, int]]) -> dict[str, list[Times]]:
        """Latency column -> seconds of every kernel, of each assignment.

        Args:
            chosen: region to choice index, for each assignment. They are priced again, kernel by
                kernel, which the table of all choices does not tell.
        """
        phases = [name for name, _, _ in self.table.phases]
        named: dict[str, str | None] = {LATENCY: None}
        if len(phases) > 1:
            named |= {f"{name}.{LATENCY}": name for name in phases}
        times: dict[str, list[Times]] = {column: [] for column in named}
        step = AT_ONCE if self.deployment.runtime.stores_tensors else max(len(chosen), 1)
        for start in range(0, len(chosen), step):
            some = chosen[start : start + step]
            taken = {
                region: sorted({one.get(region, 0) for one in some}) for region in self.choices
            }
            offered = {
                region: [self.choices[region][index] for index in indices]
                for region, indices in taken.items()
            }
            table = self.deployment.table(self.phases, offered, detailed=True)
            for one in some:
                places = {r: taken[r].index(one.get(r, 0)) for r in taken}
                for column, phase in named.items():
                    times[column].append(table.times(places, phase))
        return times

    def is_priced_by_region(self, column: str) -> bool:
        """Whether `CostTable.matrix` knows what each choice of a region adds to the column."""
        return column not in (NATIVE_SHARE, AREA, POWER, *self.served_columns)

    def is_of_queue(self, column: str) -> bool:
        """Whether a column is of requests that wait for one another."""
        return self.queue is not None and column in self.queue.columns


def is_additive(column: str) -> bool:
    """Whether a column adds up over variables, conversions between regions apart."""
    name = column.rpartition(".")[2]
    return name in (*ADDITIVE_COLUMNS, *SERVED_ADDITIVE, NATIVE_SHARE)


def joined(target: TargetCosts, names: Sequence[str], *, several: bool) -> tuple[str, ...]:
    """Columns as a run folder names them: with the target's label where there are several."""
    prefix = f"{target.label}." if several else ""
    return tuple(f"{prefix}{name}" for name in names)
