"""The networks that targets execute: one assignment, run otherwise where a kernel is missing.

A choice that a target runs with 16-bit activations (NVFP4 on an H100), or in 16 bits altogether
(fp32 where there is no such kernel), is another network there than on a target that has it; so is
one whose sums between products stay in 16 bits, beside an NPU that stores them as integers. Each
network has a loss of its own; assignments, digests and exports are those of the formats that were
asked for, which every target is given.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from dse.explore.problem.substitute import (
    Place,
    Stands,
    Substitutes,
    is_narrowed,
    is_streamed,
    substituted,
)
from dse.graph.ir.assignment import Assignment
from dse.space.problem import Choice, Point, Problem, Variable

Way = Literal["substituted", "narrowed", "streamed"]
"""With 16-bit activations; floats of more than 16 bits in 16, and no others; as asked, with sums
and means between products in 16 bits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Networks:
    """The networks that targets make of a problem's points."""

    primary: str
    """The target whose network `quality_loss` is of."""
    problems: Mapping[str, Problem]
    """Target -> the problem whose quantizers are those that it executes."""
    asked: Problem
    """The problem in the formats that were asked for, before anything ran otherwise."""
    everywhere: Stands
    """Choices that every target runs in place of others, alike; `problems` have them."""
    stands: Mapping[str, Stands]
    """Target -> what it runs in place of choices, and some other target does not."""

    @classmethod
    def of(
        cls, asked: Problem, problem: Problem, substitutes: Substitutes, *, primary: str
    ) -> Networks:
        """The networks of a problem.

        Args:
            asked: what is asked for.
            problem: that, with what all targets run otherwise in its place.
            substitutes: what targets run otherwise.
            primary: the target whose costs the search is about first.
        """
        return cls(
            primary=primary,
            problems={
                label: substituted(problem, stands)
                for label, stands in substitutes.somewhere.items()
            },
            asked=asked,
            everywhere=substitutes.everywhere,
            stands=substitutes.somewhere,
        )

    @property
    def apart(self) -> tuple[str, ...]:
        """The targets with a network, and a loss, that is not the primary one's."""
        own = self.stands[self.primary]
        return tuple(label for label, stands in self.stands.items() if stands != own)

    def stand_in(self, label: str) -> str:
        """The first target that runs the same networks; the primary one where it does."""
        own = self.stands[label]
        same = (one for one in (self.primary, *self.stands) if self.stands[one] == own)
        return next(same)

    def choices(self, label: str, way: Way) -> tuple[str, ...]:
        """Names of the choices that a target executes otherwise, in one way."""
        stands = {**self.everywhere, **self.stands[label]}
        asked = {place: self._asked(place) for place in sorted(stands)}
        return tuple(
            dict.fromkeys(
                choice.name
                for place, choice in asked.items()
                if _way(choice, stands[place]) == way
            )
        )

    def _asked(self, place: Place) -> Choice:
        at, index = place
        return self.asked.variables[at].choices[index]

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


def _way(asked: Choice, runs: Choice) -> Way:
    if is_streamed(asked, runs):
        return "streamed"
    return "narrowed" if is_narrowed(asked, runs) else "substituted"


def _extended(variable: Variable, others: Sequence[Variable]) -> Variable:
    """A variable with the choices of others that it does not name."""
    choices: dict[str, Choice] = {choice.name: choice for choice in variable.choices}
    for other in others:
        for choice in other.choices:
            choices.setdefault(choice.name, choice)
    return replace(variable, choices=tuple(choices.values()))
