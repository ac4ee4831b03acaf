"""All methods on the enumerated spaces: normalised hypervolume and additive epsilon over effort.

`python -m studies.search_methods.run` writes `results/methods.csv` and prints README.md's table.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import optuna

from studies.search_benchmark.benchmark import Benchmark, load
from studies.search_methods.job import Job
from studies.search_methods.methods import ANYTIME, DETERMINISTIC, METHODS
from studies.search_methods.table import Row, merged, read, summary, write
from studies.search_methods.truth import Truth

HERE = Path(__file__).parent
EFFORTS = (30, 60, 150)
TASKS: Mapping[str, tuple[str, ...]] = {
    "byte-gpt-depth": ("b200.latency_s", "mi355x.latency_s", "h100.weight_bytes"),
    "fashion-resnet": ("a100.latency_s", "l40s.latency_s", "h100.weight_bytes"),
    "byte-gpt-role": ("h100.latency_s", "h100.energy_j", "h100.weight_bytes"),
}
"""Space -> costs. Settings were chosen on the first two spaces; the last is held out."""
SLOW = ("GP", "TPE")
"""Methods that take minutes a run: they begin first, so that none is left at the end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One method with one seed on one space and cost."""

    space: str
    cost: str
    method: str
    seed: int
    efforts: tuple[int, ...]

    def is_in(self, found: Sequence[Row]) -> bool:
        """Whether results have every effort of this."""
        mine = (self.space, self.cost, self.method, str(self.seed))
        known = {
            int(str(row["effort"]))
            for row in found
            if (row["space"], row["cost"], row["method"], str(row["seed"])) == mine
        }
        return known.issuperset(self.efforts)


def tasks(
    spaces: Sequence[str], methods: Sequence[str], seeds: int, efforts: Sequence[int]
) -> list[Task]:
    """Every combination, the slow ones first; what depends on no seed runs once."""
    return [
        Task(space=space, cost=cost, method=method, seed=seed, efforts=tuple(efforts))
        for method in sorted(methods, key=lambda name: name not in SLOW)
        for space in spaces
        for cost in TASKS[space]
        for seed in range(1 if method in DETERMINISTIC else seeds)
    ]


def rows(task: Task, *, deadline: float = math.inf) -> list[Row]:
    """One row an effort that was reached before the deadline."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    table = load(task.space)
    truth = Truth.of(table.values(task.cost), table)
    assert table.report_loss is not None
    report = Truth.of(np.column_stack([table.report_loss, table.costs[task.cost]]), table)
    return [
        {
            "space": task.space,
            "cost": task.cost,
            "method": task.method,
            "seed": task.seed,
            "effort": effort,
            "measured": len(numbers),
            "share": round(truth.share(numbers), 5),
            "epsilon": round(truth.epsilon(numbers), 5),
            "report_share": round(report.share(numbers), 5),
        }
        for effort, numbers in _measured(task, table, deadline)
    ]


def _measured(task: Task, table: Benchmark, deadline: float) -> Iterator[tuple[int, list[int]]]:
    """What a method has measured at each effort; the uniforms where it has nothing yet."""
    anytime = task.method in ANYTIME
    job = None
    for effort in task.efforts:
        if job is None or not anytime:
            budget = max(task.efforts) if anytime else effort
            job = Job(
                table=table, columns=(task.cost,), budget=budget, seed=task.seed,
                deadline=deadline,
            )  # fmt: skip
            METHODS[task.method](job)
            late = job.late
        if late and job.spent + 1 <= effort:
            return
        numbers = [number for number, spent in job.measured.items() if spent <= effort]
        yield effort, numbers or list(table.uniforms)


def main() -> None:
    """Runs what is asked for; other rows of the results stay."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--spaces", nargs="+", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--efforts", nargs="+", type=int, default=list(EFFORTS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument(
        "--seconds", type=float, default=math.inf, help="in all; what was reached by then is kept"
    )
    parser.add_argument("--missing", action="store_true", help="only what --out does not have")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "methods.csv")
    arguments = parser.parse_args()
    todo = tasks(arguments.spaces, arguments.methods, arguments.seeds, arguments.efforts)
    found = read(arguments.out)
    if arguments.missing:
        todo = [task for task in todo if not task.is_in(found)]
    with multiprocessing.get_context("spawn").Pool(arguments.jobs) as pool:
        work = partial(rows, deadline=time.time() + arguments.seconds)
        for some in pool.imap_unordered(work, todo, chunksize=1):
            found = merged(found, some)
            if found:
                write(arguments.out, found)
    print(summary(found))


if __name__ == "__main__":
    main()
