"""Costs of an assignment on every target: look-ups into tables that are built once.

The quality model's decision variables are mapped to the regions of the graph that costs are
computed on, which is the same graph or a `cost_model`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from dse.evaluate.target_costs import (
    MORE_IS_BETTER,
    TargetCosts,
    is_additive,
    joined,
)
from dse.space.problem import Problem
from hwmodels.runtimes.legality import default_element

FIXED = "fixed"
"""The cost table's name for the choice of a region that is not searched."""


@dataclass(frozen=True, kw_only=True)
class Costs:
    """Costs of a problem's points on all targets."""

    problem: Problem
    targets: tuple[TargetCosts, ...]
    variable_of_region: Mapping[str, int | None]
    """Cost region -> index of the variable that decides it; None for what is not searched."""
    phases: tuple[str, ...]
    remarks: tuple[str, ...] = ()
    """Assumptions about the network, and parts of it that are not in the price."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Every cost column, in the order of the run folder's tables."""
        return tuple(
            name
            for target in self.targets
            for name in joined(target, target.columns, several=self._several)
        )

    @property
    def bounded_columns(self) -> tuple[str, ...]:
        """Columns that less of is better: what objectives may name."""
        return tuple(
            column for column in self.columns if column.rpartition(".")[2] not in MORE_IS_BETTER
        )

    def total(self, point: Sequence[int]) -> Mapping[str, float]:
        """Every cost column of a point."""
        chosen = self._by_region(point)
        row: dict[str, float] = {}
        for target in self.targets:
            found = target.total(chosen)
            row |= zip(
                joined(target, tuple(found), several=self._several), found.values(), strict=True
            )
        return row

    def totals(self, points: np.ndarray, columns: Sequence[str]) -> np.ndarray:
        """(points, columns) costs, couplings included, fast for many points.

        Args:
            points: (points, variables) choice indices.
            columns: names out of `columns`.
        """
        found = []
        for column in columns:
            target, name = self._split(column)
            chosen = self._by_table_region(points, target.table.regions)
            found.append(target.totals(chosen, name))
        return np.column_stack(found)

    def is_additive(self, column: str) -> bool:
        """Whether a column adds up over variables, conversions between regions apart."""
        return is_additive(column)

    def additive(self, column: str) -> tuple[np.ndarray, ...]:
        """Shares that each variable's choices add to a column: one array a variable.

        Couplings between regions count in equal parts: exact where a table has none, a guide for
        the solver elsewhere, whose solutions are priced exactly afterwards. Of a column that is
        no sum over regions (native share, serving numbers): what a choice alone changes.
        """
        target, name = self._split(column)
        if not target.is_priced_by_region(name):
            return self._changes(column)
        arrays = [np.zeros(len(v.choices)) for v in self.problem.variables]
        for region, values in self._matrix(target, name).items():
            variable = self.variable_of_region[region]
            if variable is not None:
                arrays[variable] = arrays[variable] + values
        return tuple(arrays)

    def fixed(self, column: str) -> float:
        """The base of `additive`: the regions that are not searched, or the fallback's value."""
        target, name = self._split(column)
        if not target.is_priced_by_region(name):
            return float(self.totals(np.array([self.problem.fallback]), [column])[0, 0])
        return sum(
            float(values[0])
            for region, values in self._matrix(target, name).items()
            if self.variable_of_region[region] is None
        )

    def latency_errors(
        self, points: Sequence[Sequence[int]], served: Collection[str] = ()
    ) -> Mapping[str, np.ndarray]:
        """Column -> parts of the errors of points, (points, parts): latencies, and `served`.

        Args:
            points: choice indices.
            served: columns that should be told beside latencies; others than serving numbers,
                and those of a device that varies, are not.

        The distance of two rows is the half-width of the log of the ratio of their latencies, the
        length of a row that of its latency (`hwmodels.tables.speedup`).
        """
        chosen = [self._by_region(point) for point in points]
        found: dict[str, np.ndarray] = {}
        for target in self.targets:
            errors = target.latency_errors(chosen, self._served(target, served))
            columns = joined(target, tuple(errors), several=self._several)
            found |= zip(columns, errors.values(), strict=True)
        return found

    def rows(self) -> list[dict[str, object]]:
        """The tables, one row a target, phase, region and choice: `costs.csv`."""
        return [
            {
                "target": target.label,
                "phase": entry.phase,
                "region": entry.region,
                "variable": self._variable_name(entry.region),
                "choice": self._choice_name(entry.region, entry.choice),
                **{
                    column: getattr(entry.cost, column)
                    for column in (
                        "latency_s", "low_s", "high_s", "energy_j", "traffic_bytes",
                        "weight_bytes", "kv_bytes", "bound", "status", "note",
                    )
                },
            }
            for target in self.targets
            for entry in target.table.entries()
        ]  # fmt: skip

    def describe_targets(self) -> list[dict[str, object]]:
        """Name, device, runtime, 16-bit float and what stands behind the device's figures."""
        return [
            {
                "name": target.label,
                "device": target.deployment.device.name,
                "runtime": target.deployment.runtime.name,
                "validated": bool(target.deployment.device.validated),
                "note": target.deployment.device.note,
                "wide": default_element(target.deployment.device),
            }
            for target in self.targets
        ]

    def _served(self, target: TargetCosts, columns: Collection[str]) -> tuple[str, ...]:
        """Those of the columns that are serving numbers of a target, without its label."""
        own = joined(target, target.columns, several=self._several)
        return tuple(
            name
            for column, name in zip(own, target.columns, strict=True)
            if column in columns and name in target.served_columns
        )

    def _changes(self, column: str) -> tuple[np.ndarray, ...]:
        """Changes of a column by each choice when it alone leaves the fallback."""
        sizes = [len(variable.choices) for variable in self.problem.variables]
        points = np.repeat(np.array([self.problem.fallback]), sum(sizes), axis=0)
        owner = np.repeat(np.arange(len(sizes)), sizes)
        points[np.arange(len(points)), owner] = np.concatenate([np.arange(n) for n in sizes])
        with np.errstate(invalid="ignore"):  # infinite where bounds on a load do not hold
            changes = self.totals(points, [column])[:, 0] - self.fixed(column)
        target, name = self._split(column)
        if target.is_of_queue(name) and not np.isfinite(changes).all():
            # Differences of infinite costs guide nowhere: the time of a token alone does.
            step = column.removesuffix(name) + "tpot_s"
            changes = self.totals(points, [step])[:, 0] - self.fixed(step)
            changes *= -1 if name in MORE_IS_BETTER else 1
        return tuple(np.split(changes, np.cumsum(sizes)[:-1]))

    def _matrix(self, target: TargetCosts, name: str) -> Mapping[str, np.ndarray]:
        phase, _, column = name.rpartition(".")
        return target.table.matrix(column, phase=phase or None)

    def _by_table_region(self, points: np.ndarray, names: Sequence[str]) -> np.ndarray:
        """(points, regions) choice indices from (points, variables)."""
        variables = [self.variable_of_region[name] for name in names]
        columns = [
            np.zeros(len(points), dtype=np.int64) if variable is None else points[:, variable]
            for variable in variables
        ]
        return np.column_stack(columns).astype(np.int64)

    def _by_region(self, point: Sequence[int]) -> dict[str, int]:
        return {
            region: 0 if variable is None else point[variable]
            for region, variable in self.variable_of_region.items()
        }

    @property
    def _several(self) -> bool:
        return len(self.targets) > 1

    def _split(self, column: str) -> tuple[TargetCosts, str]:
        """Target of a column, and its name without the target's label."""
        for target in self.targets:
            names = joined(target, target.columns, several=self._several)
            if column in names:
                return target, target.columns[names.index(column)]
        raise KeyError(column)

    def _variable_name(self, region: str) -> str:
        variable = self.variable_of_region[region]
        return "" if variable is None else self.problem.variables[variable].name

    def _choice_name(self, region: str, choice: int) -> str:
        variable = self.variable_of_region[region]
        return FIXED if variable is None else self.problem.variables[variable].choices[choice].name
