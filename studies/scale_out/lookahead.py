"""What proposals lose by not knowing the last results: the front at equal numbers of trials."""

from __future__ import annotations

from collections import deque

import numpy as np
import optuna

from dse.explore.problem.first_trials import planned_points
from dse.explore.study.front_sampler import FrontSampler
from dse.explore.study.proposer import SearchTask
from dse.explore.study.study import distributions
from studies.search_benchmark.benchmark import Benchmark
from studies.search_methods.job import Job, problem_of
from studies.search_methods.truth import Truth

TRIALS = (26, 56)
"""Measured assignments at which the front is scored: 30 and 60 forward-equivalents."""


def lookahead(table: Benchmark, cost: str, workers: int, seed: int) -> list[float]:
    """Share of the hypervolume beyond the uniforms, at each of `TRIALS`.

    As `dse.explore.measure.trials` does it: all planned points are told before the first proposal,
    then 2 * workers - 1 trials are under way and the oldest is told before the next is asked for.
    """
    job = Job(table=table, columns=(cost,), budget=float("inf"), seed=seed)
    problem, surrogate = problem_of(table), job.gradient()
    planned = planned_points(
        problem, [surrogate] * len(job.additive), job.additive, (), trials=TRIALS[-1], budgets=16
    )
    task = SearchTask(
        problem=problem, surrogate=surrogate, costs=job.costs, additive=job.additive, seed=seed
    )
    sampler = FrontSampler(task)
    study = optuna.create_study(directions=["minimize", "minimize"], sampler=sampler)
    space = distributions(problem)
    for point in planned:
        names = problem.choices(point)
        study.enqueue_trial({v.name: n for v, n in zip(problem.variables, names, strict=True)})
    under_way: deque[tuple[optuna.Trial, int]] = deque()
    measured: list[int] = []

    def tell() -> None:
        trial, number = under_way.popleft()
        study.tell(trial, list(job.values[number]))

    for count in range(TRIALS[-1]):
        while under_way and (count == len(planned) or len(under_way) >= 2 * workers - 1):
            tell()
        trial = study.ask(space)
        number = int(table.number(np.array(problem.point(trial.params))))
        under_way.append((trial, number))
        measured.append(number)
    truth = Truth.of(job.values, table)
    return [truth.share(measured[:trials]) for trials in TRIALS]
