"""The knapsack against full enumeration, and its failure modes."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dse.explore.solve.front import hypervolume, nondominated
from dse.explore.solve.solver import MANY, Budget, pareto, solve, sweep


def _tables(seed: int, variables: int = 5, choices: int = 3) -> tuple[list, list]:
    rng = np.random.default_rng(seed)
    losses = [rng.random(choices) ** 3 for _ in range(variables)]
    costs = [rng.random(choices) + 0.1 for _ in range(variables)]
    return losses, costs


def _total(tables: list, point: tuple[int, ...]) -> float:
    return sum(float(entries[index]) for entries, index in zip(tables, point, strict=True))


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 10_000), tightness=st.floats(0.05, 0.95))
def test_solution_is_the_best_of_all_points_within_the_budget(seed: int, tightness: float) -> None:
    losses, costs = _tables(seed)
    points = list(product(range(3), repeat=5))
    all_costs = [_total(costs, point) for point in points]
    limit = min(all_costs) + tightness * (max(all_costs) - min(all_costs))
    best = min(
        _total(losses, point)
        for point, cost in zip(points, all_costs, strict=True)
        if cost <= limit
    )
    found = solve(losses, [Budget(costs=tuple(costs), limit=limit)])
    assert found is not None
    assert _total(costs, found) <= limit * (1 + 1e-6)
    assert _total(losses, found) == pytest.approx(best, rel=1e-3, abs=1e-9)


def test_an_impossible_budget_has_no_solution() -> None:
    losses, costs = _tables(0)
    assert solve(losses, [Budget(costs=tuple(costs), limit=-1.0)]) is None


def test_sweep_reaches_both_ends_and_respects_constraints() -> None:
    losses, costs = _tables(1)
    points = sweep(losses, costs, 8)
    cheapest = sum(float(entries.min()) for entries in costs)
    least = sum(float(entries.min()) for entries in losses)
    assert min(_total(costs, point) for point in points) == pytest.approx(cheapest)
    assert min(_total(losses, point) for point in points) == pytest.approx(least)
    limit = (cheapest + max(_total(costs, point) for point in points)) / 2
    bound = Budget(costs=tuple(costs), limit=limit)
    constrained = sweep(losses, costs, 8, constraints=[bound])
    assert constrained
    assert all(_total(costs, point) <= limit * (1 + 1e-6) for point in constrained)


def test_losses_of_tiny_scale_are_still_told_apart() -> None:
    losses = [np.array([1e-9, 5e-9]), np.array([3e-9, 1e-9])]
    assert solve(losses, []) == (0, 1)


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 10_000))
def test_pareto_is_the_front_of_all_points(seed: int) -> None:
    losses, costs = _tables(seed)
    points = list(product(range(3), repeat=5))
    values = np.array([[_total(costs, point), _total(losses, point)] for point in points])
    front = values[nondominated(values)]
    found = np.array([[_total(costs, p), _total(losses, p)] for p in pareto(losses, costs)])
    np.testing.assert_allclose(found, front[np.argsort(front[:, 0])])


def test_a_thinned_pareto_keeps_both_extremes_and_most_of_the_area() -> None:
    losses, costs = _tables(0, variables=40)
    exact, thinned = pareto(losses, costs, limit=4096), pareto(losses, costs, limit=64)
    assert len(thinned) <= 64
    for point in (thinned[0], exact[0]):
        assert _total(costs, point) == pytest.approx(sum(float(x.min()) for x in costs))
    assert _total(losses, thinned[-1]) == pytest.approx(sum(float(x.min()) for x in losses))
    areas = []
    for points in (thinned, exact):
        values = np.array([[_total(costs, p), _total(losses, p)] for p in points])
        areas.append(hypervolume(values, np.array([30.0, 30.0])))
    assert areas[0] > 0.99 * areas[1]


@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 10_000), digits=st.sampled_from([1, 8]))
def test_the_front_of_many_variables_is_best_at_every_price(seed: int, digits: int) -> None:
    losses, costs = _tables(seed, variables=MANY + 1, choices=4)
    # Few digits make ties.
    losses, costs = ([np.round(x, digits) for x in tables] for tables in (losses, costs))
    found = pareto(losses, costs, limit=10_000)
    values = np.array([[_total(losses, p), _total(costs, p)] for p in found])
    assert (np.diff(values[:, 0]) < 0).all()
    assert (np.diff(values[:, 1]) > 0).all()
    for price in np.logspace(-3, 3, 25):
        best = sum(float((x + price * y).min()) for x, y in zip(losses, costs, strict=True))
        assert (values @ [1.0, price]).min() == pytest.approx(best)
