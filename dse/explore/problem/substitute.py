"""Choices that a target runs otherwise than they are asked for: measured as what runs, or named.

Two kinds of kernel may be missing: one for the activations (the weights run in a weight-only
kernel, with 16-bit activations), or one for floats of more than 16 bits, which a runtime then
stores and multiplies in 16 (fp32 for a runtime whose models have one 16-bit type). And beside a
target that stores all tensors as its products read them, another one keeps a 16-bit stream.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from dse.errors import some
from dse.evaluate.costs import Costs
from dse.graph.ir.site import SUM_ROLE
from dse.space.build import resolve_choice
from dse.space.problem import Choice, Problem
from hwmodels.formats.element import is_wide
from hwmodels.runtimes.legality import default_element
from hwmodels.work.cost import STATUS_ORDER, Status
from hwmodels.work.role import ROLES

KEPT = ("weight", "k", "v")
"""Operands that a weight-only kernel reads in the format that was asked for."""

Place = tuple[int, int]
"""A variable and one of its choices."""
Stands = Mapping[Place, Choice]
"""Choices that run in place of others, under their names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Substitutes:
    """Choices that no target, or not every target, runs as they are asked for."""

    everywhere: Stands
    """Of choices that all targets run alike."""
    somewhere: Mapping[str, Stands]
    """Target -> what it runs otherwise than some other target does."""

    @classmethod
    def of(cls, costs: Costs) -> Substitutes:
        """Those of the cost tables of a problem."""
        first, *others = found = [_stands(costs, place) for place in range(len(costs.targets))]
        alike = {
            place: choice
            for place, choice in first.items()
            if all(other.get(place) == choice for other in others)
        }
        return cls(
            everywhere=alike,
            somewhere={
                target.label: {at: choice for at, choice in own.items() if at not in alike}
                for target, own in zip(costs.targets, found, strict=True)
            },
        )

    def applied(self, problem: Problem) -> Problem:
        """The problem whose choices are what every target runs in their place."""
        return substituted(problem, self.everywhere)

    def remarks(self, problem: Problem) -> Iterator[str]:
        """A sentence for every choice."""
        targets = tuple(self.somewhere)
        for (choice, what, _), names in _sorted(problem, {targets: self.everywhere}).items():
            yield (
                f"{choice} at {some(names)}: {', '.join(targets)} has no such kernel and runs "
                f"{what}; it is measured and priced as that"
            )
        by_target: dict[tuple[str, ...], Stands] = {
            (label,): stands for label, stands in self.somewhere.items()
        }
        for (choice, what, labels), names in _sorted(problem, by_target).items():
            yield (
                f"{choice} at {some(names)}: no such kernel on {', '.join(labels)}, which runs "
                f"{what}, and not what other targets do; these are different networks, each "
                "priced and measured as what it is (columns TARGET.quality_loss)"
            )


def _stands(costs: Costs, place: int) -> dict[Place, Choice]:
    """Choices that a target runs in place of those that were asked for."""
    target = costs.targets[place]
    wide = default_element(target.deployment.device)
    stores = target.deployment.runtime.stores_tensors
    found: dict[Place, Choice] = {}
    for _, _, table in target.table.phases:
        for region, name in enumerate(table.regions):
            variable = costs.variable_of_region[name]
            if variable is None:
                continue
            for index in range(table.choice_counts[region]):
                at, status = (variable, index), STATUS_ORDER[table.status[region, index]]
                asked = costs.problem.variables[variable].choices[index]
                runs = executed(found.get(at, asked), status, wide, stores=stores)
                if runs.quantizers != asked.quantizers:
                    found[at] = runs
    return found


def executed(choice: Choice, status: Status, wide: str, *, stores: bool = False) -> Choice:
    """The choice that runs under a status: itself, or one with operands in 16 bits.

    Args:
        choice: what is asked for.
        status: how a target runs it. `substituted` takes its activations, and what is left
            without any kernel keeps no float of more than 16 bits.
        wide: the target's 16-bit float.
        stores: whether it stores sums and means as its products read them.
    """
    floats = resolve_choice(wide).quantizers

    def runs(role: str) -> bool:
        if role == SUM_ROLE:
            return True  # who has no such accumulator refuses it
        quantizer = choice.quantizers[role]
        if status == "substituted" and ROLES[role].operands["fprop"] not in KEPT:
            return False
        return status not in ("substituted", "emulated") or not is_wide(quantizer)

    return replace(
        choice,
        quantizers={
            role: quantizer if runs(role) else floats[role]
            for role, quantizer in choice.quantizers.items()
            if ROLES[role].is_searched or role == SUM_ROLE or (stores and status != "substituted")
        },
    )


def is_narrowed(asked: Choice, runs: Choice) -> bool:
    """Whether floats of more than 16 bits are all that products run otherwise."""
    return all(
        is_wide(quantizer) or quantizer == runs.quantizers[role]
        for role, quantizer in asked.quantizers.items()
        if ROLES[role].is_searched
    )


def is_streamed(asked: Choice, runs: Choice) -> bool:
    """Whether products run as asked, and only what lies between them stays in 16 bits."""
    return all(
        quantizer == runs.quantizers[role]
        for role, quantizer in asked.quantizers.items()
        if ROLES[role].is_searched
    )


def substituted(problem: Problem, stands: Stands) -> Problem:
    """The problem with other choices at some places, under the same names."""
    if not stands:
        return problem
    return Problem(
        variables=tuple(
            replace(
                variable,
                choices=tuple(
                    stands.get((at, index), choice)
                    for index, choice in enumerate(variable.choices)
                ),
            )
            for at, variable in enumerate(problem.variables)
        )
    )


def _sorted(
    problem: Problem, stands: Mapping[tuple[str, ...], Stands]
) -> dict[tuple[str, str, tuple[str, ...]], list[str]]:
    """Names of variables by choice, what runs in its place, and the targets that run it."""
    places: dict[tuple[Place, str], list[str]] = {}
    for labels, of in stands.items():
        for (at, index), runs in of.items():
            what = _words(problem.variables[at].choices[index], runs)
            places.setdefault(((at, index), what), []).extend(labels)
    found: dict[tuple[str, str, tuple[str, ...]], list[str]] = {}
    for ((at, index), what), targets in places.items():
        variable = problem.variables[at]
        key = (variable.choices[index].name, what, tuple(targets))
        found.setdefault(key, []).append(variable.name)
    return found


def _words(asked: Choice, runs: Choice) -> str:
    """Words on what runs in place of a choice: `bf16 in place of fp32`."""
    if is_streamed(asked, runs):
        return "it with sums and means between products in 16 bits"
    if not is_narrowed(asked, runs):
        return "its weights with 16-bit activations"
    wide = {quantizer.name for quantizer in asked.quantizers.values() if is_wide(quantizer)}
    floats = {
        runs.quantizers[role].name
        for role, quantizer in asked.quantizers.items()
        if is_wide(quantizer)
    }
    return f"{', '.join(sorted(floats))} in place of {', '.join(sorted(wide))}"
