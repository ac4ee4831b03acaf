"""Gains of losses as they are, or of their logarithms: what either finds, on either scale.

`python -m studies.search_methods.scales` writes `results/scales.csv` and prints README.md's table.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import numpy as np
import optuna
import pandas as pd

from dse.explore.solve import gain
from studies.search_benchmark.benchmark import load
from studies.search_methods.job import Job
from studies.search_methods.ours import gradient
from studies.search_methods.run import TASKS
from studies.search_methods.truth import Truth

RESULTS = Path(__file__).parent / "results" / "scales.csv"
EFFORTS = (30, 60)
SEEDS = 3
FLOOR = 1e-3
"""Of the worst uniform's loss: what is smaller counts as this on the logarithmic scale."""
SCALES = {"as they are": None, "1e-2": 1e-2, "1e-3": 1e-3}
"""`gain.SEEN`; None counts losses as they are."""


def rows() -> Iterator[dict[str, object]]:
    """Every space, cost, scale, seed and effort."""
    for space, costs in TASKS.items():
        table = load(space)
        for cost in costs:
            values = table.values(cost)
            floor = FLOOR * values[table.uniforms, 0].max()
            logs = np.log(np.maximum(values[:, :1], floor) / floor)
            linear = Truth.of(values, table)
            visible = Truth.of(np.column_stack([logs, values[:, 1:]]), table)
            for name, seen in SCALES.items():
                for seed in range(SEEDS):
                    for effort in EFFORTS:
                        numbers = measured(seen, Job(
                            table=table, columns=(cost,), budget=effort, seed=seed
                        ))  # fmt: skip
                        yield {
                            "space": space, "cost": cost, "gain": name, "seed": seed,
                            "effort": effort, "share": round(linear.share(numbers), 5),
                            "log_share": round(visible.share(numbers), 5),
                        }  # fmt: skip


def measured(seen: float | None, job: Job) -> list[int]:
    """The assignments that a search measures whose gains are counted on a scale."""
    if seen is None:
        with patch.object(gain, "visible", lambda values, largest: values):
            gradient(job)
    else:
        with patch.object(gain, "SEEN", seen):
            gradient(job)
    return list(job.measured)


def main() -> None:
    """Measures, writes, and prints the medians and the worst."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    found = pd.DataFrame(rows())
    found.to_csv(RESULTS, index=False)
    groups = found.groupby(["space", "effort", "gain"], sort=False)[["share", "log_share"]]
    print(groups.agg(["median", "min"]).round(3).to_string())


if __name__ == "__main__":
    main()
