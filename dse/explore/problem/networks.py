"""The networks that targets execute: one assignment, run otherwise where a kernel is missing.

A choice that a target runs with 16-bit activations (NVFP4 on an H100) is another network there
than on a target that has the kernel. Each network has a loss of its own; assignments, digests and
exports are those of the formats that were asked for, which every target is given.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from dse.explore.problem.substitute import Place, Substitutes, substituted
from dse.graph.ir.assignment import Assignment
from dse.space.problem import Choice, Point, Problem, Variable


@dataclass(frozen=True, slots=True, kw_only=True)
class Networks:
    """The networks that targets make of a problem's points."""

    primary: str
    """The target whose network `quality_loss` is of."""
    problems: Mapping[str, Problem]
    """Target -> the problem whose quantizers are those that it executes."""
    places: Mapping[str, frozenset[Place]]
    """Target -> the choices that it executes with 16-bit activations."""

    @classmethod
    def of(
        cls, problem: Problem, substitutes: Substitutes, *, targets: Sequence[str], primary: str
    ) -> Networks:
        """The networks of a problem.

        Args:
            problem: what is asked for.
            substitutes: what targets run otherwise.
            targets: all of them, by label.
            primary: the one whose costs the search is about first.
        """
        places = {label: substitutes.on(label) for label in targets}
        return cls(
            primary=primary,
            problems={label: substituted(problem, found) for label, found in places.items()},
            places=places,
        )

    @property
    def apart(self) -> tuple[str, ...]:
        """The targets with a network, and a loss, that is not the primary one's."""
        own = self.places[self.primary]
        return tuple(label for label, places in self.places.items() if places != own)

    def stand_in(self, label: str) -> str:
        """The first target that runs the same networks; the primary one where it does."""
        own = self.places[label]
        same = (one for one in (self.primary, *self.places) if self.places[one] == own)
        return next(same)

    def choices(self, label: str) -> tuple[str, ...]:
        """The names of the choices that a target executes with 16-bit activations."""
        variables = self.problems[label].variables
        places = sorted(self.places[label])
        return tuple(dict.fromkeys(variables[at].choices[index].name for at, index in places))

    def assignment(self, label: str, point: Point) -> Assignment:
        """The assignment that a target executes in place of a point."""
        return self.problems[label].assignment(point)

    def measured(self, point: Point) -> Assignment:
        """The assignment that `quality_loss` is measured of."""
        return self.assignment(self.primary, point)

    def elsewhere(self, point: Point, labels: Sequence[str]) -> Mapping[str, Assignment]:
        """The assignments of targets, the same as `measured` where nothing differs."""
        return {label: self.assignment(label, point) for label in labels}

    def scored(self, labels: Sequence[str]) -> Problem:
        """The primary problem, with the choices that differ on other targets beside its own."""
        others = [self.named(label) for label in labels]
        return Problem(
            variables=tuple(
                _extended(variable, [other.variables[at] for other in others])
                for at, variable in enumerate(self.problems[self.primary].variables)
            )
        )

    def named(self, label: str) -> Problem:
        """The problem of a target, as `scored` names its choices."""
        pairs = zip(
            self.problems[label].variables, self.problems[self.primary].variables, strict=True
        )
        return Problem(
            variables=tuple(
                replace(
                    variable,
                    choices=tuple(
                        choice
                        if choice.quantizers == known.quantizers
                        else replace(choice, name=f"{choice.name}@{self.stand_in(label)}")
                        for choice, known in zip(variable.choices, main.choices, strict=True)
                    ),
                )
                for variable, main in pairs
            )
        )


def _extended(variable: Variable, others: Sequence[Variable]) -> Variable:
    """A variable with the choices of others that it does not name."""
    choices: dict[str, Choice] = {choice.name: choice for choice in variable.choices}
    for other in others:
        for choice in other.choices:
            choices.setdefault(choice.name, choice)
    return replace(variable, choices=tuple(choices.values()))
