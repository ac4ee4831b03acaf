"""The searched, priced and constrained: everything of a search but the measuring."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np

from dse.errors import SpaceError, nearest
from dse.evaluate.cost_tables import build_costs
from dse.evaluate.costs import Costs
from dse.evaluate.target_costs import AREA, POWER
from dse.evaluate.varied_costs import VariedCosts
from dse.explore.problem.constraint import (
    BITS_PER_WEIGHT,
    INT8_SHARE,
    QUALITY,
    int8_bytes,
    parse_bound,
    parse_constraints,
    stored_elements,
)
from dse.explore.problem.correction import Correction
from dse.explore.problem.feasible import budgets, check_costs, check_load
from dse.explore.problem.networks import Networks
from dse.explore.problem.objectives import Objectives
from dse.explore.problem.substitute import Substitutes
from dse.explore.solve.solver import Budget, bounded
from dse.explore.solve.surrogate import Surrogate
from dse.graph.ir.assignment import Assignment
from dse.model import Model
from dse.queue import COST, GPU_S
from dse.sensitivity.table import Sensitivity, finite
from dse.space.constraint import Constraint
from dse.space.hardware import hardware_of, with_hardware
from dse.space.opened import cost_model_of, searched_model, with_ranks
from dse.space.problem import Point, Problem
from dse.space.schema import Space, several
from dse.space.targeted import targeted_problem
from hwmodels.devices.device import Device
from hwmodels.tables.served import PRICED

LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Design:
    """A space with its model, decision variables and cost tables."""

    space: Space
    origin: str
    """Name of the space in errors: its file."""
    folder: Path
    """The folder that the space's relative paths start from."""
    model: Model
    cost_model: Model | None
    priced: Model
    """The network that costs are of, in the form that the scenario's sizes speak of."""
    problem: Problem
    """The decisions as they are asked for: assignments, digests and exports say this."""
    networks: Networks
    """The networks that targets execute in its place: these are measured."""
    costs: Costs
    objectives: Objectives
    constraints: tuple[Constraint, ...]
    focus: tuple[Constraint, ...] = ()
    """Bounds of the part of the front that is wanted most: they aim the search, forbid nothing."""
    corrections: Mapping[str, Correction] = field(default_factory=dict)
    """Cost column -> what measurements made outside add to its prediction."""

    def hardware_labels(self, point: Point) -> dict[str, str]:
        """Parameter -> value of a point's hardware; empty where none varies."""
        if self.varied is None:
            return {}
        return self.varied.hardware.labels(self.varied.hardware_of(point))

    def corrected(self, corrections: Mapping[str, Correction]) -> Design:
        """The design with other corrections of its costs."""
        return replace(self, corrections=corrections)

    @property
    def scored(self) -> Problem:
        """The problem whose choices are scored alone: of every network that is an objective."""
        return self.networks.scored(self.objectives.searched).precision

    def losses(self, table: Sensitivity) -> tuple[Surrogate, ...]:
        """The scores of a table as a surrogate for each loss that is an objective.

        Raises:
            KeyError: the table is of another problem.
        """
        labels = (self.networks.primary, *self.objectives.searched)
        problems = [self.networks.named(label).precision for label in labels]
        # Hardware changes no number.
        nothing = [np.zeros(len(one.choices)) for one in self.problem.variables if one.is_hardware]
        return tuple(
            Surrogate(losses=(*finite(table.losses(problem)), *nothing)) for problem in problems
        )

    @property
    def varied(self) -> VariedCosts | None:
        """The costs, where hardware is chosen, too."""
        return self.costs if isinstance(self.costs, VariedCosts) else None

    def searched(self, point: Point) -> tuple[Assignment, ...]:
        """The networks that a point's losses are of, each once; the primary target's first."""
        found = self.networks.elsewhere(point, self.objectives.searched)
        every = [self.networks.measured(point), *found.values()]
        return tuple({one.digest: one for one in every}.values())

    def total(self, point: Point) -> dict[str, float]:
        """Every cost column of a point, corrected; what is no number is infinite."""
        row = {
            column: math.inf if math.isnan(value) else value
            for column, value in self.costs.total(point).items()
        }
        for column, correction in self.corrections.items():
            row[column] += float(correction.of(np.array([point]))[0])
        return row

    def totals(self, points: np.ndarray, columns: Sequence[str]) -> np.ndarray:
        """(points, columns) costs, corrected; points: (points, variables) choice indices.

        What is no number is infinite: such a point is on no front.
        """
        table = self.costs.totals(points, columns)
        table[np.isnan(table)] = np.inf
        for place, column in enumerate(columns):
            if column in self.corrections:
                table[:, place] += self.corrections[column].of(points)
        return table

    def objective_costs(self, points: np.ndarray) -> np.ndarray:
        """(points, cost objectives), corrected; points: (points, variables) choice indices."""
        return self.totals(points, self.objectives.costs)

    @property
    def additive(self) -> tuple[tuple[np.ndarray, ...], ...]:
        """Of each cost objective, what the choices add: one array a variable."""
        return tuple(self._additive(column) for column in self.objectives.costs)

    def _additive(self, column: str) -> tuple[np.ndarray, ...]:
        parts = bounded(self.costs.additive(column))
        if column not in self.corrections:
            return parts
        added = self.corrections[column].parts[: len(parts)]
        return tuple(part + more for part, more in zip(parts, added, strict=True))

    @property
    def budgets(self) -> tuple[Budget, ...]:
        """The constraints on costs that add up, for the solver."""
        return budgets(self.constraints, self.costs)

    def allowed(self, points: np.ndarray, losses: np.ndarray) -> np.ndarray:
        """Mask of the points that satisfy every constraint.

        Args:
            points: (points, variables) choice indices.
            losses: (points,) measured or predicted; (points, losses) where several are objectives.
        """
        return self._within(self.constraints, points, losses)

    def focused(self, points: np.ndarray, losses: np.ndarray) -> np.ndarray:
        """Mask of the points that lie where the front is wanted most; arguments as `allowed`."""
        return self._within(self.focus, points, losses)

    def _within(
        self, bounds: Sequence[Constraint], points: np.ndarray, losses: np.ndarray
    ) -> np.ndarray:
        kept = np.ones(len(points), dtype=bool)
        by_name = dict(zip(self.objectives.losses, losses.reshape(len(points), -1).T, strict=True))
        for constraint in bounds:
            if constraint.column in by_name:
                values = by_name[constraint.column]
            else:
                values = self.totals(points, [constraint.column])[:, 0]
            kept &= np.array([constraint.holds({constraint.column: v}) for v in values.tolist()])
        return kept


