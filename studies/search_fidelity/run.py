"""Does a first look at few samples pay? The search's own loop with and without it, same effort.

`python -m studies.search_fidelity.run` writes `results/runs.csv` and prints README.md's table.
"""

from __future__ import annotations

import argparse
import csv
import warnings
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import optuna
import torch
from optuna.trial import FrozenTrial, TrialState

from dse.evaluate.evaluator import Evaluator
from dse.evaluate.quality import Quality
from dse.explore.measure.executor import Job, Outcome
from dse.explore.measure.pruning import Pruner
from dse.explore.measure.session import Session, prepare
from dse.explore.measure.trials import Trials
from dse.explore.problem.first_trials import planned_points
from dse.explore.problem.selection import better
from dse.explore.solve.surrogate import Surrogate
from dse.explore.study.methods import front
from dse.explore.study.proposer import Proposer, SearchTask
from dse.explore.study.study import RIVAL, enqueue, is_pruned, trial_point
from dse.sensitivity.score import score
from dse.sensitivity.table import finite
from dse.space.load import load_space
from studies.search_benchmark.benchmark import Benchmark, load
from studies.search_methods.truth import Truth

HERE = Path(__file__).parent
SPACES = HERE.parent / "search_benchmark" / "spaces"
SAMPLES: Mapping[str, tuple[int, int]] = {"byte-gpt-role": (64, 8), "fashion-resnet": (256, 32)}
"""Search samples and batch: four and eight times those of the enumerated spaces, without which no
first look is large enough to tell anything."""
SHARES = (None, 0.25, 0.5)
SAMPLERS = ("front", "random")
TRIALS = 56
"""60 forward-equivalents without the reference and the gradient scores."""


@dataclass(kw_only=True)
class Remembered:
    """Measures every assignment once, in full, and answers what a first look would have said."""

    evaluator: Evaluator
    known: dict[str, Quality] = field(default_factory=dict)
    jobs: deque[Job] = field(default_factory=deque)
    slots: int = 1
    replicas: int = 1

    def submit(self, job: Job) -> None:
        """Queue a job."""
        self.jobs.append(job)

    def next(self) -> Outcome:
        """The oldest job's outcome."""
        job = self.jobs.popleft()
        digest = job.assignment.digest
        if digest not in self.known:
            self.known[digest] = self.evaluator.measure(job.assignment)
        quality = self.known[digest]
        if job.hurdle is not None:
            first = tuple(quality.losses[row] for row in job.hurdle.rows)
            if not job.hurdle.clears(first):
                quality = _of_losses(first)
        return Outcome(key=job.key, quality=quality)

    def close(self) -> None:
        """Nothing runs."""


def _of_losses(losses: Sequence[float]) -> Quality:
    return Quality(
        loss=float(np.mean(losses)),
        stderr=float(np.std(losses, ddof=1) / len(losses) ** 0.5),
        p99=float(np.quantile(losses, 0.99)),
        flip_rate=float("nan"),
        metric=float("nan"),
        samples=len(losses),
        losses=tuple(losses),
    )


def opened(space: str) -> Session:
    """The session of an enumerated space with more samples to search on."""
    path = SPACES / f"{space}.yaml"
    content = load_space(path)
    samples, batch = SAMPLES[space]
    data = content.data.model_copy(update={"search": samples, "batch": batch})
    return prepare(content.model_copy(update={"data": data}), origin=space, folder=path.parent)


def searched(
    session: Session,
    prior: Surrogate,
    executor: Remembered,
    *,
    sampler: str,
    share: float | None,
    seed: int,
) -> list[FrozenTrial]:
    """The trials of one run."""
    problem = session.design.problem
    study = optuna.create_study(directions=["minimize"] * 2)
    planned: Mapping[tuple[int, ...], str] = dict.fromkeys(problem.uniforms.values(), "uniform")
    if sampler == "front":
        planned = planned_points(
            problem,
            [prior] * len(session.design.additive),
            session.design.additive,
            (),
            trials=TRIALS,
            budgets=16,
        )
        task = SearchTask(
            problem=problem,
            surrogate=prior,
            costs=session.design.objective_costs,
            additive=session.design.additive,
            seed=seed,
        )
        proposer = front(task)
    else:
        proposer = Proposer(sampler=optuna.samplers.RandomSampler(seed=seed))
    enqueue(study, problem, planned, names={})
    pruner = Pruner(session, study, share) if share else None
    trials = Trials(session.design, study, proposer, executor, TRIALS, pruner=pruner)
    trials.run(lambda done, total: None)
    return study.get_trials(deepcopy=False)


