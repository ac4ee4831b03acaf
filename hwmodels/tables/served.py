"""Serving numbers of assignments, looked up in the cost tables of their phases."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from hwmodels.devices.device import Device
from hwmodels.runtimes.runtime import Batching
from hwmodels.tables.network import CostTable
from hwmodels.tables.queueing import Engine
from hwmodels.tables.serving import Demand, Floats, Loads, Serving, serve

SERVING_COLUMNS = tuple(field.name for field in fields(Serving))
MORE_IS_BETTER = ("max_batch", "tokens_per_s_per_gpu", "full_tokens_per_s_per_gpu")
PRICED = ("cost_per_mtok", "full_cost_per_mtok")


NUDGE = 1.001
"""A call takes so many times as long where it is asked what that changes."""


def relative_changes(before: Floats, after: Floats, nudge: float) -> Floats:
    """Logs of (assignments, calls) numbers with nudged calls over those without, per log."""
    with np.errstate(divide="ignore", invalid="ignore"):
        found: Floats = np.log(after / before[:, None]) / np.log(nudge)
    return found


@dataclass(frozen=True, kw_only=True)
class ServedTable:
    """Tables of a prefill and a decoding phase, and what is asked of them."""

    table: CostTable
    prefill: str
    """Name of its phase."""
    decode: str
    steps: CostTable | None
    """Decoding steps with more and more requests; phases are named by their number."""
    demand: Demand
    device: Device
    prompts: CostTable | None = None
    """Prefill calls of more and more prompts; phases are named by their tokens."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the numbers that exist: without a price there are no costs."""
        priced = self.demand.price_usd_per_h is not None
        return tuple(name for name in SERVING_COLUMNS if priced or name not in PRICED)

    def serving(self, chosen: NDArray[np.int64]) -> Serving:
        """Serving numbers: chosen (assignments, regions) as in `CostTable.totals`."""
        return serve(self._loads(chosen), self.demand, self.device)

    def column(self, chosen: NDArray[np.int64], name: str) -> Floats:
        """One number of many assignments: chosen (assignments, regions) to (assignments,)."""
        found: Floats = getattr(self.serving(chosen), name)
        return found

    def total(self, assignment: Mapping[str, int]) -> Mapping[str, float]:
        """Every column of one assignment (region to choice index)."""
        chosen = np.array([[assignment.get(name, 0) for name in self.table.regions]])
        served = self.serving(chosen)
        return {name: float(getattr(served, name)[0]) for name in self.columns}

    def elasticities(self, chosen: NDArray[np.int64], name: str) -> Floats:
        """Relative change of a number by that of a prefill call's time and of a step's.

        Args:
            chosen: (assignments, regions) as in `CostTable.totals`.
            name: one of `columns`.

        Returns:
            Shape (assignments, 2); not finite where the number is not.
        """
        loads = self._loads(chosen)
        slower = (
            replace(loads, prefill_s=loads.prefill_s * NUDGE),
            replace(loads, decode_s=loads.decode_s * NUDGE, step_s=loads.step_s * NUDGE),
        )
        before, *after = (
            getattr(serve(one, self.demand, self.device), name) for one in (loads, *slower)
        )
        return relative_changes(before, np.column_stack(after), NUDGE)

    def engine(self, assignment: Mapping[str, int], batching: Batching) -> Engine | None:
        """One assignment as it serves requests that wait for one another.

        Returns:
            None where steps of several requests have no price.
        """
        if self.steps is None:
            return None
        chosen = np.array([[assignment.get(name, 0) for name in self.table.regions]])
        return self.engines(chosen, batching)[0]

    def engines(self, chosen: NDArray[np.int64], batching: Batching) -> tuple[Engine, ...]:
        """Assignments as they serve requests that wait for one another.

        Args:
            chosen: (assignments, regions) as in `CostTable.totals`; `steps` are priced.
            batching: of the runtime.
        """
        loads = self._loads(chosen)
        served = serve(loads, self.demand, self.device)
        prefill = self.demand.prefill
        read = {prefill.requests * prefill.tokens: loads.prefill_s}
        if self.prompts is not None:
            for name, _, _ in self.prompts.phases:
                read[int(name)] = self.prompts.totals(chosen, "latency_s", name)
        return tuple(
            Engine(
                tokens=np.array([*read], dtype=float),
                read_s=np.array([seconds[place] for seconds in read.values()]),
                batches=loads.batches,
                step_s=np.ascontiguousarray(loads.step_s[:, place]),
                most=int(most),
                batching=batching,
            )
            for place, most in enumerate(served.max_batch)
        )

    def _loads(self, chosen: NDArray[np.int64]) -> Loads:
        def of(column: str, phase: str) -> Floats:
            return self.table.totals(chosen, column, phase)

        phases = [] if self.steps is None else [name for name, _, _ in self.steps.phases]
        rows = [] if self.steps is None else [
            self.steps.totals(chosen, "latency_s", name) for name in phases
        ]  # fmt: skip
        return Loads(
            prefill_s=of("latency_s", self.prefill),
            decode_s=of("latency_s", self.decode),
            weight_bytes=of("weight_bytes", self.decode),
            kv_bytes=of("kv_bytes", self.decode),
            prefill_peak_bytes=of("peak_bytes", self.prefill),
            decode_peak_bytes=of("peak_bytes", self.decode),
            batches=np.array([float(name) for name in phases]),
            step_s=np.stack(rows) if rows else np.zeros((0, len(chosen))),
        )
