"""Optuna's own samplers, from the uniforms on or seeded with solutions of a knapsack."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import optuna

from dse.explore.solve.solver import sweep
from dse.explore.solve.surrogate import Surrogate
from dse.explore.study.study import distributions
from dse.space.problem import Point
from studies.search_methods.job import Job, problem_of

PATIENCE = 400
"""Proposals of known assignments in a row after which a method has nothing new."""
POPULATION = 16
"""Of NSGA-II: what fits such budgets."""


def optimise(job: Job, sampler: optuna.samplers.BaseSampler, first: Iterable[Point]) -> None:
    """An Optuna study over the table until the budget is spent."""
    problem = problem_of(job.table)
    study = optuna.create_study(directions=["minimize"] * job.values.shape[1], sampler=sampler)
    space = distributions(problem)
    for point in dict.fromkeys(tuple(int(i) for i in p) for p in first):
        names = problem.choices(point)
        study.enqueue_trial({v.name: n for v, n in zip(problem.variables, names, strict=True)})
    idle = 0
    while job.trials and idle < PATIENCE:
        trial = study.ask(space)
        point = problem.point(trial.params)
        known = len(job.measured)
        job.measure([point])
        idle = 0 if len(job.measured) > known else idle + 1
        study.tell(trial, list(job.values[job.table.number(np.array(point))]))


def tpe(job: Job) -> None:
    """Optuna's multi-objective TPE."""
    sampler = optuna.samplers.TPESampler(seed=job.seed, multivariate=True)
    optimise(job, sampler, job.table.points[job.table.uniforms])


def nsga2(job: Job) -> None:
    """Optuna's NSGA-II with a population that fits such budgets."""
    sampler = optuna.samplers.NSGAIISampler(seed=job.seed, population_size=POPULATION)
    optimise(job, sampler, job.table.points[job.table.uniforms])


def gp(job: Job) -> None:
    """Optuna's Gaussian process with expected hypervolume improvement."""
    sampler = optuna.samplers.GPSampler(seed=job.seed)
    optimise(job, sampler, job.table.points[job.table.uniforms])


def _nsga2_seeded(job: Job, surrogate: Surrogate) -> None:
    """NSGA-II that begins with uniforms and knapsack solutions."""
    found = [p for c in job.additive for p in sweep(surrogate.losses, c, 12)]
    sampler = optuna.samplers.NSGAIISampler(seed=job.seed, population_size=POPULATION)
    optimise(job, sampler, [*job.table.points[job.table.uniforms], *found])


def nsga2_seeded_direct(job: Job) -> None:
    """Seeded NSGA-II with direct scores."""
    _nsga2_seeded(job, job.direct())


def nsga2_seeded_gradient(job: Job) -> None:
    """Seeded NSGA-II with gradient scores."""
    _nsga2_seeded(job, job.gradient())