def row(
    session: Session, executor: Remembered, table: Benchmark, trials: Sequence[FrozenTrial]
) -> dict[str, object]:
    """What a run has found and what ended early, by tables of all assignments."""
    points = {
        one.number: trial_point(one, session.design.problem) for one in trials if _settled(one)
    }
    costs = {
        number: session.design.objective_costs(np.array([p]))[0, 0] for number, p in points.items()
    }
    full = {
        number: executor.known[session.design.problem.assignment(point).digest]
        for number, point in points.items()
    }
    complete = [one for one in trials if one.state == TrialState.COMPLETE]
    ended = [one for one in trials if is_pruned(one)]

    def beaten(trial: FrozenTrial) -> bool:
        """Whether all samples say that something that was known and costs no more is better."""
        return any(
            costs[rival.number] <= costs[trial.number]
            and better(full[rival.number], full[trial.number])
            for rival in complete
            if rival.number < trial.number
        )

    candidates = [one for one in (*complete, *ended) if one.user_attrs["source"] != "uniform"]
    kept = [one for one in ended if not better(full[one.user_attrs[RIVAL]], full[one.number])]
    numbers = [_number(table, one) for one in complete]
    column = _column(table, session.design.objectives.costs[0])
    report = np.column_stack([np.asarray(table.report_loss), table.costs[column]])
    return {
        "asked": len(points),
        "beaten": sum(map(beaten, candidates)),
        "ended": len(ended),
        "wrongly": len(kept),
        "search_share": round(Truth.of(table.values(column), table).share(numbers), 5),
        "report_share": round(Truth.of(report, table).share(numbers), 5),
    }


def _settled(trial: FrozenTrial) -> bool:
    return trial.state == TrialState.COMPLETE or is_pruned(trial)


def _number(table: Benchmark, trial: FrozenTrial) -> int:
    """A trial's assignment as the table counts them."""
    choices = [known.index(trial.params[name]) for name, known in table.variables.items()]
    return int(table.number(np.array(choices)))


def _column(table: Benchmark, column: str) -> str:
    return column if column in table.costs else next(c for c in table.costs if c.endswith(column))


COLUMNS = (
    "space", "proposals", "first look", "asked", "beaten", "ended early", "wrongly",
    "held-out share",
)  # fmt: skip


def summary(rows: Sequence[Mapping[str, object]]) -> str:
    """README's table: medians over seeds, the range of the held-out share in brackets."""
    lines = [f"| {' | '.join(COLUMNS)} |", "|---" * len(COLUMNS) + "|"]
    groups: dict[tuple[str, ...], list[Mapping[str, object]]] = {}
    for one in rows:
        key = tuple(str(one[name]) for name in ("space", "sampler", "share"))
        groups.setdefault(key, []).append(one)
    for key, some in groups.items():
        middle = [
            f"{np.median([float(str(one[name])) for one in some]):g}"
            for name in ("asked", "beaten", "ended", "wrongly")
        ]
        shares = [float(str(one["report_share"])) for one in some]
        last = f"{np.median(shares):.3f} ({min(shares):.3f}-{max(shares):.3f})"
        lines.append(f"| {' | '.join([*key, *middle, last])} |")
    return "\n".join(lines)


def main() -> None:
    """Runs every combination."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--spaces", nargs="+", default=list(SAMPLES))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "runs.csv")
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    torch.set_num_threads(1)
    rows: list[dict[str, object]] = []
    for space in arguments.spaces:
        session, table = opened(space), load(space)
        executor = Remembered(evaluator=session.evaluator)
        found = score(session.evaluator, session.design.problem, "gradient", samples=16)
        prior = Surrogate(losses=finite(found.losses(session.design.problem)))
        for sampler in SAMPLERS:
            for share in SHARES:
                for seed in range(arguments.seeds):
                    trials = searched(
                        session, prior, executor, sampler=sampler, share=share, seed=seed
                    )
                    known = {
                        "space": space,
                        "sampler": sampler,
                        "share": share or "",
                        "seed": seed,
                    }
                    rows.append({**known, **row(session, executor, table, trials)})
                    print(rows[-1], flush=True)
    arguments.out.parent.mkdir(exist_ok=True)
    with arguments.out.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    print(summary(rows))


if __name__ == "__main__":
    main()
