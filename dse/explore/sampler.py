"""The sampler that refines a front: proposals by predicted hypervolume gain."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.trial import FrozenTrial, TrialState

from dse.explore.front import improvements, nondominated
from dse.explore.solver import pareto
from dse.explore.study import distributions, failed_points, running_points, trial_point
from dse.explore.surrogate import Surrogate
from dse.space.problem import Point, Problem

PROPOSALS = 256
"""Neighbours of the front that are scored for one proposal."""
SOLVED = 256
"""Points of each predicted front among them."""
MIXTURES = 2
"""Random mixtures of costs whose front is predicted too, where there is more than one cost."""
CostFunction = Callable[[np.ndarray], np.ndarray]
"""(points, variables) choice indices -> (points, cost objectives), exact."""
Fronts = Callable[[np.ndarray], Mapping[str, np.ndarray]]
"""(points, objectives) -> name -> (points, objectives of that front)."""
Mask = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""(points, variables) and (points,) losses -> (points,) booleans."""


class FrontSampler(BaseSampler):
    """Proposes the point that should enlarge the front most.

    The surrogate is re-fitted to all completed trials, neighbours of the front and the fronts that
    the new fit predicts are scored by the hypervolume that their predicted loss and exact cost
    would add, and the best that is not measured yet is proposed. What is being measured elsewhere
    counts as if it came out as predicted, so that workers of one study spread out. A proposal
    depends on the seed and on what is settled and pending alone, so that a resumed study continues
    as it would have.

    Args:
        problem: the decision variables.
        prior: the surrogate before any measurement.
        costs: exact cost objectives of points.
        additive: what the cost objectives are made of, for the solver: one array of choices a
            variable, for each cost objective.
        seed: of the random part.
        fronts: objective values as the fronts that count, by name; their gains are added up, each
            as a share of its box. By default one front with all objectives.
        allowed: (points, losses) -> mask of the points that may be on a front.
    """

    def __init__(
        self,
        problem: Problem,
        prior: Surrogate,
        costs: CostFunction,
        additive: Sequence[Sequence[np.ndarray]],
        *,
        seed: int,
        fronts: Fronts = lambda values: {"": values},
        allowed: Mask = lambda points, losses: np.ones(len(points), dtype=bool),
    ) -> None:
        self._problem = problem
        self._prior = prior
        self._costs = costs
        self._additive = additive
        self._seed = seed
        self._fronts = fronts
        self._allowed = allowed
        self._independent = RandomSampler(seed=seed)

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """All variables at once."""
        return dict(distributions(self._problem))

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The proposal, or nothing while no trial is complete."""
        trials = study.get_trials(deepcopy=False)
        done = [one for one in trials if one.state == TrialState.COMPLETE]
        if not done or not search_space:
            return {}
        pending = sorted(running_points(trials, self._problem, but=trial.number))
        failed = failed_points(trials, self._problem)
        # In the order of the points, not of the trials: a resumed study measures the same points
        # in another order, and must propose the same.
        ordered = sorted((trial_point(one, self._problem), one.values[0]) for one in done)
        points = np.array([point for point, _ in ordered])
        losses = np.array([loss for _, loss in ordered])
        values = np.column_stack([losses, self._costs(points)])
        point = self.proposal(points, values, pending, failed)
        names = self._problem.choices(point)
        return {v.name: name for v, name in zip(self._problem.variables, names, strict=True)}

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """A random value: only for parameters that are not the problem's."""
        return self._independent.sample_independent(study, trial, param_name, param_distribution)

    def proposal(
        self,
        points: np.ndarray,
        values: np.ndarray,
        pending: Sequence[Point],
        failed: Collection[Point],
    ) -> Point:
        """The point to measure next.

        Args:
            points: (points, variables) that are measured.
            values: (points, objectives) of them.
            pending: points that are being measured.
            failed: points that another try would fail for, too.
        """
        rng = np.random.default_rng([self._seed, len(points) + len(pending) + len(failed)])
        surrogate = self._prior.refitted(points, values[:, 0])
        measured = set(map(tuple, points.tolist()))
        if pending:
            waiting = np.array(pending)
            believed = np.column_stack([surrogate.predict(waiting), self._costs(waiting)])
            points, values = np.vstack([points, waiting]), np.vstack([values, believed])
        finite = np.isfinite(values).all(axis=1)
        points, values = points[finite], values[finite]
        usable = self._allowed(points, values[:, 0])
        # While nothing satisfies the constraints, whatever is near the front leads there.
        points, values = (points[usable], values[usable]) if usable.any() else (points, values)
        elite = points[nondominated(values)]
        pool = self._neighbours(elite, rng) | self._solutions(surrogate, rng)
        fresh = sorted(pool - measured - {*pending, *failed}) or [self._random(rng)]
        candidates = np.array(fresh)
        predicted = np.column_stack([surrogate.predict(candidates), self._costs(candidates)])
        allowed = self._allowed(candidates, predicted[:, 0])
        kept = np.flatnonzero(allowed if allowed.any() else ~allowed)
        return fresh[int(kept[np.argmax(self._gains(predicted[kept], values))])]

    def _gains(self, predicted: np.ndarray, values: np.ndarray) -> np.ndarray:
        """What each predicted point would add to the hypervolume of what is measured.

        Where none should help, how near it comes to helping: negative.
        """
        total = np.zeros(len(predicted))
        missed = np.full(len(predicted), np.inf)
        wanted, known = self._fronts(predicted), self._fronts(values)
        for name, measured in known.items():
            front = measured[nondominated(measured)]
            reference = measured.max(axis=0) * (1 + 1e-6)
            scale = np.where(reference > 0, reference, 1.0)  # losses can be negative
            box = np.prod(scale)
            total += improvements(wanted[name], front, reference) / box
            distance = np.max((wanted[name][:, None] - front[None]) / scale, axis=2).min(axis=1)
            missed = np.minimum(missed, distance)
        return total if total.max() > 0 else -missed

    def _neighbours(self, elite: np.ndarray, rng: np.random.Generator) -> set[Point]:
        """Points that differ from the front in one or two variables, or mix two of its points."""
        sizes = np.array([len(variable.choices) for variable in self._problem.variables])
        found: set[Point] = set()
        for _ in range(PROPOSALS):
            parent = elite[rng.integers(len(elite))].copy()
            if rng.random() < 0.3:
                other = elite[rng.integers(len(elite))]
                mask = rng.random(len(parent)) < 0.5
                parent[mask] = other[mask]
            for column in rng.choice(
                len(sizes), size=min(len(sizes), 1 + int(rng.random() < 0.5))
            ):
                parent[column] = rng.integers(sizes[column])
            found.add(tuple(parent.tolist()))
        return found

    def _solutions(self, surrogate: Surrogate, rng: np.random.Generator) -> set[Point]:
        """The predicted front of loss against each cost, and against random mixtures of them."""
        found: set[Point] = set()
        spans = [sum(float(np.ptp(entries)) for entries in costs) for costs in self._additive]
        weights = np.eye(len(spans))
        if len(spans) > 1:
            weights = np.vstack([weights, rng.dirichlet(np.ones(len(spans)), size=MIXTURES)])
        for row in weights / np.maximum(spans, np.finfo(float).tiny):
            mixed = [
                sum((w * entries for w, entries in zip(row, parts, strict=True)), np.zeros(1))
                for parts in zip(*self._additive, strict=True)
            ]
            found.update(pareto(surrogate.losses, mixed, limit=SOLVED))
        return found

    def _random(self, rng: np.random.Generator) -> Point:
        return tuple(int(rng.integers(len(v.choices))) for v in self._problem.variables)


def named_sampler(name: str, seed: int) -> BaseSampler:
    """One of Optuna's own samplers, by the name that a space file uses."""
    match name:
        case "nsga2":
            return optuna.samplers.NSGAIISampler(seed=seed)
        case "nsga3":
            return optuna.samplers.NSGAIIISampler(seed=seed)
        case "tpe":
            return optuna.samplers.TPESampler(seed=seed, multivariate=True)
        case "gp":
            return optuna.samplers.GPSampler(seed=seed)
        case _:
            return RandomSampler(seed=seed)
