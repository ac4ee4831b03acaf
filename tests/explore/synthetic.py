"""A small search problem with a known answer, for tests of the search alone."""

from __future__ import annotations

import numpy as np

from dse.explore.solve.surrogate import Surrogate
from dse.explore.study.proposer import SearchTask
from dse.space.problem import Choice, Problem, Variable

NAMES = ("bf16", "fp8", "fp4")


def synthetic_problem(variables: int = 6) -> Problem:
    """Variables without sites: only the choices matter."""
    return Problem(
        variables=tuple(
            Variable(
                name=f"blocks.{index}/fc",
                kind="gemm",
                role="fc",
                block=index,
                relative_depth=index / max(variables - 1, 1),
                regions=(f"blocks.{index}/fc",),
                sites=(),
                choices=tuple(Choice(name=name, quantizers={}) for name in NAMES),
            )
            for index in range(variables)
        )
    )


class Truth:
    """Additive cost, and a loss with interactions between neighbours."""

    def __init__(self, problem: Problem, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        count = len(problem.variables)
        self.alone = np.cumsum(rng.gamma(0.5, 0.02, size=(count, 3)), axis=1)
        self.alone[:, 0] = 1e-6
        self.cost = np.sort(rng.uniform(0.5, 2.0, size=(count, 3)), axis=1)[:, ::-1]
        self.interaction = rng.uniform(0.0, 0.5, size=count - 1)

    def losses(self, points: np.ndarray) -> np.ndarray:
        each = np.take_along_axis(self.alone[None].repeat(len(points), 0), points[..., None], 2)
        each = each[..., 0]
        return each.sum(1) + (self.interaction * np.sqrt(each[:, 1:] * each[:, :-1])).sum(1)

    def costs(self, points: np.ndarray) -> np.ndarray:
        each = np.take_along_axis(self.cost[None].repeat(len(points), 0), points[..., None], 2)
        return each[..., 0].sum(1)


def synthetic_task(problem: Problem, truth: Truth, seed: int) -> SearchTask:
    """What a search method may know of the problem."""
    return SearchTask(
        problem=problem,
        surrogate=Surrogate(losses=tuple(truth.alone)),
        costs=lambda points: truth.costs(points)[:, None],
        additive=[list(truth.cost)],
        seed=seed,
    )
