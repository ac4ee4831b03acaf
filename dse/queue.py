"""The queue in front of assignments: their load, or the most requests within bounds.

`load` elsewhere reads a file; here it is what requests make.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, fields, replace
from math import inf

import numpy as np
from numpy.typing import NDArray

from dse.errors import SpaceError, nearest
from dse.space.constraint import Constraint, parse_constraint
from hwmodels.runtimes.runtime import ASSUMED, Runtime
from hwmodels.tables.load import Load, load_of, sustained
from hwmodels.tables.queueing import Engine, Traffic
from hwmodels.tables.served import ServedTable, relative_changes

LOAD_COLUMNS = tuple(one.name for one in fields(Load) if one.name != "settled")
UNBOUND = ("most_rate",)
"""Columns that do not depend on the requests that come."""
SUSTAINED, GPU_S, COST = "sustained_rate", "gpu_s_per_request", "load_cost_per_mtok"
NUDGE = 1.1
"""A call takes so many times as long where it is asked what that changes: ten times the step to
which rates within bounds are told apart."""
RATES = ("rate", "most_rate", SUSTAINED)
"""Columns of which more is better."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """An assignment under a traffic."""

    load: Load | None
    """None where nothing is served."""
    sustained_rate: float | None
    """The most requests a second at which the bounds hold; None without bounds."""
    remarks: tuple[str, ...]
    """Assumptions that it rests on, or the reason why there is none."""


NO_LOAD = Loaded(load=None, sustained_rate=None, remarks=())


def loaded(
    engine: Engine | None,
    traffic: Traffic,
    bounds: Sequence[Constraint],
    runtime: Runtime,
    where: str,
) -> Loaded:
    """The load of the traffic, or with bounds that of the most requests a second within them.

    Args:
        engine: the assignment; None where steps of several requests have no price.
        traffic: the requests that come.
        bounds: upper bounds on columns of `Load`.
        runtime: what batches the requests.
        where: the assignment as remarks name it.
    """
    if engine is None:
        return Loaded(
            load=None,
            sustained_rate=None,
            remarks=(
                "no load: steps of more requests have no price, as no size of the model counts "
                "requests",
            ),
        )
    if engine.most < 1:
        none = f"{where}: no load, as not one request fits beside the weights"
        return Loaded(load=None, sustained_rate=None, remarks=(none,))
    found, rate = _simulated(engine, traffic, bounds)
    return Loaded(load=found, sustained_rate=rate, remarks=assumed_batching(runtime))


def _simulated(
    engine: Engine, traffic: Traffic, bounds: Sequence[Constraint]
) -> tuple[Load, float | None]:
    """The load, and the rate that the bounds leave where there are any."""
    if not bounds:
        return load_of(engine, traffic), None
    rate, found = sustained(
        engine, traffic, lambda load: all(bound.holds(asdict(load)) for bound in bounds)
    )
    return found, rate


def assumed_batching(runtime: Runtime) -> tuple[str, ...]:
    """Says that nothing is known of the way in which a runtime batches requests."""
    batching = runtime.batching
    if batching.source != ASSUMED:
        return ()
    return (
        f"{runtime.name}: no source says how it batches requests; {batching.tokens} tokens an "
        "iteration, prompts cut and beside those who decode, are assumed (`batching` in its file)",
    )


def load_bounds(texts: Sequence[str], *, origin: str) -> tuple[Constraint, ...]:
    """The bounds on what requests find.

    Args:
        texts: as users write them.
        origin: where errors say that they stand.

    Raises:
        SpaceError: no bound, a column that no load has, or a lower bound.
    """
    found = tuple(parse_constraint(text, origin=origin) for text in texts)
    known = [name for name in LOAD_COLUMNS if name not in UNBOUND]
    for bound in found:
        if bound.at_least:
            raise SpaceError(
                f"{origin} {bound}: more requests make every column larger; expected an upper "
                f"bound, {bound.column}<=N"
            )
        if bound.column not in known:
            raise SpaceError(
                f"{origin} {bound}: no such column{nearest(bound.column, known)}; a load has "
                f"{', '.join(known)}"
            )
    return found


@dataclass(frozen=True, kw_only=True)
class Queue:
    """Columns of assignments that serve requests which wait for one another."""

    served: ServedTable
    """With prices of steps of more and more requests."""
    runtime: Runtime
    traffic: Traffic
    bounds: tuple[Constraint, ...]
    """With bounds the load is as many requests a second as keep them."""
    known: dict[bytes, Mapping[str, float]] = field(
        default_factory=dict, repr=False, compare=False
    )
    """Choices of the table's regions -> columns: a search asks for the same ones again."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns."""
        priced = self.served.demand.price_usd_per_h is not None
        bounded = (SUSTAINED,) if self.bounds else ()
        return (*LOAD_COLUMNS, *bounded, GPU_S, *((COST,) if priced else ()))

    def column(self, chosen: NDArray[np.int64], name: str) -> NDArray[np.float64]:
        """One column of many assignments: chosen (assignments, regions) to (assignments,)."""
        return np.array([row[name] for row in self._rows(chosen)])

    def elasticities(self, chosen: NDArray[np.int64], name: str) -> NDArray[np.float64]:
        """As `ServedTable.elasticities`, of what requests find.

        Args:
            chosen: (assignments, regions) as in `CostTable.totals`.
            name: one of `columns`.

        Returns:
            Shape (assignments, 2), for the times of prefill calls and of decoding steps.
        """
        slower = self._nudged(chosen, name, NUDGE)
        broken = ~np.isfinite(slower).all(axis=1)
        if broken.any():  # slower calls break the bounds at any rate: faster ones tell
            slower[broken] = self._nudged(chosen[broken], name, 1 / NUDGE)
        return slower

    def _nudged(self, chosen: NDArray[np.int64], name: str, by: float) -> NDArray[np.float64]:
        engines = self.served.engines(chosen, self.runtime.batching)
        read = [replace(one, read_s=one.read_s * by) for one in engines]
        step = [replace(one, step_s=one.step_s * by) for one in engines]
        after = np.array([row[name] for row in self._each(read + step)]).reshape(2, -1).T
        return relative_changes(self.column(chosen, name), after, by)

    def total(self, assignment: Mapping[str, int]) -> Mapping[str, float]:
        """Every column of one assignment (region to choice index)."""
        regions = self.served.table.regions
        return self._rows(np.array([[assignment.get(name, 0) for name in regions]]))[0]

    def _rows(self, chosen: NDArray[np.int64]) -> list[Mapping[str, float]]:
        keys = [row.tobytes() for row in np.ascontiguousarray(chosen, dtype=np.int64)]
        places = {key: place for place, key in enumerate(keys) if key not in self.known}
        if places:
            engines = self.served.engines(chosen[[*places.values()]], self.runtime.batching)
            self.known.update(zip(places, self._each(engines), strict=True))
        return [self.known[key] for key in keys]

    def _each(self, engines: Sequence[Engine]) -> list[Mapping[str, float]]:
        """The columns of assignments: simulations are compiled, and run beside each other."""
        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            return list(pool.map(self._row, engines))

    def _row(self, engine: Engine) -> Mapping[str, float]:
        """The columns of one assignment; times and costs are infinite where nothing is served."""
        nothing = {name: 0.0 if name in RATES else inf for name in self.columns}
        if engine.most < 1:
            return nothing
        load, rate = _simulated(engine, self.traffic, self.bounds)
        row = nothing | {name: float(getattr(load, name)) for name in LOAD_COLUMNS}
        row |= {} if rate is None else {SUSTAINED: rate}
        answered = load.rate if rate is None else rate
        if not answered:
            return row
        demand = self.served.demand
        row[GPU_S] = demand.ways / answered
        if demand.price_usd_per_h is not None:
            paid = row[GPU_S] * demand.price_usd_per_h / 3600
            row[COST] = 1e6 * paid / self.traffic.generate
        return row
