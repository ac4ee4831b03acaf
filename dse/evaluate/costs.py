"""What an assignment costs on every target: look-ups into tables that are built once.

The quality model's decision variables are mapped to the regions of the graph that costs are
computed on, which is the same graph or a `cost_model`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dse.graph.correspond import correspond
from dse.graph.graph import Graph
from dse.graph.lower import lower
from dse.graph.regions import regions
from dse.graph.site import Region
from dse.space.operands import operand_quantizers
from dse.space.problem import Problem
from dse.space.schema import Space
from hwmodels.device import Device
from hwmodels.device_file import load_device
from hwmodels.formats import Quantizer
from hwmodels.runtime import Runtime
from hwmodels.runtime_file import load_runtime
from hwmodels.table import CostTable, Phase
from hwmodels.work import OperandName

TOTAL_COLUMNS = ("latency_s", "energy_j", "weight_bytes", "kv_bytes", "peak_bytes")
PHASE_COLUMNS = ("latency_s", "energy_j")
NATIVE_SHARE = "native_share"
ADDITIVE_COLUMNS = ("latency_s", "energy_j", "weight_bytes", "kv_bytes", NATIVE_SHARE)
FIXED = "fixed"
"""What the cost table calls the choice of a region that is not searched."""


@dataclass(frozen=True, kw_only=True)
class TargetCosts:
    """One device with its runtime."""

    label: str
    device: Device
    runtime: Runtime
    table: CostTable


@dataclass(frozen=True, kw_only=True)
class Costs:
    """Costs of a problem's points on all targets."""

    problem: Problem
    targets: tuple[TargetCosts, ...]
    variable_of_region: Mapping[str, int | None]
    """Cost region -> index of the variable that decides it; None for what is not searched."""
    phases: tuple[str, ...]

    @property
    def columns(self) -> tuple[str, ...]:
        """Every cost column, in the order of the run folder's tables."""
        names: list[str] = []
        for target in self.targets:
            prefix = self._prefix(target)
            names += [f"{prefix}{column}" for column in TOTAL_COLUMNS]
            if len(self.phases) > 1:
                names += [f"{prefix}{p}.{c}" for p in self.phases for c in PHASE_COLUMNS]
            names.append(f"{prefix}{NATIVE_SHARE}")
        return tuple(names)

    @property
    def bounded_columns(self) -> tuple[str, ...]:
        """Columns that less of is better: what objectives and constraints may name."""
        return tuple(column for column in self.columns if not column.endswith(NATIVE_SHARE))

    def total(self, point: Sequence[int]) -> Mapping[str, float]:
        """Every cost column of a point."""
        row: dict[str, float] = {}
        chosen = self._by_region(point)
        for target in self.targets:
            prefix = self._prefix(target)
            estimate = target.table.total(chosen)
            row |= {f"{prefix}{c}": float(getattr(estimate, c)) for c in TOTAL_COLUMNS}
            if len(self.phases) > 1:
                for name, part in estimate.parts:
                    row |= {f"{prefix}{name}.{c}": getattr(part, c) for c in PHASE_COLUMNS}
            row[f"{prefix}{NATIVE_SHARE}"] = target.table.native_share(chosen)
        return row

    def totals(self, points: np.ndarray, columns: Sequence[str]) -> np.ndarray:
        """(points, columns) costs, couplings included, fast for many points.

        Args:
            points: (points, variables) choice indices.
            columns: names out of `columns`.
        """
        found = []
        for column in columns:
            target, phase, name = self._split(column)
            if name == NATIVE_SHARE:
                parts = self._native_parts(target)
                added = [part[points[:, index]] for index, part in enumerate(parts)]
                found.append(self._native_fixed(target) + np.sum(added, axis=0))
                continue
            chosen = self._by_table_region(points, target.table.regions)
            found.append(target.table.totals(chosen, name, phase))
        return np.column_stack(found)

    def is_additive(self, column: str) -> bool:
        """Whether a column adds up over variables, conversions between regions apart."""
        return self._split(column)[2] in ADDITIVE_COLUMNS

    def additive(self, column: str) -> tuple[np.ndarray, ...]:
        """What each variable's choices add to a column: one array a variable.

        Couplings between regions count in equal parts: exact where a table has none, a guide for
        the solver elsewhere, whose solutions are priced exactly afterwards.
        """
        target, phase, name = self._split(column)
        if name == NATIVE_SHARE:
            return self._native_parts(target)
        arrays = [np.zeros(len(v.choices)) for v in self.problem.variables]
        for region, values in target.table.matrix(name, phase=phase).items():
            variable = self.variable_of_region[region]
            if variable is not None:
                arrays[variable] = arrays[variable] + values
        return tuple(arrays)

    def fixed(self, column: str) -> float:
        """What the regions that are not searched add to a column."""
        target, phase, name = self._split(column)
        if name == NATIVE_SHARE:
            return self._native_fixed(target)
        return sum(
            float(values[0])
            for region, values in target.table.matrix(name, phase=phase).items()
            if self.variable_of_region[region] is None
        )

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
        """Name, device, runtime and what stands behind the device's figures."""
        return [
            {
                "name": target.label,
                "device": target.device.name,
                "runtime": target.runtime.name,
                "validated": bool(target.device.validated),
                "note": target.device.note,
            }
            for target in self.targets
        ]

    def _native_fixed(self, target: TargetCosts) -> float:
        """The native share with every variable at its first choice."""
        return target.table.native_share(self._by_region(self.problem.fallback))

    def _native_parts(self, target: TargetCosts) -> tuple[np.ndarray, ...]:
        """What each choice adds to that: a region is native or not whatever its neighbours do."""
        before = self._native_fixed(target)
        arrays = []
        for index, variable in enumerate(self.problem.variables):
            point = list(self.problem.fallback)
            shares = []
            for choice in range(len(variable.choices)):
                point[index] = choice
                shares.append(target.table.native_share(self._by_region(point)))
            arrays.append(np.array(shares) - before)
        return tuple(arrays)

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

    def _prefix(self, target: TargetCosts) -> str:
        return f"{target.label}." if len(self.targets) > 1 else ""

    def _split(self, column: str) -> tuple[TargetCosts, str | None, str]:
        """Target, phase and plain name of a column."""
        for target in self.targets:
            prefix = self._prefix(target)
            if column.startswith(prefix):
                phase, _, name = column.removeprefix(prefix).rpartition(".")
                if not phase or phase in self.phases:
                    return target, phase or None, name
        raise KeyError(column)

    def _variable_name(self, region: str) -> str:
        variable = self.variable_of_region[region]
        return "" if variable is None else self.problem.variables[variable].name

    def _choice_name(self, region: str, choice: int) -> str:
        variable = self.variable_of_region[region]
        return FIXED if variable is None else self.problem.variables[variable].choices[choice].name


