"""Evaluations per second of one and two workers, and what proposals lose by looking ahead.

`python -m studies.scale_out.run speed` needs two quiet cores (3 minutes);
`python -m studies.scale_out.run lookahead` needs the tables of `studies/search_benchmark`.
Both print README.md's tables and write `results/*.csv`.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import optuna

from studies.scale_out.lookahead import TRIALS
from studies.scale_out.lookahead import lookahead as shares
from studies.search_benchmark.benchmark import load
from studies.search_methods.run import COSTS

HERE = Path(__file__).parent
SPACE = Path("spaces/fp4.yaml")
REPEATS = 5
EVALUATIONS = 48
WORKERS = (1, 2)
AHEAD = (1, 2, 4, 8)
SEEDS = 5


def speed() -> list[dict[str, object]]:
    """Evaluations per second, in turn so that a machine that slows down slows both."""
    rows: list[dict[str, object]] = []
    for repeat in range(REPEATS):
        for workers in WORKERS:
            seconds = _trial_seconds(workers)
            rate = round(EVALUATIONS / seconds, 4)
            rows.append({"repeat": repeat, "workers": workers, "evaluations_per_s": rate})
            print(f"repeat {repeat}: {workers} workers, {rate:.2f} evaluations/s", file=sys.stderr)
    return rows


def _trial_seconds(workers: int) -> float:
    """Of the stage `trials` of a search, proposals and the start-up of workers included."""
    command = [sys.executable, "-c", "from dse.cli import main; main()"]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        options = ["--trials", EVALUATIONS, "--workers", workers, "--out", out, "--quiet"]
        one_thread = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        subprocess.run(
            [*command, "search", str(SPACE), *map(str, options)],
            check=True,
            stdout=subprocess.DEVNULL,
            env=one_thread,
        )
        elapsed = json.loads((out / "manifest.json").read_text())["elapsed_s"]
    return float(elapsed["trials"])


def print_speed(rows: Sequence[Mapping[str, object]]) -> None:
    """The ratio of each repeat, its median and its range."""
    rates = {w: [float(str(r["evaluations_per_s"])) for r in rows if r["workers"] == w]
             for w in WORKERS}  # fmt: skip
    ratios = np.array(rates[2]) / np.array(rates[1])
    print("| workers | evaluations per second of one worker, median (least to most) |\n|---|---|")
    print(f"| 2 | {np.median(ratios):.2f} ({ratios.min():.2f} to {ratios.max():.2f}) |")


def lookahead() -> list[dict[str, object]]:
    """Shares of hypervolume on every enumerated space, cost and seed."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    rows: list[dict[str, object]] = []
    for name, costs in COSTS.items():
        table = load(name)
        for cost in costs:
            for workers in AHEAD:
                for seed in range(SEEDS):
                    found = shares(table, cost, workers, seed)
                    rows += [
                        {"space": name, "cost": cost, "workers": workers, "seed": seed,
                         "trials": trials, "share": round(share, 5)}
                        for trials, share in zip(TRIALS, found, strict=True)
                    ]  # fmt: skip
    return rows


def print_lookahead(rows: Sequence[Mapping[str, object]]) -> None:
    """Median and worst share by workers, over costs and seeds."""
    columns = sorted({(str(r["space"]), int(str(r["trials"]))) for r in rows})
    print(
        "| workers | "
        + " | ".join(f"{space}, {trials} trials" for space, trials in columns)
        + " |"
    )
    print("|---" * (1 + len(columns)) + "|")
    for workers in AHEAD:
        cells = []
        for space, trials in columns:
            shares = [
                float(str(r["share"])) for r in rows
                if (r["space"], r["trials"], r["workers"]) == (space, trials, workers)
            ]  # fmt: skip
            cells.append(f"{np.median(shares):.3f} ({min(shares):.3f})")
        print(f"| {workers} | " + " | ".join(cells) + " |")


def _write(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def main() -> None:
    """Run one of the two parts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=["speed", "lookahead"])
    part = parser.parse_args().part
    results = HERE / "results"
    results.mkdir(exist_ok=True)
    rows = speed() if part == "speed" else lookahead()
    _write(results / f"{part}.csv", rows)
    (print_speed if part == "speed" else print_lookahead)(rows)


if __name__ == "__main__":
    main()
