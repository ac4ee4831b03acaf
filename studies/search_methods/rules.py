"""Methods that score choices once and then follow a rule; and random."""

from __future__ import annotations

import numpy as np

from dse.explore.solve.solver import sweep
from dse.explore.solve.surrogate import Surrogate
from studies.search_methods.job import Job


def uniforms(job: Job) -> None:
    """Every method begins with these: the baseline costs the same for all."""
    job.measure(job.table.points[job.table.uniforms])


def random(job: Job) -> None:
    """Uniformly at random, without repetition."""
    uniforms(job)
    order = np.random.default_rng(job.seed).permutation(len(job.table.loss))
    job.measure(job.table.points[order[: job.trials + len(job.measured)]])


def _greedy(job: Job, surrogate: Surrogate) -> None:
    """From the least loss: always the change that saves most cost for its score."""
    uniforms(job)
    costs = [sum(parts, np.zeros(1)) for parts in zip(*job.additive, strict=True)]
    point = [int(np.argmin(losses)) for losses in surrogate.losses]
    while job.trials:
        job.measure([tuple(point)])
        moves = [
            ((costs[v][point[v]] - costs[v][c]) / max(losses[c] - losses[point[v]], 1e-12), v, c)
            for v, losses in enumerate(surrogate.losses)
            for c in range(len(losses))
            if costs[v][c] < costs[v][point[v]]
        ]
        if not moves:
            return
        _, variable, choice = max(moves)
        point[variable] = choice


def greedy_direct(job: Job) -> None:
    """Greedy with direct scores."""
    _greedy(job, job.direct())


def greedy_gradient(job: Job) -> None:
    """Greedy with gradient scores."""
    _greedy(job, job.gradient())


def _knapsack(job: Job, surrogate: Surrogate) -> None:
    uniforms(job)
    found = [p for c in job.additive for p in sweep(surrogate.losses, c, max(job.trials, 2))]
    fresh = list(dict.fromkeys(found))
    picks = np.linspace(0, len(fresh) - 1, min(job.trials, len(fresh))).round().astype(int)
    job.measure(fresh[index] for index in picks)


def knapsack_direct(job: Job) -> None:
    """Solutions at as many even budgets as can be measured, direct scores."""
    _knapsack(job, job.direct())


def knapsack_gradient(job: Job) -> None:
    """The same from gradient scores."""
    _knapsack(job, job.gradient())


def _lagrangian(job: Job, surrogate: Surrogate) -> None:
    """The least of loss + weight x cost, weights evenly on a log scale."""
    uniforms(job)
    for costs in job.additive:
        found = {
            tuple(
                int(np.argmin(losses + weight * cost))
                for losses, cost in zip(surrogate.losses, costs, strict=True)
            ): None
            for weight in np.logspace(-8, 8, 2000) / max(float(np.ptp(c)) for c in costs)
        }
        job.measure(found)


def lagrangian_direct(job: Job) -> None:
    """Lagrangian sweep with direct scores."""
    _lagrangian(job, job.direct())


def lagrangian_gradient(job: Job) -> None:
    """Lagrangian sweep with gradient scores."""
    _lagrangian(job, job.gradient())
