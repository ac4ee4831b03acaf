"""Parameters of a device as variables of a search: the `hardware` section of a space."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product
from pathlib import Path

import numpy as np

from dse.errors import SpaceError, nearest
from dse.space.platform import located
from dse.space.problem import HARDWARE, Choice, Point, Problem, Variable
from dse.space.schema import HardwareVariable, Setting, Space
from hwmodels.devices.device import Device
from hwmodels.devices.draft import answer_of
from hwmodels.devices.quantity import UNITS
from hwmodels.devices.vary import DeviceFile
from hwmodels.errors import DeviceError

PREFIX = "hardware."
"""Of the columns and variables that say which hardware a point has."""
ACCUMULATOR = ".accumulator"
"""End of the paths that say what a rate sums in."""
BY = "hardware"
"""Name of this section in the sources of figures that it varies."""
COUNTED = 4096
"""Hardware points that are tried when a space is checked; of more, so many by chance."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One value of a parameter."""

    label: str
    """As the user wrote it: `256 KiB`, `output_stationary`."""
    settings: Mapping[str, Setting]
    """Path in the device's file -> what stands there instead."""
    quantity: float | None = None
    """In the base unit of the figure; None of words and of named options."""
    runs: frozenset[str] | None = None
    """Names of the choices that this hardware executes; None: all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """A parameter of a device with its candidate values, quantities in rising order."""

    name: str
    """Path in the device's file, or the user's name for options."""
    options: tuple[Option, ...]
    start: int
    """The option that is the file's own value, or the one nearest to it."""
    said: str
    """The file's own value as people write it; empty for named options."""

    @property
    def is_ordered(self) -> bool:
        """Whether its values are quantities, so that one lies beside the next."""
        return all(one.quantity is not None for one in self.options)

    def neighbours(self, index: int) -> tuple[int, ...]:
        """Options one step away: the next ones of quantities, every other one of words."""
        if self.is_ordered:
            return tuple(i for i in (index - 1, index + 1) if 0 <= i < len(self.options))
        return tuple(i for i in range(len(self.options)) if i != index)


