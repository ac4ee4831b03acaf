"""Choices that a target runs with 16-bit activations: measured as what runs, or named."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from dse.evaluate.costs import Costs
from dse.space.build import resolve_choice
from dse.space.problem import Choice, Problem
from hwmodels.work.cost import STATUS_ORDER
from hwmodels.work.role import ROLES

SUBSTITUTED = STATUS_ORDER.index("substituted")
WIDE = "bf16"
NAMED = 3
"""Variables that a remark names."""
KEPT = ("weight", "k", "v")
"""Operands that a weight-only kernel reads in the format that was asked for."""

Place = tuple[int, int]
"""A variable and one of its choices."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Substitutes:
    """Choices that no target, or not every target, runs as they are asked for."""

    everywhere: Mapping[Place, tuple[str, ...]]
    """With the targets: all of them."""
    somewhere: Mapping[Place, tuple[str, ...]]
    """With the targets that run them otherwise than the rest."""

    @classmethod
    def of(cls, costs: Costs) -> Substitutes:
        """Those of the cost tables of a problem."""
        found: dict[Place, dict[str, None]] = {}
        for target in costs.targets:
            for _, _, table in target.table.phases:
                for region, name in enumerate(table.regions):
                    variable = costs.variable_of_region[name]
                    if variable is None:
                        continue
                    for choice in range(table.choice_counts[region]):
                        status = table.status[region, choice]
                        if status == SUBSTITUTED and _differs(costs.problem, variable, choice):
                            found.setdefault((variable, choice), {})[target.label] = None
        labels = {place: tuple(targets) for place, targets in found.items()}
        count = len(costs.targets)
        return cls(
            everywhere={place: names for place, names in labels.items() if len(names) == count},
            somewhere={place: names for place, names in labels.items() if len(names) < count},
        )

    def on(self, target: str) -> frozenset[Place]:
        """The choices that a target runs otherwise than some other target does."""
        return frozenset(place for place, labels in self.somewhere.items() if target in labels)

    def applied(self, problem: Problem) -> Problem:
        """The problem whose choices are what every target runs in their place."""
        return substituted(problem, self.everywhere)

    def remarks(self, problem: Problem) -> Iterator[str]:
        """A sentence for every choice."""
        for (choice, targets), names in _by_choice(problem, self.everywhere).items():
            yield (
                f"{choice} at {_some(names)}: {targets} has no such kernel and runs its "
                "weights with 16-bit activations; it is measured and priced as that"
            )
        for (choice, targets), names in _by_choice(problem, self.somewhere).items():
            yield (
                f"{choice} at {_some(names)}: no such kernel on {targets}: its weights run there "
                "with 16-bit activations, on the other targets as asked; these are different "
                "networks, each priced and measured as what it is (columns TARGET.quality_loss)"
            )


def _some(names: Sequence[str]) -> str:
    """The first of them, and how many more there are: large models have hundreds."""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def weights_alone(choice: Choice) -> Choice:
    """A choice whose activations stay in 16 bits."""
    wide = resolve_choice(WIDE).quantizers
    return replace(
        choice,
        quantizers={
            role: quantizer if ROLES[role].operands["fprop"] in KEPT else wide[role]
            for role, quantizer in choice.quantizers.items()
        },
    )


def _differs(problem: Problem, variable: int, choice: int) -> bool:
    """Whether a choice has other activations than 16-bit ones."""
    found = problem.variables[variable].choices[choice]
    return weights_alone(found).quantizers != found.quantizers


def substituted(problem: Problem, places: Collection[Place]) -> Problem:
    """The problem whose choices at some places keep their weights alone."""
    if not places:
        return problem
    return Problem(
        variables=tuple(
            replace(
                variable,
                choices=tuple(
                    weights_alone(choice) if (at, index) in places else choice
                    for index, choice in enumerate(variable.choices)
                ),
            )
            for at, variable in enumerate(problem.variables)
        )
    )


def _by_choice(
    problem: Problem, places: Mapping[Place, tuple[str, ...]]
) -> dict[tuple[str, str], list[str]]:
    """Names of variables by choice and targets."""
    found: dict[tuple[str, str], list[str]] = {}
    for (at, index), targets in places.items():
        variable = problem.variables[at]
        key = (variable.choices[index].name, ", ".join(targets))
        found.setdefault(key, []).append(variable.name)
    return found