def open_design(
    space: Space,
    *,
    origin: str,
    folder: Path,
    devices: Mapping[str, Device] | None = None,
    ranks: Mapping[str, int] | None = None,
) -> Design:
    """The model, variables and cost tables that a space names; no data are read.

    Args:
        space: the space.
        origin: what errors call it.
        folder: what its relative paths are relative to.
        devices: by the name that a target uses, where it is not one of the catalogue or a file.
        ranks: axes of inputs that the model's file gives no shape, where a program knows them.

    Raises:
        DseError, HardwareError: whatever in the space or the model cannot be used.
        InfeasibleError: no assignment satisfies the constraints on cost.
    """
    for number, text in enumerate(space.constraints):
        parse_bound(text, origin=f"{origin}: constraints.{number}")
    model = searched_model(space, folder, ranks)
    space = with_ranks(space, model.graph)
    found = model.analysis.regions
    hardware = hardware_of(space, folder, origin=origin, devices=devices)
    problem = with_hardware(
        targeted_problem(space, model.analysis, folder, origin=origin, devices=devices),
        hardware,
        origin=origin,
    )
    cost_model = cost_model_of(space, folder)
    priced = (cost_model or model).priced(space.scenario.dims)

    def costs_of(problem: Problem) -> Costs:
        return build_costs(
            space,
            problem,
            found,
            priced.analysis,
            origin=origin,
            folder=folder,
            devices=devices,
            same_network=cost_model is None,
            hardware=hardware,
        )

    costs = costs_of(problem)
    substitutes = Substitutes.of(costs)
    fixed = hardware.remarks if hardware is not None else ()
    for remark in (*costs.remarks, *fixed, *substitutes.remarks(problem)):
        LOGGER.warning("%s", remark)
    asked = problem
    if substitutes.everywhere:
        problem = substitutes.applied(problem)
        costs = costs_of(problem)
    objectives, networks = _objectives(space, asked, costs, substitutes, origin)
    parsed = partial(
        parse_constraints,
        columns=costs.columns,
        losses=objectives.losses,
        targets=[target.label for target in costs.targets],
        units={
            BITS_PER_WEIGHT: stored_elements(costs.targets[0].phases[0].work) / 8,
            INT8_SHARE: int8_bytes(costs.targets[0].phases[0].work),
        },
    )
    constraints = parsed(space.constraints, origin=origin)
    focus = parsed(space.search.focus, origin=f"{origin}: search.focus")
    if hardware is None:
        check_costs(constraints, costs)
        check_load(costs)
    return Design(
        space=space,
        origin=origin,
        folder=folder,
        model=model,
        cost_model=cost_model,
        priced=priced,
        problem=problem,
        networks=networks,
        costs=costs,
        objectives=objectives,
        constraints=constraints,
        focus=focus,
    )


