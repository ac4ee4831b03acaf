"""All methods on the enumerated spaces: shares of the true hypervolume, and epsilon, over effort.

`python -m studies.search_methods.run` writes `results/methods.csv` and the tables of README.md.
"""

from __future__ import annotations

import argparse
import multiprocessing
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import optuna

from studies.search_benchmark.benchmark import Benchmark, load
from studies.search_methods.job import Job
from studies.search_methods.methods import METHODS
from studies.search_methods.table import Row, merged, read, with_tables, write
from studies.search_methods.truth import Truth, limit_of, logarithms

HERE = Path(__file__).parent
README = HERE / "README.md"
COSTS: Mapping[str, tuple[str, ...]] = {
    "byte-gpt-depth": ("b200.latency_s", "mi355x.latency_s", "h100.weight_bytes"),
    "fashion-resnet": ("a100.latency_s", "l40s.latency_s", "h100.weight_bytes"),
    "byte-gpt-role": ("h100.latency_s", "h100.energy_j", "h100.weight_bytes"),
}
"""Space -> costs, one after the other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One method with one seed on one space and cost."""

    space: str
    cost: str
    method: str
    seed: int

    def is_in(self, found: Sequence[Row]) -> bool:
        """Whether results have every effort of this."""
        mine = (self.space, self.cost, self.method, str(self.seed))
        known = {
            int(str(row["effort"]))
            for row in found
            if (row["space"], row["cost"], row["method"], str(row["seed"])) == mine
        }
        return known.issuperset(METHODS[self.method].efforts)


def tasks(names: list[str]) -> list[Task]:
    """All runs of some methods, those that take longest first, so that none is left at the end."""
    return [
        Task(space=space, cost=cost, method=name, seed=seed)
        for name in sorted(names, key=lambda name: not name.startswith("GP"))
        for space in METHODS[name].spaces
        for cost in COSTS[space]
        for seed in range(METHODS[name].seeds)
    ]


def rows(task: Task) -> list[Row]:
    """One row an effort."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    table = load(task.space)
    values = table.values(task.cost)
    truth = Truth.of(values, table)
    logs = Truth.of(logarithms(table, values), table)
    within = Truth.of(values, table, most=limit_of(table))
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
            "log_share": round(logs.share(numbers), 5),
            "within_share": round(within.share(numbers), 5),
            "epsilon": round(truth.epsilon(numbers), 5),
            "report_share": round(report.share(numbers), 5),
        }
        for effort, numbers in _measured(task, table)
    ]


def _measured(task: Task, table: Benchmark) -> Iterator[tuple[int, list[int]]]:
    """What a method has measured at each effort, besides the uniforms, which cost all the same."""
    method = METHODS[task.method]
    job = None
    for effort in method.efforts:
        if job is None or not method.anytime:
            budget = max(method.efforts) if method.anytime else effort
            job = Job(table=table, columns=(task.cost,), budget=budget, seed=task.seed)
            method.run(job)
        numbers = [number for number, spent in job.measured.items() if spent <= effort]
        yield effort, numbers or list(table.uniforms)


def main() -> None:
    """Runs what is asked for; results of other methods stay."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--methods", nargs="*", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--missing", action="store_true", help="only what results do not have")
    arguments = parser.parse_args()
    results = HERE / "results" / "methods.csv"
    found = read(results)
    todo = [
        task for task in tasks(arguments.methods) if not (arguments.missing and task.is_in(found))
    ]
    with multiprocessing.get_context("spawn").Pool(arguments.jobs) as pool:
        for some in pool.imap_unordered(rows, todo, chunksize=1):
            found = merged(found, some)
            write(results, found)
    README.write_text(with_tables(README.read_text(encoding="utf-8"), found), encoding="utf-8")


if __name__ == "__main__":
    main()
