"""What a search takes beside evaluations: 1,000 variables x 8 choices, 150 evaluations.

`python -m studies.search_overhead.run` writes `results/overhead.csv`.
"""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar, cast

import numpy as np
import optuna

from dse.evaluate.quality import Quality
from dse.explore.measure.executor import Job, Outcome
from dse.explore.measure.trials import Trials
from dse.explore.problem.design import Design
from dse.explore.problem.first_trials import planned_points
from dse.explore.problem.networks import Networks
from dse.explore.problem.objectives import Objectives
from dse.explore.solve.surrogate import Surrogate
from dse.explore.study.front_sampler import FrontSampler
from dse.explore.study.proposer import Proposer, SearchTask
from dse.explore.study.study import JOURNAL, enqueue, open_study
from dse.graph.ir.assignment import Assignment
from dse.space.problem import Choice, Point, Problem, Variable

HERE = Path(__file__).parent
Result = TypeVar("Result")
VARIABLES, CHOICES, EVALUATIONS, BUDGETS = 1000, 8, 150, 16
EVALUATION_S = 1.0
"""What one is said to take; nothing sleeps, and it is counted as no overhead."""


@dataclass(kw_only=True)
class Simulated:
    """Stands for a session: costs add up, losses are a little more than that."""

    problem: Problem
    alone: np.ndarray
    cost: np.ndarray
    objectives: Objectives = field(default_factory=lambda: Objectives(costs=("latency_s",)))

    @classmethod
    def of(cls, seed: int) -> Simulated:
        rng = np.random.default_rng(seed)
        names = [Choice(name=f"choice_{index}", quantizers={}) for index in range(CHOICES)]
        variables = tuple(
            Variable(
                name=f"blocks.{index}/fc", kind="gemm", role="fc", block=index,
                relative_depth=index / VARIABLES, regions=(f"blocks.{index}/fc",), sites=(),
                choices=tuple(names),
            )
            for index in range(VARIABLES)
        )  # fmt: skip
        alone = np.sort(rng.gamma(0.5, 1e-3, size=(VARIABLES, CHOICES)), axis=1)
        cost = np.sort(rng.uniform(0.3, 1.0, size=(VARIABLES, CHOICES)), axis=1)[:, ::-1] * 1e-5
        return cls(problem=Problem(variables=variables), alone=alone, cost=cost)

    @property
    def networks(self) -> Networks:
        """One target, which executes what is asked for."""
        return Networks(
            primary="",
            problems={"": self.problem},
            asked=self.problem,
            everywhere={},
            stands={"": {}},
        )

    def searched(self, point: Point) -> tuple[Assignment, ...]:
        """The network that a point's loss is of."""
        return (self.networks.measured(point),)

    def loss(self, point: Point) -> float:
        """The measured loss: neighbours interact."""
        each = self.alone[np.arange(VARIABLES), list(point)]
        return float(each.sum() + 0.3 * np.sqrt(each[1:] * each[:-1]).sum())

    def total(self, point: Point) -> Mapping[str, float]:
        """Costs of a point."""
        return {"latency_s": float(self.cost[np.arange(VARIABLES), list(point)].sum())}

    def totals(self, points: np.ndarray) -> np.ndarray:
        """(points, 1) costs."""
        return self.cost[np.arange(VARIABLES), points].sum(axis=1)[:, None]


class Clocked:
    """An executor whose measurements take no time of ours."""

    slots = 1
    replicas = 1

    def __init__(self, simulated: Simulated, study: optuna.Study) -> None:
        self._simulated = simulated
        self._study = study
        self._jobs: list[Job] = []

    def submit(self, job: Job) -> None:
        """Queue a job."""
        self._jobs.append(job)

    def next(self) -> Outcome:
        """The oldest job's outcome."""
        job = self._jobs.pop(0)
        trial = self._study.get_trials(deepcopy=False)[job.key]
        loss = self._simulated.loss(self._simulated.problem.point(trial.params))
        quality = Quality(
            loss=loss, stderr=0.1 * loss, p99=loss, flip_rate=0.0, metric=0.0, samples=16,
            losses=(loss,) * 16,
        )  # fmt: skip
        return Outcome(key=job.key, quality=quality, seconds=EVALUATION_S)

    def close(self) -> None:
        """Nothing to stop."""


class Timed(FrontSampler):
    """The sampler, with the CPU seconds that its proposals take."""

    seconds = 0.0

    def next_point(self, study: optuna.Study, *, but: int | None = None) -> Point | None:
        """As the sampler's."""
        point, seconds = timed(lambda: super(Timed, self).next_point(study, but=but))
        self.seconds += seconds
        return point


def search(seed: int) -> dict[str, float]:
    """CPU seconds of the solver, and of all else, for a whole study in a run folder's journal."""
    simulated = Simulated.of(seed)
    prior = Surrogate(losses=tuple(simulated.alone * 0.7))
    additive = [list(simulated.cost)]
    planned, solver_s = timed(
        lambda: planned_points(
            simulated.problem, [prior], additive, (), trials=EVALUATIONS, budgets=BUDGETS
        )
    )
    with TemporaryDirectory() as folder:
        started = time.process_time()
        study = open_study(Path(folder), ["quality_loss", "latency_s"])
        task = SearchTask(
            problem=simulated.problem,
            surrogate=prior,
            costs=simulated.totals,
            additive=additive,
            seed=seed,
        )
        sampler = Timed(task)
        proposer = Proposer(sampler=sampler, before_ask=sampler.queue_next)
        names = {point: name for name, point in simulated.problem.uniforms.items()}
        enqueue(study, simulated.problem, planned, names=names)
        executor = Clocked(simulated, study)
        trials = Trials(cast("Design", simulated), study, proposer, executor, EVALUATIONS)
        trials.run(lambda done, total: None)
        seconds = time.process_time() - started
        complete = (optuna.trial.TrialState.COMPLETE,)
        count = len(study.get_trials(deepcopy=False, states=complete))
        journal = (Path(folder) / JOURNAL).stat().st_size
    return {
        "evaluations": count,
        "overhead_s": seconds,
        "of_it_sampler_s": sampler.seconds,
        "solver_s": solver_s,
        "journal_mb": journal / 1e6,
    }


def timed(work: Callable[[], Result]) -> tuple[Result, float]:
    """What comes of it, and the CPU seconds that it takes."""
    started = time.process_time()
    result = work()
    return result, time.process_time() - started


def main() -> None:
    """One row a seed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    rows: list[Mapping[str, object]] = [
        {"seed": seed, **{name: round(value, 3) for name, value in search(seed).items()}}
        for seed in range(arguments.seeds)
    ]
    write(rows, HERE / "results" / "overhead.csv")


def write(rows: Sequence[Mapping[str, object]], path: Path) -> None:
    """The rows as CSV."""
    path.parent.mkdir(exist_ok=True)
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
