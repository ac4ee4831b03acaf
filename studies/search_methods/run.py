"""All methods on the enumerated spaces: normalised hypervolume and additive epsilon over effort.

`python -m studies.search_methods.run` writes `results/methods.csv` and prints README.md's table.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import moocore
import numpy as np
import optuna

from dse.explore.front import hypervolume, nondominated
from dse.explore.history import MARGIN
from studies.search_benchmark.benchmark import Benchmark, load
from studies.search_methods.methods import METHODS, RANDOM, Job

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
    def of(cls, table: Benchmark, columns: Sequence[str]) -> Truth:
        values = table.values(*columns)
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


def rows(
    spaces: Sequence[str], seeds: int, methods: Mapping[str, Callable[[Job], None]]
) -> list[dict[str, object]]:
    """One row a space, objective, method, seed and effort."""
    found: list[dict[str, object]] = []
    for space in spaces:
        table = load(space)
        for column in TASKS[space]:
            truth = Truth.of(table, [column])
            for name, method in methods.items():
                for seed in range(seeds if name in RANDOM else 1):
                    for effort in EFFORTS:
                        job = Job(table=table, columns=(column,), budget=effort, seed=seed)
                        method(job)
                        numbers = list(job.measured) or list(table.uniforms)
                        found.append({
                            "space": space, "cost": column, "method": name, "seed": seed,
                            "effort": effort, "measured": len(numbers),
                            "share": round(truth.share(numbers), 5),
                            "epsilon": round(truth.epsilon(numbers), 5),
                        })  # fmt: skip
    return found


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
                    if (row["space"], row["method"], row["effort"]) == (space, method, effort)
                ]
                cells.append(f"{np.median(shares):.3f} ({min(shares):.3f})")
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Runs everything that has a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--spaces", nargs="+", default=list(TASKS))
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "methods.csv")
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    chosen = {name: METHODS[name] for name in arguments.methods}
    found = rows(arguments.spaces, arguments.seeds, chosen)
    arguments.out.parent.mkdir(exist_ok=True)
    with arguments.out.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(found[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(found)
    print(summary(found))


if __name__ == "__main__":
    main()
