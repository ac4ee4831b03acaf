"""The methods that are compared: each proposes assignments of a table, in order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import optuna

from dse.explore.plan import plan
from dse.explore.sampler import FrontSampler
from dse.explore.solver import sweep
from dse.explore.study import distributions
from dse.explore.surrogate import Surrogate
from dse.space.problem import Choice, Point, Problem, Variable
from studies.search_benchmark.benchmark import Benchmark
from studies.search_methods.interaction import Interacting

REFERENCE = 1.0
"""Forward-equivalents of the full-precision run that every method needs."""
GRADIENT = 3.0
"""Of one forward and one backward pass over the search split."""
PATIENCE = 400
"""Proposals of known assignments in a row after which a method has nothing new."""
UNCERTAIN = 0.25
"""Gradient scores above this share of the largest are measured directly, in one variant."""


@dataclass(kw_only=True)
class Job:
    """One table with its objectives, and what a run has measured so far."""

    table: Benchmark
    columns: tuple[str, ...]
    budget: float
    """Forward-equivalents, sensitivities included."""
    seed: int
    spent: float = REFERENCE
    measured: dict[int, float] = field(default_factory=dict)
    """Number of an assignment -> effort when it was known, in order."""

    def __post_init__(self) -> None:
        self.values = self.table.values(*self.columns)

    @property
    def trials(self) -> int:
        """Assignments that can still be measured."""
        return max(0, int(self.budget - self.spent))

    def measure(self, points: Iterable[Point | np.ndarray]) -> None:
        """Measure in order until the budget is spent; what is known costs nothing."""
        for point in points:
            number = int(self.table.number(np.array(point)))
            if number in self.measured:
                continue
            if self.trials < 1:
                return
            self.spent += 1
            self.measured[number] = self.spent

    def direct(self) -> Surrogate:
        """The surrogate of direct single-choice scores, which is paid for."""
        self.spent += float(self.table.forward_share.sum())
        return Surrogate(losses=tuple(self.table.alone))

    def gradient(self) -> Surrogate:
        """The surrogate of gradient scores, which is paid for."""
        self.spent += GRADIENT
        return Surrogate(losses=tuple(self.table.gradient))

    @property
    def additive(self) -> list[list[np.ndarray]]:
        """Of each cost, what choices add."""
        return [list(self.table.additive(column)) for column in self.columns]

    def costs(self, points: np.ndarray) -> np.ndarray:
        """Exact costs."""
        return self.values[self.table.number(points), 1:]


def problem_of(table: Benchmark) -> Problem:
    """The decision variables of a table; there are no sites behind them."""
    return Problem(
        variables=tuple(
            Variable(
                name=name, kind="gemm", role="fc", block=None, relative_depth=0.0,
                regions=(name,), sites=(),
                choices=tuple(Choice(name=choice, quantizers={}) for choice in choices),
            )
            for name, choices in table.variables.items()
        )
    )  # fmt: skip


def uniforms(job: Job) -> None:
    """Every method begins with these: the baseline costs the same for all."""
    job.measure(job.table.points[job.table.uniforms])


def only_uniforms(job: Job) -> None:
    """Nothing else."""
    uniforms(job)


def random(job: Job) -> None:
    """Uniformly at random, without repetition."""
    uniforms(job)
    order = np.random.default_rng(job.seed).permutation(len(job.table.loss))
    job.measure(job.table.points[order[: job.trials + len(job.measured)]])


def _greedy(job: Job, surrogate: Surrogate) -> None:
    """From the least loss: always the change that saves most cost for its score."""
    uniforms(job)
    costs = [sum(parts) for parts in zip(*job.additive, strict=True)]
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


def _study(job: Job, sampler: optuna.samplers.BaseSampler, first: Iterable[Point]) -> None:
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
    _study(job, sampler, job.table.points[job.table.uniforms])


def nsga2(job: Job) -> None:
    """Optuna's NSGA-II with a population that fits such budgets."""
    sampler = optuna.samplers.NSGAIISampler(seed=job.seed, population_size=16)
    _study(job, sampler, job.table.points[job.table.uniforms])


def gp(job: Job) -> None:
    """Optuna's Gaussian process with expected hypervolume improvement."""
    sampler = optuna.samplers.GPSampler(seed=job.seed)
    _study(job, sampler, job.table.points[job.table.uniforms])