@dataclass(frozen=True, kw_only=True)
class HardwareSpace:
    """The hardware that a space offers: one device file with parameters that vary."""

    target: int
    """Place of the target whose device varies."""
    label: str
    """Column prefix of that target."""
    file: DeviceFile
    parameters: tuple[Parameter, ...]
    fixed: Mapping[str, Setting] = field(default_factory=dict)
    """Parts of the file that the target sets for all of it."""

    @property
    def size(self) -> int:
        """Number of points of the grid, those that are no device included."""
        return math.prod(len(one.options) for one in self.parameters)

    @property
    def start(self) -> Point:
        """The point that is the file itself, or nearest to it."""
        return tuple(one.start for one in self.parameters)

    def options(self, point: Sequence[int]) -> tuple[Option, ...]:
        """The option of every parameter at a point."""
        return tuple(one.options[index] for one, index in zip(self.parameters, point, strict=True))

    def labels(self, point: Sequence[int]) -> dict[str, str]:
        """Parameter -> value at a point, as the user wrote it."""
        names = (one.name for one in self.parameters)
        return dict(zip(names, (one.label for one in self.options(point)), strict=True))

    def device(self, point: Sequence[int]) -> Device:
        """The device at a point.

        Raises:
            DeviceError: the file's reader refuses it: figures that contradict each other.
        """
        settings = dict(self.fixed)
        for option in self.options(point):
            settings |= option.settings
        return self.file.varied(settings, by=BY)

    def runs(self, point: Sequence[int]) -> frozenset[str] | None:
        """Names of the choices that the hardware of a point executes; None: all."""
        limits = [one.runs for one in self.options(point) if one.runs is not None]
        return frozenset.intersection(*limits) if limits else None

    def neighbours(self, point: Sequence[int]) -> Iterator[tuple[int, Point]]:
        """Points that differ in one parameter by one step, with the parameter's place."""
        for place, parameter in enumerate(self.parameters):
            for index in parameter.neighbours(point[place]):
                yield place, (*point[:place], index, *point[place + 1 :])

    @cached_property
    def remarks(self) -> tuple[str, ...]:
        """Figures of the file that stay as they are though what they depend on varies."""
        keys = {
            key for one in self.parameters for option in one.options for key in option.settings
        }
        device = self.file.device
        found = []
        for memory in device.memories[1:]:
            varies = {f"memories.{memory.name}.capacity", f"memories.{memory.name}.bandwidth"}
            if memory.energy_per_byte_j is not None and keys & varies:
                found.append(
                    f"memories.{memory.name}: its energy a byte is the file's, whatever its size; "
                    "without `energy`, and with `process`, it is that of circuits"
                )
        if device.power.per_op and any(".rates" in key for key in keys):
            found.append(
                "power.per_op of the file prices all multiplications, whatever their formats and "
                "accumulators; without it, and with `process`, circuits do"
            )
        found += [
            f"{one.name}: {option.label}: an accumulator is set for all choices, whose losses are "
            "of the sums that they name themselves, or of exact ones; say which of them it `runs`"
            for one in self.parameters
            for option in one.options
            if option.runs is None and any(key.endswith(ACCUMULATOR) for key in option.settings)
        ]
        return tuple(found)

    @cached_property
    def unbuildable(self) -> tuple[int, int, str]:
        """Number of points that are no device, of those that were looked at, and a reason."""
        if self.size <= COUNTED:
            points: list[Point] = list(product(*(range(len(p.options)) for p in self.parameters)))
        else:
            rng = np.random.default_rng(0)
            sizes = [len(one.options) for one in self.parameters]
            points = [tuple(rng.integers(sizes).tolist()) for _ in range(COUNTED // 16)]
        reasons = [reason for reason in map(self._refused, points) if reason]
        return len(reasons), len(points), reasons[0] if reasons else ""

    def _refused(self, point: Point) -> str:
        try:
            self.device(point)
        except DeviceError as error:
            return str(error)
        return ""


def hardware_of(
    space: Space, folder: Path, *, origin: str, devices: Mapping[str, Device] | None = None
) -> HardwareSpace | None:
    """The hardware that a space varies; None where its devices are as they are.

    Args:
        space: targets, and the section `hardware`.
        folder: what relative device files are relative to.
        origin: what errors call the space.
        devices: given by a program instead of files; those cannot vary.

    Raises:
        SpaceError: an unknown target, a part that the device's file lacks, a value that it cannot
            have, or two variables that set one part; all of them at once.
    """
    section = space.hardware
    if section is None:
        return None
    labels = [target.label for target in space.targets]
    wanted = section.target or (labels[0] if len(labels) == 1 else None)
    if wanted not in labels:
        told = (
            f"unknown target {wanted!r}{nearest(wanted, labels)}"
            if wanted
            else ("missing; which device varies?")
        )
        raise SpaceError(f"{origin}: hardware.target: {told} (targets: {', '.join(labels)})")
    target = space.targets[labels.index(wanted)]
    if target.device in (devices or {}):
        raise SpaceError(
            f"{origin}: hardware: the device {target.device} was given by a program; only figures "
            "of a device's file can vary"
        )
    file = DeviceFile(located(target.device, folder))
    problems: list[str] = []
    parameters = []
    for name, variable in section.variables.items():
        try:
            parameters.append(_parameter(name, variable, file))
        except (DeviceError, SpaceError) as error:
            problems.append(f"{origin}: hardware.variables.{name}: {error}")
    problems += [
        f"{origin}: hardware.variables: {one}" for one in _contradictions(parameters, target.set)
    ]
    if problems:
        raise SpaceError("\n".join(problems))
    found = HardwareSpace(
        target=labels.index(wanted),
        label=wanted,
        file=file,
        parameters=tuple(parameters),
        fixed=dict(target.set),
    )
    refused, tried, reason = found.unbuildable
    if refused == tried:
        raise SpaceError(
            f"{origin}: hardware.variables: none of {tried} combinations is a device that can be; "
            f"the first: {reason}"
        )
    return found


def with_hardware(problem: Problem, hardware: HardwareSpace | None, *, origin: str) -> Problem:
    """The problem with the parameters of the hardware as further variables.

    Raises:
        SpaceError: `runs` names choices that no region is offered, or leaves a region without any.
    """
    if hardware is None:
        return problem
    _check_runs(problem, hardware, origin)
    return Problem(
        variables=(
            *problem.variables,
            *(
                Variable(
                    name=f"{PREFIX}{one.name}",
                    kind=HARDWARE,
                    role=HARDWARE,
                    block=None,
                    relative_depth=0.0,
                    regions=(),
                    sites=(),
                    choices=tuple(Choice(name=o.label, quantizers={}) for o in one.options),
                    start=one.start,
                )
                for one in hardware.parameters
            ),
        )
    )


def _parameter(name: str, variable: HardwareVariable, file: DeviceFile) -> Parameter:
    """A parameter whose every option was tried on the file alone."""
    if variable.options:
        options = [
            Option(
                label=label,
                settings=dict(one.set),
                runs=None if one.runs is None else frozenset(one.runs),
            )
            for label, one in variable.options.items()
        ]
        said = ""
    else:
        said = file.said(name)
        values = variable.values or _range(name, variable, said)
        options = [
            Option(label=_text(value), settings={name: value}, quantity=_quantity(name, value))
            for value in values
        ]
    if all(one.quantity is not None for one in options):
        options.sort(key=lambda one: one.quantity or 0.0)
    _check_distinct(options)
    for option in options:
        if option.settings:
            file.varied(option.settings, by=BY)
    return Parameter(
        name=name, options=tuple(options), start=_start(name, options, file, said), said=said
    )


def _range(name: str, variable: HardwareVariable, said: str) -> list[Setting]:
    """The values of a range, in the unit of its lower end."""
    assert variable.from_ is not None
    assert variable.to is not None
    assert variable.steps is not None
    low, unit = _number(name, variable.from_)
    high, other = _number(name, variable.to)
    if (unit is None) != (other is None):
        raise SpaceError(f"from {variable.from_} to {variable.to}: give both ends a unit, or none")
    factor = UNITS[unit][1] if unit else 1.0
    high = high * (UNITS[other][1] if other else 1.0) / factor
    if not 0 < low < high:
        raise SpaceError(f"expected a range that rises, from {variable.from_} to {variable.to}")
    spaced = np.geomspace if variable.scale == "log" else np.linspace
    numbers = [float(f"{one:.6g}") for one in spaced(low, high, variable.steps)]
    if unit is None and _number(name, said)[1] is None and float(low).is_integer():
        numbers = [float(round(one)) for one in numbers]
    if len(set(numbers)) < len(numbers):
        raise SpaceError(
            f"{variable.steps} steps from {variable.from_} to {variable.to} are not as many "
            "whole numbers"
        )
    return [f"{one:g} {unit}" if unit else _plain(one) for one in numbers]


def _plain(number: float) -> int | float:
    return int(number) if number.is_integer() else number


def _number(name: str, value: Setting) -> tuple[float, str | None]:
    """Number and unit of a value; None of what has none.

    Raises:
        DeviceError: not a number, or an unknown unit.
    """
    found = answer_of(name, _text(value), unit="count", usual="KiB")
    if found.value is None:
        raise DeviceError(f"{name}: expected a number, got {value}")
    written = found.unit != "count" or "count" in _text(value)
    return found.value, found.unit if written else None


def _quantity(name: str, value: Setting) -> float | None:
    """A value in the base unit of its figure; None of words and lists."""
    if isinstance(value, bool | list):
        return None
    try:
        number, unit = _number(name, value)
    except DeviceError:
        return None
    return number * (UNITS[unit][1] if unit else 1.0)


def _start(name: str, options: Sequence[Option], file: DeviceFile, said: str) -> int:
    """The option that the file has, else the quantity nearest to it, else the first."""
    for index, option in enumerate(options):
        if all(_same(key, value, file.said(key)) for key, value in option.settings.items()):
            return index
    own = _quantity(name, said) if said else None
    sizes = [one.quantity for one in options]
    if own is None or not own > 0 or not all(size is not None and size > 0 for size in sizes):
        return 0
    return min(range(len(sizes)), key=lambda index: abs(math.log((sizes[index] or 1.0) / own)))


def _same(key: str, value: Setting, said: str) -> bool:
    own, other = _quantity(key, value), _quantity(key, said)
    if own is not None and other is not None:
        return math.isclose(own, other, rel_tol=1e-6)
    return _text(value) == said


def _text(value: Setting) -> str:
    if isinstance(value, list):
        return f"[{', '.join(_text(one) for one in value)}]"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def _check_distinct(options: Sequence[Option]) -> None:
    """No value may stand twice, in whichever unit.

    Raises:
        SpaceError: one does.
    """
    seen: dict[object, str] = {}
    for option in options:
        key = option.label if option.quantity is None else option.quantity
        if key in seen:
            raise SpaceError(f"{seen[key]} and {option.label} are one value; list it once")
        seen[key] = option.label


def _contradictions(
    parameters: Sequence[Parameter], fixed: Mapping[str, Setting]
) -> Iterator[str]:
    """Parts of the file that two parameters set, or that one does and the target, too."""
    keys = {
        one.name: {key for option in one.options for key in option.settings} for one in parameters
    }
    for name, own in keys.items():
        if both := sorted(key for key in own for other in fixed if _within(key, other)):
            yield f"{name} sets {both[0]}, which the target's `set` fixes; leave it out there"
    for number, (first, own) in enumerate(keys.items()):
        for second, others in list(keys.items())[number + 1 :]:
            both = sorted(
                key
                for key in own
                for other in others
                if _within(key, other) or _within(other, key)
            )
            if both:
                yield (
                    f"{first} and {second} both set {both[0]}; put what belongs together into the "
                    "`options` of one variable"
                )


def _within(key: str, other: str) -> bool:
    return key == other or key.startswith(f"{other}.")


def _check_runs(problem: Problem, hardware: HardwareSpace, origin: str) -> None:
    offered = dict.fromkeys(one.name for v in problem.variables for one in v.choices)
    for parameter in hardware.parameters:
        for option in parameter.options:
            where = f"{origin}: hardware.variables.{parameter.name}.options.{option.label}.runs"
            for name in sorted(option.runs or ()):
                if name not in offered:
                    raise SpaceError(
                        f"{where}: no candidate is named {name!r}{nearest(name, list(offered))} "
                        f"(known: {', '.join(offered)})"
                    )
            for variable in problem.variables:
                names = {choice.name for choice in variable.choices}
                if option.runs is not None and not names & option.runs:
                    raise SpaceError(
                        f"{where}: leaves {variable.name} without a choice; it is offered "
                        f"{', '.join(sorted(names))}"
                    )
