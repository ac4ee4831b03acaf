"""Rank correlation of losses of a small decoder with published ones of large decoders.

`python -m studies.training_scale.score TABLE.csv.gz [--losses results/losses-0.01.csv]` prints a
table by horizon and writes results/correlation.csv (of losses-0.01-w16.csv: correlation-w16.csv,
of losses-0.003-w16.csv: correlation-0.003-w16.csv). `--beside LOSSES` adds the rank correlation of
both files' gaps, and the spread of both files' seeds.
The published table is not part of the repository: it is made of runs.json of IST-DASLab/Quartet-II
(for_plots/runs.json at e2eda47), one row a run with the columns that recipes.yaml names, N
(parameters), D (tokens) and final_loss.
"""

from __future__ import annotations

import argparse
import csv
import gzip
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from scipy import stats

from studies.training_scale.recipes import Recipe, recipes

RESULTS = Path(__file__).parent / "results"
DRAWS = 1000
LEAST = 6
"""Recipes below which no correlation is given."""
MEASURES = ("held_out", "late_training")
KINDS: Mapping[str, tuple[str, ...]] = {
    "all": ("forward", "backward", "full"),
    "forward and full": ("forward", "full"),
    "backward": ("backward",),
}
COLUMNS = (
    "measure", "million_parameters", "tokens_a_parameter", "recipes_of", "recipes", "statistic",
    "value", "low", "high",
)  # fmt: skip
Gaps = Mapping[str, Sequence[float]]
"""Loss over bf16's by seed, of each recipe."""


def our_gaps(path: Path, measure: str) -> Gaps:
    with path.open(encoding="utf-8") as stream:
        rows = [one for one in csv.DictReader(stream) if one[measure] and not one["diverged_at"]]
    base = {one["seed"]: float(one[measure]) for one in rows if one["recipe"] == "bf16"}
    found: dict[str, list[float]] = {}
    for one in rows:
        if one["recipe"] != "bf16" and one["seed"] in base:
            found.setdefault(one["recipe"], []).append(float(one[measure]) - base[one["seed"]])
    return found


