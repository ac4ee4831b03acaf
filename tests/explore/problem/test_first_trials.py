"""What is measured before any sampler speaks."""

import numpy as np

from dse.explore.problem.first_trials import planned_points
from dse.explore.solve.solver import Budget
from dse.explore.solve.surrogate import Surrogate
from tests.explore.synthetic import Truth, synthetic_problem


def test_uniforms_come_first_and_solutions_share_what_is_left() -> None:
    problem = synthetic_problem()
    truth = Truth(problem)
    surrogate = Surrogate(losses=tuple(truth.alone))
    planned = planned_points(problem, [surrogate], [list(truth.cost)], [], trials=23, budgets=16)
    sources = list(planned.values())
    assert list(planned)[:3] == list(problem.uniforms.values())
    assert sources[:3] == ["uniform"] * 3
    assert sources[3:] == ["surrogate"] * (len(sources) - 3)
    assert 3 < len(sources) <= 3 + 10


def test_solutions_respect_a_budget_that_uniforms_may_break() -> None:
    problem = synthetic_problem()
    truth = Truth(problem)
    limit = float(truth.cost.mean(axis=1).sum())
    budget = Budget(costs=tuple(truth.cost), limit=limit)
    surrogate = Surrogate(losses=tuple(truth.alone))
    planned = planned_points(
        problem, [surrogate], [list(truth.cost)], [budget], trials=30, budgets=8
    )
    solved = np.array([point for point, source in planned.items() if source == "surrogate"])
    assert len(solved)
    assert (truth.costs(solved) <= limit * (1 + 1e-6)).all()
    assert truth.costs(np.array([problem.fallback]))[0] > limit
