"""Searches the shipped spaces of training methods in their quick form, and writes what they found.

`python -m studies.training_search.run FOLDER [--space fp4-training] [--trials N] [--workers N]`
goes on where FOLDER stopped. Writes results/<space>-{methods,sensitivity,ablation,seeds}.csv.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

from dse.report.training.answer import answer, axis_sentences
from dse.report.training.html import write_training_report
from dse.run import files
from dse.run.training_run import COLUMNS, AxisChange, TrainingRun, read_training_run
from dse.training.search.loop import RUNS
from dse.training.search.run import MethodOverrides, run_training_search
from dse.training.search.seed_run import read_seed_run

SPACES = Path(__file__).parents[2] / "spaces"
RESULTS = Path(__file__).parent / "results"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--space", default="fp4-training")
    parser.add_argument("--trials", type=int)
    parser.add_argument("--workers", type=int)
    given = parser.parse_args()
    if not (given.folder / files.FRONT).is_file():
        run_training_search(
            str(SPACES / f"{given.space}.yaml"),
            overrides=MethodOverrides(quick=True, trials=given.trials),
            out=given.folder,
            resume=(given.folder / files.MANIFEST).is_file(),
            workers=given.workers,
        )
    write_training_report(given.folder)
    found = read_training_run(given.folder)
    RESULTS.mkdir(exist_ok=True)
    _methods(found, given.space)
    for name, changes in (("sensitivity", found.sensitivity), ("ablation", found.ablation)):
        fields = list(AxisChange.model_fields)
        _write(f"{given.space}-{name}", fields, ([dict(c)[f] for f in fields] for c in changes))
    _seeds(found, given.space)
    print(answer(found))
    for line in axis_sentences(found.ablation):
        print(f"  {line}")


def _methods(found: TrainingRun, space: str) -> None:
    """Every method with its numbers and choices."""
    variables = list(found.manifest.variables)
    front = {point.trial for point in found.front}
    rows = [
        [
            point.trial, point.source, point.name, point.state, point.trial in front,
            *(point.columns.get(column, "") for column in COLUMNS),
            *(found.choices.get(point.trial, {}).get(name, "") for name in variables),
        ]
        for point in found.points
    ]  # fmt: skip
    header = ["trial", "source", "name", "state", "front", *COLUMNS, *variables]
    _write(f"{space}-methods", header, rows)


def _seeds(found: TrainingRun, space: str) -> None:
    """Held-out losses of the report, seed by seed: what intervals are made of."""
    rows: list[list[object]] = []
    for point in found.points:
        for seed in found.manifest.report_seeds:
            path = found.folder / RUNS / point.digest / f"report-{seed}.json"
            if path.is_file():
                rows.append([point.trial, point.title, seed, read_seed_run(path).loss])
    _write(f"{space}-seeds", ["trial", "method", "seed", "loss"], rows)


def _write(name: str, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    with (RESULTS / f"{name}.csv").open("w", newline="", encoding="utf-8") as stream:
        lines = csv.writer(stream, lineterminator="\n")
        lines.writerow(header)
        lines.writerows(rows)


if __name__ == "__main__":
    main()
