"""All methods on the enumerated spaces: normalised hypervolume and additive epsilon over effort.

`python -m studies.search_methods.run` writes `results/methods.csv` and prints README.md's table.
"""

from __future__ import annotations

import argparse
import csv
import multiprocessing
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import moocore
import numpy as np
import optuna

from dse.explore.front import hypervolume, nondominated
from dse.explore.history import MARGIN
from studies.search_benchmark.benchmark import Benchmark, load
from studies.search_methods.methods import ANYTIME, DETERMINISTIC, METHODS, Job

HERE = Path(__file__).parent
EFFORTS = (30, 60, 150)
TASKS: Mapping[str, tuple[str, ...]] = {
    "byte-gpt-depth": ("b200.latency_s", "mi355x.latency_s", "h100.weight_bytes"),
    "fashion-resnet": ("a100.latency_s", "l40s.latency_s", "h100.weight_bytes"),
    "byte-gpt-role": ("h100.latency_s", "h100.energy_j", "h100.weight_bytes"),
}
HELD_OUT = "byte-gpt-role"
"""Settings were chosen on the other two."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Truth:
    """What a whole table reaches."""

    values: np.ndarray
    reference: np.ndarray
    front: np.ndarray
    uniform: float
    best: float

    @classmethod
    def of(cls, values: np.ndarray, table: Benchmark) -> Truth:
        """The truth of (assignments, objectives)."""
        reference = values[table.uniforms].max(axis=0) * MARGIN
        front = values[nondominated(values)]
        return cls(
            values=values,
            reference=reference,
            front=front,
            uniform=hypervolume(values[table.uniforms], reference),
            best=hypervolume(front, reference),
        )

    def share(self, numbers: Sequence[int]) -> float:
        """(HV - HV of uniforms) / (true HV - HV of uniforms)."""
        reached = hypervolume(self.values[list(numbers)], self.reference)
        return (reached - self.uniform) / (self.best - self.uniform)

    def epsilon(self, numbers: Sequence[int]) -> float:
        """Additive epsilon to the true front, objectives scaled to [0, 1] over that front."""
        low, high = self.front.min(axis=0), self.front.max(axis=0)
        scaled = (self.values[list(numbers)] - low) / (high - low)
        return float(moocore.epsilon_additive(scaled, ref=(self.front - low) / (high - low)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One method with one seed on one space and cost."""

    space: str
    cost: str
    method: str
    seed: int
    efforts: tuple[int, ...]


def tasks(
    spaces: Sequence[str], methods: Sequence[str], seeds: int, efforts: Sequence[int]
) -> list[Task]:
    """Every combination; what depends on no seed runs once."""
    return [
        Task(space=space, cost=cost, method=method, seed=seed, efforts=tuple(efforts))
        for method in methods
        for space in spaces
        for cost in TASKS[space]
        for seed in range(1 if method in DETERMINISTIC else seeds)
    ]


def rows(task: Task) -> list[dict[str, object]]:
    """One row an effort."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    table = load(task.space)
    truth = Truth.of(table.values(task.cost), table)
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
        for effort, numbers in _measured(task, table)
    ]


def _measured(task: Task, table: Benchmark) -> Iterator[tuple[int, list[int]]]:
    """What a method has measured at each effort; the uniforms where it has nothing yet."""
    anytime = task.method in ANYTIME
    job = None
    for effort in task.efforts:
        if job is None or not anytime:
            budget = max(task.efforts) if anytime else effort
            job = Job(table=table, columns=(task.cost,), budget=budget, seed=task.seed)
            METHODS[task.method](job)
        numbers = [number for number, spent in job.measured.items() if spent <= effort]
        yield effort, numbers or list(table.uniforms)


def summary(found: Sequence[Mapping[str, object]]) -> str:
    """A table: median (worst) share over seeds and costs of each space, by effort."""
    lines = []
    spaces = list(dict.fromkeys(str(row["space"]) for row in found))
    head = [f"{space} {effort}" for space in spaces for effort in EFFORTS]
    lines += ["| method | " + " | ".join(head) + " |", "|---" * (len(head) + 1) + "|"]
    for method in dict.fromkeys(str(row["method"]) for row in found):
        cells = []
        for space in spaces:
            for effort in EFFORTS:
                shares = [
                    float(str(row["share"]))
                    for row in found
                    if (row["space"], row["method"], str(row["effort"]))
                    == (space, method, str(effort))
                ]
                shown = f"{np.median(shares):.3f} ({min(shares):.3f})" if shares else "-"
                cells.append(shown)
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def merged(path: Path, found: Sequence[Mapping[str, object]]) -> list[Mapping[str, object]]:
    """Rows of a file that these do not replace, then these."""
    key = ("space", "method", "effort")
    fresh = {tuple(str(row[name]) for name in key) for row in found}
    kept: list[Mapping[str, object]] = []
    if path.exists():
        with path.open(newline="") as stream:
            kept = [
                row
                for row in csv.DictReader(stream)
                if tuple(row[name] for name in key) not in fresh
            ]
    order = {name: place for place, name in enumerate(METHODS)}
    return sorted([*kept, *found], key=lambda row: order.get(str(row["method"]), len(order)))


def main() -> None:
    """Runs what is asked for; other rows of the results stay."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--spaces", nargs="+", default=list(TASKS))
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    parser.add_argument("--efforts", nargs="+", type=int, default=list(EFFORTS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "methods.csv")
    arguments = parser.parse_args()
    todo = tasks(arguments.spaces, arguments.methods, arguments.seeds, arguments.efforts)
    with multiprocessing.get_context("spawn").Pool(arguments.jobs) as pool:
        done = [row for some in pool.imap(rows, todo, chunksize=1) for row in some]
    found = merged(arguments.out, done)
    arguments.out.parent.mkdir(exist_ok=True)
    with arguments.out.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(found[-1]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(found)
    print(summary(found))


if __name__ == "__main__":
    main()