def _nsga2_seeded(job: Job, surrogate: Surrogate) -> None:
    """NSGA-II that begins with uniforms and knapsack solutions."""
    found = [p for c in job.additive for p in sweep(surrogate.losses, c, 12)]
    sampler = optuna.samplers.NSGAIISampler(seed=job.seed, population_size=16)
    _study(job, sampler, [*job.table.points[job.table.uniforms], *found])


def nsga2_seeded_direct(job: Job) -> None:
    """Seeded NSGA-II with direct scores."""
    _nsga2_seeded(job, job.direct())


def nsga2_seeded_gradient(job: Job) -> None:
    """Seeded NSGA-II with gradient scores."""
    _nsga2_seeded(job, job.gradient())


def _ours(job: Job, surrogate: Surrogate) -> None:
    problem = problem_of(job.table)
    planned = plan(problem, surrogate, job.additive, (), trials=job.trials, budgets=16)
    sampler = FrontSampler(problem, surrogate, job.costs, job.additive, seed=job.seed)
    _study(job, sampler, planned)


def ours_direct(job: Job) -> None:
    """Knapsack from direct scores, then the front sampler."""
    _ours(job, job.direct())


def ours_gradient(job: Job) -> None:
    """Knapsack from gradient scores, then the front sampler."""
    _ours(job, job.gradient())


def ours_mixed(job: Job) -> None:
    """Variant: gradient scores, the large ones measured directly."""
    losses = [entries.copy() for entries in job.gradient().losses]
    limit = UNCERTAIN * max(float(entries.max()) for entries in losses)
    for entries, alone, share in zip(
        losses, job.table.alone, job.table.forward_share, strict=True
    ):
        large = entries >= limit
        entries[large] = alone[large]
        job.spent += float(share[large].sum())
    _ours(job, Surrogate(losses=tuple(losses)))


def ours_pairs(job: Job) -> None:
    """Variant: gradient scores; a Gaussian process corrects sums for what interacts."""
    _ours(job, Interacting(losses=job.gradient().losses))


class _Fixed(Surrogate):
    """A surrogate that learns nothing from measurements."""

    def refitted(self, points: np.ndarray, measured: Sequence[float] | np.ndarray) -> Surrogate:
        return self


def ours_not_refitted(job: Job) -> None:
    """Ablation: gradient scores, knapsack, sampler, but the surrogate stays the prior."""
    _ours(job, _Fixed(losses=job.gradient().losses))


def ours_without_knapsack(job: Job) -> None:
    """Ablation: gradient scores, uniforms, sampler."""
    surrogate = job.gradient()
    sampler = FrontSampler(
        problem_of(job.table), surrogate, job.costs, job.additive, seed=job.seed
    )
    _study(job, sampler, job.table.points[job.table.uniforms])


METHODS: Mapping[str, Callable[[Job], None]] = {
    "uniforms": only_uniforms,
    "random": random,
    "greedy, direct": greedy_direct,
    "greedy, gradient": greedy_gradient,
    "knapsack, direct": knapsack_direct,
    "knapsack, gradient": knapsack_gradient,
    "Lagrangian sweep, direct": lagrangian_direct,
    "Lagrangian sweep, gradient": lagrangian_gradient,
    "TPE": tpe,
    "GP": gp,
    "NSGA-II": nsga2,
    "NSGA-II seeded, direct": nsga2_seeded_direct,
    "NSGA-II seeded, gradient": nsga2_seeded_gradient,
    "ours, direct": ours_direct,
    "ours, gradient": ours_gradient,
    "ours, not re-fitted": ours_not_refitted,
    "ours, without knapsack": ours_without_knapsack,
    "ours, large ones direct": ours_mixed,
    "ours, with interactions": ours_pairs,
}
DETERMINISTIC = (
    "uniforms", "greedy, direct", "greedy, gradient", "knapsack, direct", "knapsack, gradient",
    "Lagrangian sweep, direct", "Lagrangian sweep, gradient",
)  # fmt: skip
"""Those that depend on no seed."""
ANYTIME = (
    "random", "greedy, direct", "greedy, gradient", "Lagrangian sweep, direct",
    "Lagrangian sweep, gradient", "TPE", "GP", "NSGA-II", "NSGA-II seeded, direct",
    "NSGA-II seeded, gradient", "ours, without knapsack",
)  # fmt: skip
"""Those that do not look at their budget: one run with the largest says what smaller ones find."""
