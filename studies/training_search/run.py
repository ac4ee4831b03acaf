"""Searches the shipped spaces of training methods in their quick form, and writes what they found.

`python -m studies.training_search.run FOLDER [--space fp4-training] [--trials N] [--workers N]`
goes on where FOLDER stopped. Writes results/<space>-{methods,sensitivity,ablation,seeds}.csv. With
`--fresh N` seeds that neither search nor report saw judge the front, what was chosen and the named
methods (results/<space>-{fresh,holds}.csv).
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
from dse.training.load import REFERENCE, load_method
from dse.training.search.described import described
from dse.training.search.gaps import gap
from dse.training.search.load import load_training_space, problem_of_space
from dse.training.search.loop import RUNS
from dse.training.search.pool import Places, pool_of
from dse.training.search.run import MethodOverrides, placed, run_training_search
from dse.training.search.seed_run import Job, SeedRun, read_seed_run
from dse.training.workloads.catalogue import workload

SPACES = Path(__file__).parents[2] / "spaces"
RESULTS = Path(__file__).parent / "results"
FRESH_FROM = 2000
"""First seed of the check: those of the search begin at 0, those of its report at 1000."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--space", default="fp4-training")
    parser.add_argument("--trials", type=int)
    parser.add_argument("--workers", type=int)
    parser.add_argument("--fresh", type=int, default=0)
    given = parser.parse_args()
    if not (given.folder / files.FRONT).is_file():
        run_training_search(
            str(SPACES / f"{given.space}.yaml"),
            overrides=MethodOverrides(quick=True, trials=given.trials),
            out=given.folder,
            resume=(given.folder / files.MANIFEST).is_file(),
            places=Places(count=given.workers),
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
    if given.fresh:
        _holds(found, given.space, given.fresh, given.workers)


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


def _holds(found: TrainingRun, space: str, count: int, workers: int | None) -> None:
    """Trains the front, what was chosen and the named methods on seeds that nobody has seen."""
    manifest, answered = found.manifest, found.recommended
    assert answered is not None
    path = SPACES / f"{space}.yaml"
    problem = problem_of_space(
        load_training_space(path).quickened(), origin=str(path), folder=SPACES
    )
    reference = load_method(REFERENCE)
    methods = {REFERENCE: (reference, described(reference).digest)}
    judged = {answered.chosen, answered.beside_trial, *(one.trial for one in found.front)}
    for point in found.points:
        if (point.trial in judged or point.name) and point.trial in found.choices:
            made = problem.point(found.choices[point.trial])
            methods[point.title] = (made.method, made.digest)
    seeds = range(FRESH_FROM, FRESH_FROM + count)
    jobs = [
        Job(folder=found.folder / RUNS / digest, method=method, split="report", seed=seed,
            steps=manifest.steps)
        for seed in seeds for method, digest in methods.values()
    ]  # fmt: skip
    network = workload(manifest.workload)
    with pool_of(network, placed(network, Places(count=workers))) as pool:
        runs = pool.run(jobs)
    keyed = [(name, seed) for seed in seeds for name in methods]
    by_method: dict[str, dict[int, SeedRun]] = {name: {} for name in methods}
    for (name, seed), run in zip(keyed, runs, strict=True):
        by_method[name][seed] = run
    rows = [[name, run.seed, run.loss] for name, one in by_method.items() for run in one.values()]
    _write(f"{space}-fresh", ["method", "seed", "loss"], rows)
    titles = {point.trial: point.title for point in found.points}
    differences = [(name, REFERENCE) for name in methods if name != REFERENCE]
    differences += [
        (name, titles[answered.beside_trial])
        for name in methods
        if name not in (REFERENCE, titles[answered.beside_trial])
    ]
    lines: list[list[object]] = []
    for first, second in differences:
        one = gap(by_method[first], by_method[second])
        interval = one.interval
        assert interval is not None
        lines.append([first, second, len(one.pairs), one.diverged, one.mean, interval.low,
                      interval.high])  # fmt: skip
        print(f"{first} - {second}: {one.mean:+.4f} ({interval.low:+.4f} to {interval.high:+.4f})")
    _write(
        f"{space}-holds", ["method", "minus", "seeds", "diverged", "mean", "low", "high"], lines
    )


def _write(name: str, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    with (RESULTS / f"{name}.csv").open("w", newline="", encoding="utf-8") as stream:
        lines = csv.writer(stream, lineterminator="\n")
        lines.writerow(header)
        lines.writerows(rows)


if __name__ == "__main__":
    main()
