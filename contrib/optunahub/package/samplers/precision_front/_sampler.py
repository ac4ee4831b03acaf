"""The search method of dse as a sampler of Optuna's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from dse.explore.solve.surrogate import Surrogate
from dse.explore.study.front_sampler import FrontSampler
from dse.explore.study.proposer import SearchTask
from dse.space.problem import Choice, Problem, Variable

Table = Mapping[str, Mapping[str, float]]
"""Parameter -> choice -> a number."""


class PrecisionFrontSampler(FrontSampler):
    """Proposes the point that should enlarge the front most.

    A study has the loss first, then the costs, all to be minimised; its parameters are
    categorical. The loss of an assignment is taken for about the sum of what its choices lose
    alone, and re-fitted after every trial; costs are exact, so that the front is predicted by
    dynamic programming.

    Args:
        scores: the loss of each choice alone, whatever it was estimated by.
        costs: of each cost, what every choice adds.
        seed: of the neighbours that are tried.

    Raises:
        ValueError: a cost of other parameters or choices than the scores.
    """

    def __init__(self, scores: Table, costs: Sequence[Table], *, seed: int = 0) -> None:
        for number, cost in enumerate(costs):
            if _names(cost) != _names(scores):
                raise ValueError(
                    f"costs[{number}]: expected the parameters and choices of the scores, "
                    f"{_names(scores)}, got {_names(cost)}"
                )
        additive = [_arrays(cost, scores) for cost in costs]
        super().__init__(
            SearchTask(
                problem=_problem(scores),
                surrogate=Surrogate(losses=_arrays(scores, scores)),
                costs=lambda points: np.column_stack(
                    [
                        sum(
                            (part[points[:, place]] for place, part in enumerate(parts)),
                            np.zeros(len(points)),
                        )
                        for parts in additive
                    ]
                ),
                additive=additive,
                seed=seed,
            )
        )


def _names(table: Table) -> dict[str, list[str]]:
    return {name: sorted(choices) for name, choices in table.items()}


def _arrays(table: Table, order: Table) -> tuple[np.ndarray, ...]:
    """Numbers by parameter and choice, in the order of another table."""
    return tuple(
        np.array([table[name][choice] for choice in choices]) for name, choices in order.items()
    )


def _problem(scores: Table) -> Problem:
    return Problem(
        variables=tuple(
            Variable(
                name=name, kind="gemm", role="fc", block=None, relative_depth=0.0,
                regions=(name,), sites=(),
                choices=tuple(Choice(name=choice, quantizers={}) for choice in choices),
            )
            for name, choices in scores.items()
        )
    )  # fmt: skip
