"""Our search, its variants and its ablations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from unittest.mock import patch

import numpy as np

from dse.explore.problem.first_trials import planned_points
from dse.explore.solve import gain
from dse.explore.solve.surrogate import Surrogate
from dse.explore.study.front_sampler import FrontSampler
from dse.explore.study.proposer import SearchTask
from studies.search_methods.interaction import Interacting
from studies.search_methods.job import Job, problem_of
from studies.search_methods.samplers import AT_ONCE, PLAIN, Asking, optimise
from studies.search_methods.truth import limit_of

UNCERTAIN = 0.25
"""Gradient scores above this share of the largest are measured directly, in one variant."""


def _task(job: Job, surrogate: Surrogate) -> SearchTask:
    return SearchTask(
        problem=problem_of(job.table),
        surrogate=surrogate,
        costs=job.costs,
        additive=job.additive,
        seed=job.seed,
    )


def _search(
    job: Job, surrogate: Surrogate, asking: Asking = PLAIN, task: SearchTask | None = None
) -> None:
    problem = problem_of(job.table)
    planned = planned_points(
        problem, [surrogate] * len(job.additive), job.additive, (), trials=job.trials, budgets=16
    )
    optimise(job, FrontSampler(task or _task(job, surrogate)), planned, asking)


def direct(job: Job) -> None:
    """Knapsack from direct scores, then the front sampler."""
    _search(job, job.direct())


def gradient(job: Job) -> None:
    """Knapsack from gradient scores, then the front sampler."""
    _search(job, job.gradient())


def batches(job: Job) -> None:
    """Variant: four trials running at once."""
    _search(job, job.gradient(), Asking(at_once=AT_ONCE))


def limited(job: Job) -> None:
    """Variant: four at once, and only losses below a limit are allowed."""
    surrogate, most = job.gradient(), limit_of(job.table)
    task = replace(_task(job, surrogate), allowed=lambda _, losses: losses.reshape(-1) <= most)
    _search(job, surrogate, Asking(at_once=AT_ONCE), task)


def linear_gains(job: Job) -> None:
    """Variant: gains count losses as they are."""
    with patch.object(gain, "visible", lambda values, largest: values):
        gradient(job)


def finer_gains(job: Job) -> None:
    """Variant: gains count losses by their logarithm from a thousandth of the largest on."""
    with patch.object(gain, "SEEN", 1e-3):
        gradient(job)


def mixed(job: Job) -> None:
    """Variant: gradient scores, the large ones measured directly."""
    losses = [entries.copy() for entries in job.gradient().losses]
    limit = UNCERTAIN * max(float(entries.max()) for entries in losses)
    for entries, alone, share in zip(
        losses, job.table.alone, job.table.forward_share, strict=True
    ):
        large = entries >= limit
        entries[large] = alone[large]
        job.spent += float(share[large].sum())
    _search(job, Surrogate(losses=tuple(losses)))


def interacting(job: Job) -> None:
    """Variant: gradient scores; a Gaussian process corrects sums for what interacts."""
    _search(job, Interacting(losses=job.gradient().losses))


class _Fixed(Surrogate):
    """A surrogate that learns nothing from measurements."""

    def refitted(self, points: np.ndarray, measured: Sequence[float] | np.ndarray) -> Surrogate:
        return self


def not_refitted(job: Job) -> None:
    """Ablation: gradient scores, knapsack, sampler, but the surrogate stays the prior."""
    _search(job, _Fixed(losses=job.gradient().losses))


def without_knapsack(job: Job) -> None:
    """Ablation: gradient scores, uniforms, sampler."""
    sampler = FrontSampler(_task(job, job.gradient()))
    optimise(job, sampler, job.table.points[job.table.uniforms])
