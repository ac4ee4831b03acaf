"""Decision variables: regions of the model with the choices that a space offers them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from dse.graph.ir.assignment import Assignment
from dse.graph.ir.site import Site
from hwmodels.formats.quantizer import Quantizer
from hwmodels.work.role import ROLES


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
        """Number of assignments."""
        total = 1
        for variable in self.variables:
            total *= len(variable.choices)
        return total

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
        """Every variable at its first choice."""
        return (0,) * len(self.variables)

    @cached_property
    def uniforms(self) -> Mapping[str, Point]:
        """The uniform assignments: one choice name wherever it is offered, else the first.

        Names in the order in which the space offers them.
        """
        names = dict.fromkeys(
            choice.name for variable in self.variables for choice in variable.choices
        )
        points: dict[str, Point] = {}
        for name in names:
            point = tuple(variable.index(name) or 0 for variable in self.variables)
            if point not in points.values():
                points[name] = point
        return points

    def assignment(self, point: Sequence[int]) -> Assignment:
        """The quantizer of every site under a point."""
        sites: dict[str, Quantizer] = {}
        for variable, index in zip(self.variables, point, strict=True):
            quantizers = variable.choices[index].quantizers
            for site in variable.sites:
                quantizer = quantizers.get(site.role)
                if quantizer is not None:
                    sites[site.key] = quantizer
        return Assignment.of(sites)

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
        quantizers = chosen.choices[choice].quantizers
        return Assignment.of(
            {s.key: quantizers[s.role] for s in chosen.sites if s.role in quantizers}
        )