def _objectives(
    space: Space, asked: Problem, costs: Costs, substitutes: Substitutes, origin: str
) -> tuple[Objectives, Networks]:
    """Objectives of a space, and the networks that its losses are of."""
    columns = cost_columns(space, costs, origin)
    labels = [target.label for target in costs.targets]
    prefixes = labels if len(labels) > 1 else []
    owners = {column: _owner(column, prefixes) or labels[0] for column in columns}
    networks = Networks.of(
        asked, costs.problem, substitutes, primary=next(iter(owners.values()), labels[0])
    )
    stand_ins = {column: networks.stand_in(label) for column, label in owners.items()}
    losses = tuple(dict.fromkeys([networks.primary, *stand_ins.values()]))
    base = costs.totals(np.array([costs.problem.fallback]), list(columns))[0].tolist()
    objectives = Objectives(
        costs=columns,
        losses=(QUALITY, *(f"{label}.{QUALITY}" for label in losses[1:])),
        loss_of={column: losses.index(label) for column, label in stand_ins.items()},
        views=_views(columns, prefixes),
        base=dict(zip(columns, base, strict=True)),
    )
    return objectives, networks


def cost_columns(space: Space, costs: Costs, origin: str) -> tuple[str, ...]:
    """Cost objectives; a column without its target stands for that of every target.

    Raises:
        SpaceError: an unknown column, or one that no figure stands behind.
    """
    try:
        first, *others = several(space.objectives)
    except ValueError as error:
        raise SpaceError(f"{origin}: objectives: {error}") from error
    if first != QUALITY:
        raise SpaceError(f"{origin}: objectives.0: expected {QUALITY!r}, got {first!r}")
    labels = [target.label for target in costs.targets] if len(costs.targets) > 1 else []
    columns: dict[str, None] = {}
    for number, column in enumerate(others, start=1):
        named = [column, *(f"{label}.{column}" for label in labels)]
        found = [name for name in named if name in costs.bounded_columns]
        if not found:
            _check_figure(column, costs, f"{origin}: objectives.{number}")
            raise SpaceError(
                f"{origin}: objectives.{number}: unknown column {column!r}"
                f"{nearest(column, costs.bounded_columns)} "
                f"(known: {', '.join(costs.bounded_columns)})"
            )
        columns.update(dict.fromkeys(found))
    return tuple(columns)


def _check_figure(column: str, costs: Costs, where: str) -> None:
    """Areas and powers need hardware that varies, and figures of the device; costs a price.

    Raises:
        SpaceError: nothing stands behind the column.
    """
    name = column.rpartition(".")[2]
    if name in (*PRICED, COST) and costs.targets[0].served is not None:
        devices = ", ".join(target.deployment.device.name for target in costs.targets)
        raise SpaceError(
            f"{where}: {column}: no price is known of {devices}; give price_usd_per_h in the "
            "target (or `price` in the device's file), or take "
            f"{GPU_S if costs.targets[0].queue is not None else 'tpot_s'} instead"
        )
    if name not in (AREA, POWER):
        return
    if not isinstance(costs, VariedCosts):
        raise SpaceError(
            f"{where}: {column} is the same for every assignment; it is a column of spaces "
            "with a section `hardware`, whose device varies"
        )
    device = costs.targets[costs.hardware.target].deployment.device
    raise SpaceError(
        f"{where}: {column}: no figure behind it: the file of {device.name} has neither `area` "
        "nor a `process` that circuits are known at; add process: {value: 16, unit: nm, kind: "
        "assumed, source: mine}, and the `array` of its matrix unit"
    )


def _owner(column: str, labels: Sequence[str]) -> str:
    """The target of a column; empty where columns name none."""
    return next((label for label in labels if column.startswith(f"{label}.")), "")


def _views(columns: Sequence[str], labels: Sequence[str]) -> Mapping[str, tuple[str, ...]]:
    """The columns of each target that has any, where they are the same quantities for several."""
    views = {
        label: tuple(column for column in columns if column.startswith(f"{label}."))
        for label in labels
    }
    views = {label: found for label, found in views.items() if found}
    quantities = {
        tuple(column.removeprefix(f"{label}.") for column in found)
        for label, found in views.items()
    }
    return views if len(views) > 1 and len(quantities) == 1 else {}
