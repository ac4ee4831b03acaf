"""Optuna's own samplers, from the uniforms on or seeded with solutions of a knapsack."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import optuna

from dse.explore.solve.solver import sweep
from dse.explore.solve.surrogate import Surrogate
from dse.explore.study.study import distributions
from dse.space.problem import Point
from studies.search_methods.job import Job, problem_of
from studies.search_methods.truth import limit_of, logarithms

PATIENCE = 400
"""Proposals of known assignments in a row after which a method has nothing new."""
POPULATION = 16
"""Of NSGA-II: what fits such budgets."""


AT_ONCE = 4
"""Trials that are running together, where a method is asked for several at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """The way in which a sampler is asked, and what it is told."""

    at_once: int = 1
    """Trials that are asked for before any of them is told."""
    logs: bool = False
    """Losses are told by their logarithm."""
    limited: bool = False
    """A loss above `limit_of` the table violates a constraint."""


PLAIN = Asking()


def optimise(
    job: Job,
    sampler: optuna.samplers.BaseSampler,
    first: Iterable[Point],
    asking: Asking = PLAIN,
) -> None:
    """An Optuna study over the table until the budget is spent."""
    problem = problem_of(job.table)
    study = optuna.create_study(directions=["minimize"] * job.values.shape[1], sampler=sampler)
    space = distributions(problem)
    for point in dict.fromkeys(tuple(int(i) for i in p) for p in first):
        names = problem.choices(point)
        study.enqueue_trial({v.name: n for v, n in zip(problem.variables, names, strict=True)})
    logs = logarithms(job.table, job.values)
    told = logs if asking.logs else job.values
    most = logarithms(job.table, np.array([[limit_of(job.table)]]))[0, 0]
    idle = 0
    while job.trials and idle < PATIENCE:
        asked = []
        for _ in range(min(asking.at_once, job.trials)):
            trial = study.ask(space)
            asked.append((trial, problem.point(trial.params)))
        known = len(job.measured)
        job.measure([point for _, point in asked])
        idle = 0 if len(job.measured) > known else idle + len(asked)
        for trial, point in asked:
            number = job.table.number(np.array(point))
            if asking.limited:
                trial.set_constraint("loss", logs[number, 0] - most)
            study.tell(trial, list(told[number]))


def tpe(job: Job) -> None:
    """Optuna's multi-objective TPE."""
    sampler = optuna.samplers.TPESampler(seed=job.seed, multivariate=True)
    optimise(job, sampler, job.table.points[job.table.uniforms])


def tpe_logs(job: Job) -> None:
    """The same, told the logarithms of losses."""
    sampler = optuna.samplers.TPESampler(seed=job.seed, multivariate=True)
    optimise(job, sampler, job.table.points[job.table.uniforms], Asking(logs=True))


def nsga2(job: Job) -> None:
    """Optuna's NSGA-II with a population that fits such budgets."""
    sampler = optuna.samplers.NSGAIISampler(seed=job.seed, population_size=POPULATION)
    optimise(job, sampler, job.table.points[job.table.uniforms])


def _gp(job: Job, asking: Asking) -> None:
    sampler = optuna.samplers.GPSampler(seed=job.seed)
    optimise(job, sampler, job.table.points[job.table.uniforms], asking)


def gp(job: Job) -> None:
    """Optuna's Gaussian process with expected hypervolume improvement (logEHVI)."""
    _gp(job, PLAIN)


def gp_logs(job: Job) -> None:
    """The same, told the logarithms of losses."""
    _gp(job, Asking(logs=True))


def gp_batches(job: Job) -> None:
    """The same, four trials running at once (qLogEHVI)."""
    _gp(job, Asking(logs=True, at_once=AT_ONCE))


def gp_limited(job: Job) -> None:
    """The same, with a constraint on the loss (qLogCEHVI)."""
    _gp(job, Asking(logs=True, at_once=AT_ONCE, limited=True))


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
