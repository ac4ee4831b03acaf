"""Scores of one network's regions as scores of another's: a small proxy for a large model."""

from __future__ import annotations

from collections import Counter

import numpy as np

from dse.errors import SpaceError
from dse.explore.solve.surrogate import Surrogate
from dse.space.problem import Problem, Variable


def scores_from_proxy(surrogate: Surrogate, proxy: Problem, problem: Problem) -> Surrogate:
    """The surrogate of a proxy as one of another problem.

    A variable is scored as the proxy's of the same kind and role that is nearest in relative
    depth. What one of the proxy's loses is shared by all that it stands for, so that a uniform
    assignment loses as much as on the proxy. A variable without a choice loses nothing.

    Args:
        surrogate: losses of the proxy's choices.
        proxy: its decision variables.
        problem: those that want losses.

    Raises:
        SpaceError: a role, or a choice of one, that the proxy has not scored.
    """
    searched = [v for v in problem.variables if len(v.choices) > 1]
    counterparts = {variable.name: _counterpart(variable, proxy) for variable in searched}
    shared = Counter(counterparts.values())
    losses = []
    for variable in problem.variables:
        place = counterparts.get(variable.name)
        if place is None:
            losses.append(np.zeros(1))
            continue
        known = {
            choice.name: loss
            for choice, loss in zip(
                proxy.variables[place].choices, surrogate.losses[place].tolist(), strict=True
            )
        }
        losses.append(np.array([known[c.name] for c in variable.choices]) / shared[place])
    return Surrogate(losses=tuple(losses))


def _counterpart(variable: Variable, proxy: Problem) -> int:
    """Index of the proxy's variable that stands for one."""
    alike = [
        index
        for index, known in enumerate(proxy.variables)
        if (known.kind, known.role) == (variable.kind, variable.role)
    ]
    if not alike:
        roles = sorted({f"{v.kind} {v.role}" for v in proxy.variables})
        raise SpaceError(
            f"{variable.name}: the proxy has no region of kind {variable.kind} and role "
            f"{variable.role} (it has {', '.join(roles)}); offer this one a single choice, or "
            "score it in a table"
        )
    wanted = [choice.name for choice in variable.choices]
    offering = [
        index
        for index in alike
        if {choice.name for choice in proxy.variables[index].choices}.issuperset(wanted)
    ]
    if not offering:
        known = {choice.name for index in alike for choice in proxy.variables[index].choices}
        missing = next((name for name in wanted if name not in known), wanted[0])
        raise SpaceError(
            f"{variable.name}: the proxy has not scored {missing!r} for role {variable.role} "
            f"(it has {', '.join(sorted(known))}); search the proxy with the same candidates"
        )
    depths = [
        abs(proxy.variables[index].relative_depth - variable.relative_depth) for index in offering
    ]
    return offering[int(np.argmin(depths))]