def build_costs(
    space: Space,
    problem: Problem,
    quality_regions: Sequence[Region],
    graph: Graph,
    *,
    origin: str,
    folder: Path,
) -> Costs:
    """Cost tables of a problem on every target of a space.

    Args:
        space: targets and scenario.
        problem: the decision variables.
        quality_regions: regions of the model that quality is measured on.
        graph: the graph that costs are computed on.
        origin: what errors call the space.
        folder: what relative device and runtime files are relative to.

    Raises:
        GraphError: a symbolic size that the scenario does not bind.
        HardwareError: unknown or wrong devices and runtimes.
    """
    cost_regions = regions(graph)
    phases = tuple(
        Phase(name=name, share=phase.share, work=lower(graph, cost_regions, phase.dims))
        for name, phase in space.scenario.phases.items()
    )
    deciding = _variables_of_regions(
        problem, quality_regions, cost_regions, [region.name for region in phases[0].work.regions]
    )
    choices = {region: _operand_choices(problem, owner) for region, owner in deciding.items()}
    targets = []
    for target in space.targets:
        device = load_device(_located(target.device, folder))
        runtime = load_runtime(_located(target.runtime, folder))
        targets.append(
            TargetCosts(
                label=target.label,
                device=device,
                runtime=runtime,
                table=CostTable.build(phases, choices, device, runtime),
            )
        )
    return Costs(
        problem=problem,
        targets=tuple(targets),
        variable_of_region=deciding,
        phases=tuple(space.scenario.phases),
    )


def _located(name: str, folder: Path) -> str | Path:
    """A name as it is; a file relative to the space's folder."""
    return folder / name if Path(name).suffix in (".yaml", ".yml") else name


def _operand_choices(
    problem: Problem, variable: int | None
) -> tuple[Mapping[OperandName, Quantizer], ...]:
    if variable is None:
        return ({},)
    return tuple(operand_quantizers(choice) for choice in problem.variables[variable].choices)


def _variables_of_regions(
    problem: Problem,
    quality_regions: Sequence[Region],
    cost_regions: Sequence[Region],
    worked: Sequence[str],
) -> dict[str, int | None]:
    """Index of the variable that decides each cost region that has work to do."""
    owner = {
        region: index
        for index, variable in enumerate(problem.variables)
        for region in variable.regions
    }
    counterpart = correspond(tuple(quality_regions), tuple(cost_regions))
    return {name: owner.get(counterpart[name] or "") for name in worked}
