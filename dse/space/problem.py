"""Decision variables: regions of the model with the choices that a space offers them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from dse.graph.ir.assignment import Assignment
from dse.graph.ir.site import Site
from dse.graph.patterns.tied import Tie
from hwmodels.formats.quantizer import Quantizer
from hwmodels.work.role import ROLES

HARDWARE = "hardware"
"""Kind and role of a variable that is a parameter of a device: it has no sites."""
WIDE_BITS = 16
"""A tied table of so many bits is one copy whatever its readers call them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A choice of a variable: a quantizer for some operand roles."""

    name: str
    quantizers: Mapping[str, Quantizer]
    """Roles that are not named keep the model's own precision."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Variable:
    """One decision: the regions that share it, their sites, and the choices in the order given."""

    name: str
    kind: str
    role: str
    block: int | None
    relative_depth: float
    regions: tuple[str, ...]
    sites: tuple[Site, ...]
    choices: tuple[Choice, ...]
    tables: tuple[Site, ...] = ()
    """Tables of look-ups that read what its weight is stored as (`Problem.sharing`)."""
    start: int = 0
    """The choice that stands for what is not chosen: the first, of hardware that of the file."""

    @property
    def is_hardware(self) -> bool:
        """Whether it is a parameter of a device, which changes no number."""
        return self.kind == HARDWARE

    @property
    def every_site(self) -> tuple[Site, ...]:
        """Its sites, and tables that follow its weight."""
        return self.sites + self.tables

    def quantizer(self, site: Site, choice: Choice) -> Quantizer | None:
        """The quantizer of one of its sites under a choice; None where it names none.

        A table in 16 bits is one copy whatever its readers call it, and stays as it is.
        """
        found = choice.quantizers.get(site.role)
        follows = found is not None and found.format.element.bits < WIDE_BITS
        return found if follows or site not in self.tables else None

    @property
    def modules(self) -> tuple[str, ...]:
        """Nodes with the weights that it decides: modules of a Hugging Face folder, by name."""
        weights = (site.node for site in self.sites if ROLES[site.role].is_constant)
        return tuple(dict.fromkeys(weights))

    def index(self, choice: str) -> int | None:
        """Position of the choice of that name, or None."""
        return next((i for i, known in enumerate(self.choices) if known.name == choice), None)


Point = tuple[int, ...]
"""One choice index a variable, in the order of `Problem.variables`."""


@dataclass(frozen=True, kw_only=True)
class Problem:
    """The discrete space that is searched."""

    variables: tuple[Variable, ...]

    @property
    def size(self) -> int:
        """Number of points: of assignments, times those of the hardware."""
        return math.prod(len(variable.choices) for variable in self.variables)

    @property
    def assignments(self) -> int:
        """Number of assignments: what there is to measure."""
        return math.prod(len(one.choices) for one in self.variables if not one.is_hardware)

    @cached_property
    def hardware(self) -> tuple[int, ...]:
        """Places of the variables that are parameters of a device."""
        return tuple(place for place, one in enumerate(self.variables) if one.is_hardware)

    @property
    def precision(self) -> Problem:
        """The problem of the formats alone."""
        if not self.hardware:
            return self
        return Problem(variables=tuple(one for one in self.variables if not one.is_hardware))

    def on_start(self, point: Sequence[int]) -> Point:
        """The point of the same assignment on the hardware of the file: what is measured once."""
        if not self.hardware:
            return tuple(point)
        return tuple(
            variable.start if variable.is_hardware else index
            for variable, index in zip(self.variables, point, strict=True)
        )

    @cached_property
    def _places(self) -> tuple[tuple[str, Mapping[str, int]], ...]:
        """Each variable's name, with the position of every choice by its name."""
        return tuple(
            (
                variable.name,
                {choice.name: place for place, choice in enumerate(variable.choices)},
            )
            for variable in self.variables
        )

    @cached_property
    def fallback(self) -> Point:
        """Every variable at its first choice, the hardware as the file has it."""
        return tuple(variable.start for variable in self.variables)

    @cached_property
    def uniforms(self) -> Mapping[str, Point]:
        """The uniform assignments: one choice name wherever it is offered, else the first.

        Names in the order in which the space offers them.
        """
        names = dict.fromkeys(
            choice.name
            for variable in self.variables
            if not variable.is_hardware
            for choice in variable.choices
        )
        points: dict[str, Point] = {}
        for name in names:
            point = self.on_start([variable.index(name) or 0 for variable in self.variables])
            if point not in points.values():
                points[name] = point
        return points

    def assignment(self, point: Sequence[int]) -> Assignment:
        """The quantizer of every site under a point."""
        sites: dict[str, Quantizer] = {}
        for variable, index in zip(self.variables, point, strict=True):
            for site in variable.every_site:
                quantizer = variable.quantizer(site, variable.choices[index])
                if quantizer is not None:
                    sites[site.key] = quantizer
        return Assignment.of(sites)

    def sharing(self, ties: Sequence[Tie]) -> Problem:
        """The problem in which look-ups read the copy of a table that its products store.

        That is where one variable decides all of them, and none of its choices transforms the
        weight, which the product alone could undo.
        """
        return Problem(
            variables=tuple(
                replace(
                    variable,
                    tables=tuple(
                        replace(tie.look_up, role=tie.products[0].site.role)
                        for tie in ties
                        if _decides(variable, tie)
                    ),
                )
                for variable in self.variables
            )
        )

    def choices(self, point: Sequence[int]) -> tuple[str, ...]:
        """Choice names of a point."""
        return tuple(
            variable.choices[index].name
            for variable, index in zip(self.variables, point, strict=True)
        )

    def named(self, point: Sequence[int]) -> dict[str, str]:
        """Choice names of a point by variable name."""
        names = [variable.name for variable in self.variables]
        return dict(zip(names, self.choices(point), strict=True))

    def point(self, choices: Mapping[str, str]) -> Point:
        """The point of choice names by variable name.

        Raises:
            KeyError: a variable or choice that the problem does not have.
        """
        return tuple([places[choices[name]] for name, places in self._places])

    def changed(self, variable: int, choice: int) -> Assignment:
        """The assignment in which only one variable takes a choice, the rest full precision."""
        chosen = self.variables[variable]
        found = {
            site.key: chosen.quantizer(site, chosen.choices[choice]) for site in chosen.every_site
        }
        return Assignment.of({key: one for key, one in found.items() if one is not None})


def _decides(variable: Variable, tie: Tie) -> bool:
    """Whether a variable says in which format all products of a table store it."""
    keys = {site.key for site in variable.sites}
    plain = all(
        not choice.quantizers[reader.site.role].transforms
        for choice in variable.choices
        for reader in tie.products
        if reader.site.role in choice.quantizers
    )
    return plain and all(reader.site.key in keys for reader in tie.products)
