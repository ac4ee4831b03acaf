"""Trains the digits perceptron under several recipes, beside bf16.

`python studies/training_recipes/run.py FOLDER [--seeds 5] [--steps 200]` goes on where FOLDER
stopped, writes results/losses.csv and prints the paired gaps.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

from dse.training.experiment import Experiment, advance, open_folder, outcomes
from dse.training.load import REFERENCE, load_method
from dse.training.stability import seeds_needed
from dse.training.summary import summaries
from dse.training.workloads.catalogue import workload

METHODS = (REFERENCE, "nvfp4", "quartet_ii", "tetrajet_v2", "mxfp8", "fp8_delayed")
RESULTS = Path(__file__).parent / "results" / "losses.csv"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=200)
    given = parser.parse_args()
    trial = Experiment(
        folder=given.folder,
        workload=workload("digits-mlp"),
        methods={name: load_method(name) for name in METHODS},
        seeds=given.seeds,
        steps=given.steps,
    )
    open_folder(trial)
    advance(trial)
    found = outcomes(trial)
    RESULTS.parent.mkdir(exist_ok=True)
    with RESULTS.open("w", newline="", encoding="utf-8") as stream:
        lines = csv.writer(stream, lineterminator="\n")
        lines.writerow(("method", "seed", "loss", "accuracy", "diverged_at"))
        for (name, seed), one in sorted(found.items()):
            ends = (one.last.loss, one.last.accuracy) if one.last else ("", "")
            lines.writerow((name, seed, *ends, one.diverged_at))
    for row in summaries(found, REFERENCE):
        gap = row.gap
        if gap is None:
            print(f"{row.method}: loss {row.loss:.4f}")
        else:
            needed = seeds_needed(row.pairs, abs(gap.mean))
            print(
                f"{row.method}: loss {row.loss:.4f}, gap {gap.mean:+.4f} "
                f"({gap.low:+.4f} to {gap.high:+.4f}), seeds for this gap {needed}"
            )
    for first, second in (("nvfp4", "quartet_ii"), ("nvfp4", "tetrajet_v2")):
        row = next(one for one in summaries(found, second) if one.method == first)
        assert row.gap is not None
        print(
            f"{first} minus {second}: {row.gap.mean:+.4f} "
            f"({row.gap.low:+.4f} to {row.gap.high:+.4f})"
        )


if __name__ == "__main__":
    main()