def published_gaps(path: Path) -> dict[tuple[int, int], dict[str, float]]:
    """Gap to bf16 of each recipe, by millions of parameters and tokens a parameter."""
    with gzip.open(path, "rt", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    base = {(one["N"], one["D"]): float(one["final_loss"]) for one in rows if _is_baseline(one)}
    found: dict[tuple[int, int], dict[str, list[float]]] = {}
    for recipe in recipes():
        for row in rows:
            key = row["N"], row["D"]
            if _fits(row, recipe) and key in base:
                place = int(row["Nstr"]), _horizon(float(row["D/N"]))
                gaps = found.setdefault(place, {}).setdefault(recipe.name, [])
                gaps.append(float(row["final_loss"]) - base[key])
    return {
        place: {name: float(np.mean(gaps)) for name, gaps in sorted(one.items())}
        for place, one in sorted(found.items())
    }


def _is_baseline(row: Mapping[str, str]) -> bool:
    return row["group"] == "baseline"


def _horizon(ratio: float) -> int:
    """Tokens a parameter as the source counts them: 25, 50, 100, ..."""
    return int(25 * 2 ** round(np.log2(ratio / 25)))


def _fits(row: Mapping[str, str], recipe: Recipe) -> bool:
    return all(_same(row[key], value) for key, value in recipe.published.items())


def _same(given: str, wanted: str) -> bool:
    if wanted == "False":
        return given in ("", "False")
    try:
        return float(given) == float(wanted)
    except ValueError:
        return given == wanted


def spearman(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Of rows, both (draws, recipes)."""
    a, b = (stats.rankdata(one, axis=1) for one in (x, y))
    a, b = (one - one.mean(1, keepdims=True) for one in (a, b))
    return (a * b).sum(1) / np.sqrt((a * a).sum(1) * (b * b).sum(1))


def kendall(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Tau-b of rows, both (draws, recipes)."""
    a, b = (np.sign(one[:, :, None] - one[:, None, :]) for one in (x, y))
    both = (a * b).sum((1, 2))
    return both / np.sqrt((a * a).sum((1, 2)) * (b * b).sum((1, 2)))


STATISTICS: Mapping[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "spearman": spearman,
    "kendall": kendall,
}


def correlation(
    ours: Gaps, theirs: Mapping[str, float], names: Sequence[str], statistic: str
) -> tuple[float, float, float]:
    """A rank correlation of mean gaps, with its 95 % interval over recipes and seeds."""
    large = np.array([theirs[name] for name in names])
    small = np.array([np.mean(ours[name]) for name in names])
    generator = np.random.default_rng(0)
    rows = generator.integers(len(names), size=(DRAWS, len(names)))
    seeds = [generator.choice(ours[one], (DRAWS, len(ours[one]))).mean(1) for one in names]
    means = np.take_along_axis(np.array(seeds).T, rows, axis=1)
    compute = STATISTICS[statistic]
    drawn = compute(means, large[rows])
    low, high = np.nanpercentile(drawn, (2.5, 97.5))
    return float(compute(small[None], large[None])[0]), float(low), float(high)


def spread(gaps: Gaps) -> float:
    """Standard deviation of a paired difference over seeds, of recipes with two or more."""
    several = [one for one in gaps.values() if len(one) > 1]
    return float(np.sqrt(np.mean([np.var(one, ddof=1) for one in several])))


def _beside(losses: Path, others: Path, kinds: Mapping[str, str]) -> None:
    """Prints how two of our own files agree, and how far seeds are apart in both."""
    for measure in MEASURES:
        ours, theirs = (our_gaps(path, measure) for path in (losses, others))
        print(
            f"{measure}: s.d. of a paired difference {spread(ours):.4f} and {spread(theirs):.4f}"
        )
        means = {name: float(np.mean(gaps)) for name, gaps in theirs.items()}
        for title, chosen in KINDS.items():
            names = sorted(n for n in ours.keys() & means.keys() if kinds[n] in chosen)
            value, low, high = correlation(ours, means, names, "spearman")
            print(f"  {title} ({len(names)}): {value:+.2f} ({low:+.2f} to {high:+.2f})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table", type=Path)
    parser.add_argument("--losses", type=Path, default=RESULTS / "losses-0.01.csv")
    parser.add_argument("--beside", type=Path)
    given = parser.parse_args()
    large = published_gaps(given.table)
    kinds = {one.name: one.kind for one in recipes()}
    lines = []
    for measure in MEASURES:
        ours = our_gaps(given.losses, measure)
        for (size, tokens), theirs in large.items():
            for title, chosen in KINDS.items():
                names = [one for one in theirs if one in ours and kinds[one] in chosen]
                if len(names) < LEAST:
                    continue
                for statistic in STATISTICS:
                    found = correlation(ours, theirs, names, statistic)
                    lines.append((measure, size, tokens, title, len(names), statistic, *found))
    rest = given.losses.stem.removeprefix("losses").removeprefix("-0.01")
    path = RESULTS / f"correlation{rest}.csv"
    with path.open("w", newline="", encoding="utf-8") as stream:
        out = csv.writer(stream, lineterminator="\n")
        out.writerow(COLUMNS)
        out.writerows((*one[:6], *(f"{value:.3f}" for value in one[6:])) for one in lines)
    for one in lines:
        if one[0] == "held_out" and one[5] == "spearman":
            print(f"{one[1]} M, {one[2]} tokens: {one[3]} ({one[4]}): {one[6]:+.2f} "
                  f"({one[7]:+.2f} to {one[8]:+.2f})")  # fmt: skip
    if given.beside is not None:
        _beside(given.losses, given.beside, kinds)
    print("the published sizes and horizons with the first one, Spearman:")
    first, *others = sorted(large)
    for place in others:
        names = sorted(large[first].keys() & large[place].keys())
        pair = (np.array([[large[one][name] for name in names]]) for one in (first, place))
        print(f"  {place[0]} M, {place[1]} tokens: {spearman(*pair)[0]:+.2f} of {len(names)}")


if __name__ == "__main__":
    main()
