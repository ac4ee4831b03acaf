"""Costs where the hardware is chosen, too: one table a hardware point, made when first asked for.

Points of the problem end with the indices of the hardware's parameters. What varies is one
target's device; columns of the others are as in `Costs`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property

import numpy as np

from dse.errors import SpaceError
from dse.evaluate.costs import Costs
from dse.evaluate.target_costs import AREA, TargetCosts, joined
from dse.space.hardware import HardwareSpace
from dse.space.problem import Point
from hwmodels.devices.device import Device
from hwmodels.errors import DeviceError, HardwareError
from hwmodels.estimators.array.process import device_area_mm2
from hwmodels.tables.speedup import Times, error_parts
from hwmodels.work.cost import STATUS_ORDER

Priced = Callable[[Device, Collection[str] | None], TargetCosts]
"""Costs on a device that executes these choices, or all."""
OTHERWISE = tuple(STATUS_ORDER.index(one) for one in ("substituted", "emulated"))
"""Statuses under which a choice is another network than the one that is asked for."""


@dataclass(frozen=True, kw_only=True)
class VariedCosts(Costs):
    """Costs of points that say which hardware they are on; `targets` have that of the start."""

    hardware: HardwareSpace
    priced: Priced
    made: dict[Point, Costs | None] = field(default_factory=dict, repr=False, compare=False)
    """Hardware point -> its costs; None where there can be no such device."""
    reasons: dict[Point, str] = field(default_factory=dict, repr=False, compare=False)
    """Hardware point -> why there can be none."""

    @classmethod
    def of(cls, costs: Costs, hardware: HardwareSpace, priced: Priced) -> VariedCosts:
        """The costs of a problem whose hardware varies, around those of the start."""
        kept = {one.name: getattr(costs, one.name) for one in fields(costs)}
        place = hardware.target
        start = _figured(costs.targets[place])
        targets = (*costs.targets[:place], start, *costs.targets[place + 1 :])
        plain = Costs(**{**kept, "targets": targets})
        return cls(
            **{**kept, "targets": targets},
            hardware=hardware,
            priced=priced,
            made={hardware.start: plain},
        )

    @property
    def area_column(self) -> str:
        """The column of the area of the hardware; whether it is known or not."""
        return joined(self.targets[self.hardware.target], (AREA,), several=self._several)[0]

    @property
    def own_columns(self) -> frozenset[str]:
        """The columns that depend on the hardware."""
        target = self.targets[self.hardware.target]
        return frozenset(joined(target, target.columns, several=self._several))

    def hardware_of(self, point: Sequence[int]) -> Point:
        """The hardware of a point."""
        return tuple(int(index) for index in point[self._width :])

    def on(self, points: np.ndarray, hardware: Sequence[int]) -> np.ndarray:
        """Points with other hardware, (points, variables)."""
        moved = np.array(points, dtype=np.int64)
        moved[:, self._width :] = hardware
        return moved

    def at(self, hardware: Sequence[int]) -> Costs | None:
        """The costs with that hardware; None where it is no device, or runs nothing.

        Raises:
            SpaceError: the hardware runs a choice as another network than other hardware does.
        """
        point = tuple(int(index) for index in hardware)
        if point not in self.made:
            self.made[point] = self._at(point)
        return self.made[point]

    def area_mm2(self, hardware: Sequence[int]) -> float:
        """The area with that hardware, without pricing; infinite where it is no device."""
        try:
            found = device_area_mm2(self.hardware.device(hardware))
        except HardwareError:
            return np.inf
        return np.inf if found is None else found

    def total(self, point: Sequence[int]) -> Mapping[str, float]:
        """Every cost column of a point; infinite where its hardware cannot run it."""
        hardware = self.hardware_of(point)
        costs = self.at(hardware)
        if costs is None:
            return {
                column: np.inf if column in self.own_columns else value
                for column, value in super().total(point).items()
            }
        found = dict(costs.total(point))
        if self._refused(np.array([point]), hardware)[0]:
            found |= dict.fromkeys(self._endless, np.inf)
        return found

    def totals(self, points: np.ndarray, columns: Sequence[str]) -> np.ndarray:
        """(points, columns) costs, each point on its hardware."""
        points = np.asarray(points, dtype=np.int64).reshape(-1, len(self.problem.variables))
        found = np.empty((len(points), len(columns)))
        groups, owner = np.unique(points[:, self._width :], axis=0, return_inverse=True)
        for place, hardware in enumerate(groups):
            rows = np.flatnonzero(owner.ravel() == place)
            costs = self.at(hardware)
            if costs is None:
                found[rows] = super().totals(points[rows], columns)
                found[np.ix_(rows, self._places(columns, self.own_columns))] = np.inf
                continue
            found[rows] = costs.totals(points[rows], columns)
            refused = rows[self._refused(points[rows], hardware)]
            found[np.ix_(refused, self._places(columns, self._endless))] = np.inf
        return found

    def additive_on(self, hardware: Sequence[int], column: str) -> tuple[np.ndarray, ...] | None:
        """Shares that choices add to a column with that hardware; None where it cannot be.

        Infinite for what it does not run.
        """
        costs = self.at(hardware)
        if costs is None:
            return None
        found = costs.additive(column)
        if column not in self._endless:
            return found
        return tuple(
            np.where(refused, np.inf, part)
            for part, refused in zip(found, self._masks(hardware), strict=True)
        )

    def latency_errors(
        self, points: Sequence[Sequence[int]], served: Collection[str] = ()
    ) -> Mapping[str, np.ndarray]:
        """As `Costs.latency_errors`; devices that differ in figures err alike where kernels do."""
        found: dict[str, np.ndarray] = {}
        target = self.targets[self.hardware.target]
        for other in self.targets:
            if other is not target:
                chosen = [self._by_region(point) for point in points]
                errors = other.latency_errors(chosen, self._served(other, served))
                found |= zip(
                    joined(other, tuple(errors), several=self._several),
                    errors.values(),
                    strict=True,
                )
        groups: dict[Point, list[int]] = {}
        for place, point in enumerate(points):
            groups.setdefault(self.hardware_of(point), []).append(place)
        times: dict[str, list[Times]] = {}
        for hardware, places in groups.items():
            costs = self.at(hardware)
            if costs is None:
                continue
            own = costs.targets[self.hardware.target]
            chosen = [self._by_region(points[place]) for place in places]
            for column, timed in own.latency_times(chosen).items():
                listed = times.setdefault(column, [{}] * len(points))
                for place, one in zip(places, timed, strict=True):
                    listed[place] = one
        columns = joined(target, tuple(times), several=self._several)
        for column, timed in zip(columns, times.values(), strict=True):
            found[column] = error_parts(timed, target.deployment.device.name)
        return found

    def rows_on(self, hardware: Sequence[int]) -> list[dict[str, object]]:
        """The tables with that hardware, as `rows`; nothing where it cannot be."""
        costs = self.at(hardware)
        if costs is None:
            return []
        runs, label = self.hardware.runs(hardware), self.hardware.label
        return [
            row
            for row in costs.rows()
            if row["target"] != label or not row["variable"] or runs is None
            or row["choice"] in runs
        ]  # fmt: skip

    def rows(self) -> list[dict[str, object]]:
        """The tables with the hardware of the start, without what that does not run."""
        return self.rows_on(self.hardware.start)

    @property
    def _width(self) -> int:
        """Number of the problem's variables that are no hardware."""
        return len(self.problem.variables) - len(self.hardware.parameters)

    @cached_property
    def _endless(self) -> frozenset[str]:
        """Columns that are infinite where hardware does not run a choice: all but its area."""
        return self.own_columns - {self.area_column}

    def _places(self, columns: Sequence[str], among: frozenset[str]) -> np.ndarray:
        """Places of the columns that are among others."""
        return np.array([place for place, name in enumerate(columns) if name in among], dtype=int)

    def _refused(self, points: np.ndarray, hardware: Sequence[int]) -> np.ndarray:
        """Mask of the points that take a choice which the hardware does not run."""
        found = np.zeros(len(points), dtype=bool)
        for place, mask in enumerate(self._masks(hardware)):
            if mask.any():
                found |= mask[points[:, place]]
        return found

    def _masks(self, hardware: Sequence[int]) -> list[np.ndarray]:
        """Of every variable, the choices that the hardware does not run."""
        runs = self.hardware.runs([int(index) for index in hardware])
        return [
            np.array(
                [
                    runs is not None and not one.is_hardware and choice.name not in runs
                    for choice in one.choices
                ]
            )
            for one in self.problem.variables
        ]

    def _at(self, hardware: Point) -> Costs | None:
        start = self.made[self.hardware.start]
        assert start is not None, "the start is a device"
        try:
            device, runs = self.hardware.device(hardware), self.hardware.runs(hardware)
            target = _figured(self.priced(device, runs))
        except HardwareError as error:
            self.reasons[hardware] = str(error)
            return None
        place = self.hardware.target
        self._check_same_network(start.targets[place], target, hardware)
        targets = (*start.targets[:place], target, *start.targets[place + 1 :])
        return replace(start, targets=targets)

    def _check_same_network(self, start: TargetCosts, other: TargetCosts, hardware: Point) -> None:
        """Losses are measured of one network an assignment, whatever the hardware.

        Raises:
            SpaceError: the hardware runs a choice otherwise than the start does.
        """
        masks = [
            here | there
            for here, there in zip(
                self._masks(hardware), self._masks(self.hardware.start), strict=True
            )
        ]
        for (_, _, one), (_, _, two) in zip(start.table.phases, other.table.phases, strict=True):
            differs = np.isin(one.status, OTHERWISE) != np.isin(two.status, OTHERWISE)
            for region, choice in np.argwhere(differs).tolist():
                variable = self.variable_of_region[one.regions[region]]
                if variable is None or choice >= len(masks[variable]) or masks[variable][choice]:
                    continue
                names = [c.name for c in self.problem.variables[variable].choices]
                taken = ", ".join(f"{k}={v}" for k, v in self.hardware.labels(hardware).items())
                raise SpaceError(
                    f"hardware: with {taken}, {other.deployment.runtime.name} runs "
                    f"{names[choice]} at {one.regions[region]} as another network than with the "
                    "hardware of the file, and a loss is measured once for all hardware; leave "
                    "the choice out there (options: {NAME: {runs: [...]}}), or take the runtime "
                    "`free`"
                )


def _figured(target: TargetCosts) -> TargetCosts:
    """The target with columns of its area, where that is known, and of its power."""
    device = target.deployment.device
    try:
        area = device_area_mm2(device)
    except HardwareError as error:
        raise DeviceError(f"{device.title}: {error}") from error
    return replace(target, area_mm2=area, has_power=True)
