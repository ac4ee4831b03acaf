"""The sampler that refines a front: proposals by predicted hypervolume gain."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.trial import FrozenTrial, TrialState

from dse.explore.problem.hardware import Grid
from dse.explore.solve.front import nondominated
from dse.explore.solve.gain import gains
from dse.explore.solve.points import decoded, encoded
from dse.explore.solve.solver import pareto
from dse.explore.solve.surrogate import Surrogate
from dse.explore.study.proposer import SearchTask
from dse.explore.study.study import (
    PROPOSED,
    distributions,
    failed_points,
    known_losses,
    queue,
    running_points,
    trial_point,
)
from dse.space.problem import Point

PROPOSALS = 256
"""Neighbours of the front that are scored for one proposal."""
SOLVED = 256
"""Points of each predicted front among them."""
MACHINES = 12
"""Hardware points whose own fronts are predicted for one proposal, where hardware varies."""
SCORED = 48
"""Candidates whose hypervolume is worked out then, in as many dimensions as there are costs."""
MIXTURES = 2
"""Random mixtures of costs whose front is predicted too, where there is more than one cost."""


class FrontSampler(BaseSampler):
    """Proposes the point that should enlarge the front most.

    The surrogate is re-fitted to all completed trials, neighbours of the front and the fronts that
    the new fit predicts are scored by the hypervolume that their predicted loss and exact cost
    would add, and the best that is not measured yet is proposed. What is being measured elsewhere
    counts as if it came out as predicted, so that workers of one study spread out. A proposal
    depends on the seed and on what is settled and pending alone, so that a resumed study continues
    as it would have.

    Args:
        task: what is searched. Gains of its fronts are added up, each as a share of its box.
    """

    def __init__(self, task: SearchTask) -> None:
        self._task = task
        self._problem = task.problem
        self._independent = RandomSampler(seed=task.seed)
        self._known: WeakKeyDictionary[optuna.Study, dict[int, bytes]] = WeakKeyDictionary()

    @cached_property
    def _space(self) -> Mapping[str, BaseDistribution]:
        return distributions(self._problem)

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """All variables at once; none for a trial that was queued with its parameters."""
        return {} if len(trial.params) == len(self._space) else dict(self._space)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The proposal, or nothing while no trial is complete."""
        point = self.next_point(study, but=trial.number) if search_space else None
        return {} if point is None else self._problem.named(point)

    def next_point(self, study: optuna.Study, *, but: int | None = None) -> Point | None:
        """The point that a study should measure next; None while no trial is complete.

        Args:
            study: what is settled and pending.
            but: the trial that asks, which is not pending.
        """
        trials = study.get_trials(deepcopy=False)
        count = len(self._task.surrogates)
        done = [(one, found) for one in trials if (found := known_losses(one, count)) is not None]
        if not done:
            return None
        known = self._known.setdefault(study, {})
        for one, _ in done:
            if one.number not in known:
                known[one.number] = encoded(np.array([trial_point(one, self._problem)]))[0]
        # In the order of the points, not of the trials: a resumed study measures the same points
        # in another order, and must propose the same.
        ordered = sorted((known[one.number], losses) for one, losses in done)
        points = decoded([code for code, _ in ordered], len(self._space))
        values = np.column_stack([[losses for _, losses in ordered], self._task.costs(points)])
        pending = sorted(running_points(trials, self._problem, but=but))
        return self.proposal(points, values, pending, failed_points(trials, self._problem))

    def queue_next(self, study: optuna.Study) -> None:
        """Queue the next point where nothing is queued: the trial that is asked for then takes it.

        The same point as `sample_relative` proposes, and many times faster with many variables
        (`dse.explore.study.study.queue`).
        """
        if study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
            return
        point = self.next_point(study)
        if point is not None:
            queue(study, self._problem.named(point), self._space, source=PROPOSED)

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
        rng = np.random.default_rng([self._task.seed, len(points) + len(pending) + len(failed)])
        losses = len(self._task.surrogates)
        fitted = [
            one.refitted(points, values[:, place])
            for place, one in enumerate(self._task.surrogates)
        ]
        known = {*self._codes(points), *self._codes(np.array([*pending, *failed], dtype=np.int64))}
        if pending:
            waiting = np.array(pending)
            believed = self._believed(fitted, waiting)
            points, values = np.vstack([points, waiting]), np.vstack([values, believed])
        finite = np.isfinite(values).all(axis=1)
        points, values = points[finite], values[finite]
        if not len(points):
            return self._unknown(known, rng)
        if self._task.grid is not None:
            front = self._task.grid.expanded(points, values[:, :losses])
            return self._on_hardware(self._task.grid, fitted, front, known, rng)
        usable = self._task.allowed(points, values[:, :losses])
        # While nothing satisfies the constraints, whatever is near the front leads there.
        points, values = (points[usable], values[usable]) if usable.any() else (points, values)
        elite = points[nondominated(values)]
        pool = {*encoded(self._neighbours(elite, rng)), *self._solutions(fitted, rng)}
        fresh = sorted(pool - known) or encoded(np.array([self._unknown(known, rng)]))
        candidates = decoded(fresh, points.shape[1])
        predicted = self._believed(fitted, candidates)
        allowed = self._task.allowed(candidates, predicted[:, :losses])
        wanted = allowed & self._task.focused(candidates, predicted[:, :losses])
        kept = np.flatnonzero(next(mask for mask in (wanted, allowed, ~allowed) if mask.any()))
        worth = gains(predicted[kept], values, self._task.fronts, losses=losses)
        best = kept[np.argmax(worth)]
        return tuple(candidates[best].tolist())

    def _on_hardware(
        self,
        grid: Grid,
        fitted: Sequence[Surrogate],
        front: tuple[np.ndarray, np.ndarray],
        known: Collection[bytes],
        rng: np.random.Generator,
    ) -> Point:
        """The assignment to measure next, with the hardware on which it should gain most.

        Args:
            grid: the hardware points.
            fitted: surrogates.
            front: what was measured on every hardware point, since that needs no measurement.
            known: codes of what need not be proposed.
            rng: for candidates.
        """
        elite, values = front
        if not len(elite):
            # Nothing satisfies the constraints yet: what is predicted to leads there.
            elite, values = grid.predicted(fitted)
        hardware = grid.hardware_of(elite)
        drawn = rng.permutation(len(hardware))[:MACHINES]
        solved = [grid.solutions(hardware[place], fitted, SOLVED // 4) for place in drawn]
        pool = np.unique(np.concatenate([self._neighbours(elite, rng), *solved]), axis=0)
        codes = self._codes(pool)
        fresh = pool[[code not in known for code in codes]]
        predicted = self._believed(fitted, fresh)
        kept = np.isfinite(predicted).all(axis=1)
        kept &= self._task.allowed(fresh, predicted[:, : len(fitted)])
        fresh, predicted = fresh[kept], predicted[kept]
        if not len(fresh):
            return self._unknown(known, rng)
        wanted = self._task.focused(fresh, predicted[:, : len(fitted)])
        if wanted.any():
            fresh, predicted = fresh[wanted], predicted[wanted]
        gaining = nondominated(np.vstack([predicted, values]))[: len(fresh)]
        best = np.flatnonzero(gaining if gaining.any() else ~gaining)
        if len(best) > SCORED:
            best = np.sort(rng.permutation(best)[:SCORED])
        worth = gains(predicted[best], values, self._task.fronts, losses=len(fitted))
        return tuple(fresh[best[np.argmax(worth)]].tolist())

    def _codes(self, points: np.ndarray) -> list[bytes]:
        """Codes of what is measured: the same for all hardware."""
        if not self._problem.hardware or not len(points):
            return encoded(points)
        on_start = np.array(points)
        on_start[:, list(self._problem.hardware)] = [
            self._problem.variables[place].start for place in self._problem.hardware
        ]
        return encoded(on_start)

    def _believed(self, fitted: Sequence[Surrogate], points: np.ndarray) -> np.ndarray:
        """(points, objectives): predicted losses, exact costs."""
        losses = [one.predict(points) for one in fitted]
        return np.column_stack([*losses, self._task.costs(points)])

    def _neighbours(self, elite: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Points that differ from the front in one or two variables, or mix two of its points."""
        sizes = np.array([len(variable.choices) for variable in self._problem.variables])
        found = np.empty((PROPOSALS, len(sizes)), dtype=np.int64)
        for point in found:
            point[:] = elite[rng.integers(len(elite))]
            if rng.random() < 0.3:
                other = elite[rng.integers(len(elite))]
                mask = rng.random(len(point)) < 0.5
                point[mask] = other[mask]
            count = min(len(sizes), 1 + int(rng.random() < 0.5))
            for column in rng.choice(len(sizes), size=count):
                point[column] = rng.integers(sizes[column])
        return found

    def _solutions(self, fitted: Sequence[Surrogate], rng: np.random.Generator) -> set[bytes]:
        """The predicted front of loss against each cost, and against random mixtures of them.

        Against a cost counts the loss of its own target; against a mixture the first.
        """
        found: set[bytes] = set()
        spans = [sum(float(np.ptp(entries)) for entries in costs) for costs in self._task.additive]
        weights = np.eye(len(spans))
        if len(spans) > 1:
            weights = np.vstack([weights, rng.dirichlet(np.ones(len(spans)), size=MIXTURES)])
        owners = self._task.loss_of_cost or (0,) * len(spans)
        for place, row in enumerate(weights / np.maximum(spans, np.finfo(float).tiny)):
            surrogate = fitted[owners[place]] if place < len(owners) else fitted[0]
            mixed = [
                sum((w * entries for w, entries in zip(row, parts, strict=True)), np.zeros(1))
                for parts in zip(*self._task.additive, strict=True)
            ]
            found.update(encoded(pareto(surrogate.losses, mixed, limit=SOLVED)))
        return found

    def _unknown(self, known: Collection[bytes], rng: np.random.Generator) -> Point:
        """A random point that is not known; if chance meets none, whichever it met last."""
        sizes = [len(variable.choices) for variable in self._problem.variables]
        for _ in range(PROPOSALS):
            point = np.array([[int(rng.integers(size)) for size in sizes]])
            if self._codes(point)[0] not in known:
                break
        return tuple(point[0].tolist())
