"""How well sums of single-choice scores predict measured quality, and what noise does to fronts.

`python -m studies.search_additivity.run` reads the 2,000 random assignments of each enumerated
space and measures the assignments of its true front on both splits (`--compute cuda` for a GPU).
Writes `results/correlation.csv`, `results/neighbours.csv` and `figure.svg`.
"""

from __future__ import annotations

import argparse
import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

from dse.explore.measure.session import Session
from dse.explore.solve.front import nondominated
from dse.explore.solve.surrogate import Surrogate
from studies.search_benchmark.benchmark import DATA, NAMES, Benchmark, load
from studies.search_benchmark.prepare import session_of

HERE = Path(__file__).parent
FITTED_ON = (0, 8, 16, 32, 64)
SEEDS = 5
LOW = 0.1
"""The share of assignments of least loss in which ranks are compared again: fronts live there."""
COSTS: Mapping[str, str] = {
    "byte-gpt-depth": "b200.latency_s",
    "byte-gpt-role": "h100.latency_s",
    "fashion-resnet": "a100.latency_s",
}


def correlations(table: Benchmark) -> list[dict[str, object]]:
    """Rank correlation and relative error of both surrogates, before and after a re-fit."""
    points, losses = table.points[table.kept], table.loss[table.kept]
    low = losses <= np.quantile(losses, LOW)
    rows: list[dict[str, object]] = []
    for scores, entries in (("direct", table.alone), ("gradient", table.gradient)):
        prior = Surrogate(losses=tuple(entries))
        for count in FITTED_ON:
            for seed in range(SEEDS if count else 1):
                rng = np.random.default_rng(seed)
                measured = rng.permutation(len(table.loss))[:count]
                fitted = prior.refitted(table.points[measured], table.loss[measured])
                predicted = fitted.predict(points)
                error = np.abs(np.log(predicted / losses))
                spearman_low = spearmanr(predicted[low], losses[low]).statistic
                rows.append({
                    "space": table.name, "scores": scores, "fitted_on": count, "seed": seed,
                    "spearman": round(float(spearmanr(predicted, losses).statistic), 5),
                    "spearman_low": round(float(spearman_low), 5),
                    "median_log_error": round(float(np.median(error)), 5),
                })  # fmt: skip
    return rows


def neighbours(table: Benchmark, session: Session) -> list[dict[str, object]]:
    """Gaps between neighbours on the true front, with the standard error of each gap."""
    values = table.values(COSTS[table.name])
    front = np.flatnonzero(nondominated(values))
    front = front[np.argsort(values[front, 1])]
    measured = {
        split: np.array([_samples(session, table, int(number), split) for number in front])
        for split in ("search", "report")
    }
    rows: list[dict[str, object]] = []
    for place in range(len(front) - 1):
        row: dict[str, object] = {"space": table.name, "cost": COSTS[table.name]}
        for split, losses in measured.items():
            first, second = losses[place], losses[place + 1]
            root = math.sqrt(len(first))
            row |= {
                f"{split}_gap": float((first - second).mean()),
                f"{split}_paired_stderr": float((first - second).std(ddof=1) / root),
                f"{split}_stderr": float(first.std(ddof=1) / root),
            }
        rows.append(row)
    return rows


def _samples(session: Session, table: Benchmark, number: int, split: str) -> Sequence[float]:
    point = dict(zip(table.variables, table.points[number], strict=True))
    whole = tuple(
        int(point.get(variable.name, 0)) for variable in session.design.problem.variables
    )
    assignment = session.design.problem.assignment(whole)
    quality = session.evaluator.measure(assignment, "search" if split == "search" else "report")
    return quality.losses


def figure(tables: Sequence[Benchmark]) -> str:
    """Predicted against measured loss of the random assignments, both on log scales."""
    size, margin = 260, 42
    parts = []
    for place, table in enumerate(tables):
        losses = table.loss[table.kept]
        predicted = Surrogate(losses=tuple(table.alone)).predict(table.points[table.kept])
        both = np.log10(np.stack([losses, predicted]))
        low, high = float(both.min()), float(both.max())
        x, y = margin + (both - low) / (high - low) * (size - margin - 10)
        left = place * size
        dots = "".join(
            f'<circle cx="{left + a:.1f}" cy="{size - b:.1f}" r="1.2"/>'
            for a, b in zip(x, y, strict=True)
        )
        parts.append(
            f'<g fill="#2166ac" fill-opacity="0.35">{dots}</g>'
            f'<path d="M{left + margin},{size - margin}L{left + size - 10},10" stroke="#888"/>'
            f'<text x="{left + margin}" y="{size - 4}">{table.name}: measured loss, '
            f"{10**low:.0e} to {10**high:.0e}</text>"
            f'<text x="{left + 12}" y="{size - margin}" transform="rotate(-90 {left + 12},'
            f'{size - margin})">sum of direct scores</text>'
        )
    width = size * len(tables)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {size}" '
        f'font-family="sans-serif" font-size="10">'
        f'<rect width="{width}" height="{size}" fill="white"/>{"".join(parts)}</svg>\n'
    )


def write(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """A CSV."""
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def main() -> None:
    """All spaces that have a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--compute", default="cpu", choices=["cpu", "cuda"])
    arguments = parser.parse_args()
    names = [name for name in NAMES if (DATA / f"{name}.npz").exists()]
    tables = [load(name) for name in names]
    (HERE / "results").mkdir(exist_ok=True)
    write(HERE / "results" / "correlation.csv", [row for t in tables for row in correlations(t)])
    found = [
        row
        for table in tables
        for row in neighbours(table, session_of(table.name, compute=arguments.compute))
    ]
    write(HERE / "results" / "neighbours.csv", found)
    (HERE / "figure.svg").write_text(figure(tables))


if __name__ == "__main__":
    main()
