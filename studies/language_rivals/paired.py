"""Paired differences of recipes: the same windows, so that their own hardness cancels.

`python -m studies.language_rivals.paired` reads `results/windows.csv` and writes
`results/paired.csv`: mean difference of the divergence in nats a token, its standard error over
windows, and Student's interval of 95 %.
"""

from __future__ import annotations

import csv

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from studies.language_rivals import score

PAIRED = score.RESULTS.with_name("paired.csv")
MIXES, BUDGETS = ("Q4_K_M", "Q5_K_M"), ("4.5", "5.0", "6.0")
MODELOPT = ("ModelOpt", "ModelOpt, apart")
LEVEL = 0.95
Recipe = tuple[str, str]


def pairs() -> list[tuple[Recipe, Recipe]]:
    """Recipes of one size, `dse`'s first."""
    found: list[tuple[Recipe, Recipe]] = []
    for mix in MIXES:
        own, types = ("dse", f"mix in the bytes of {mix}"), ("dse", f"types of {mix}")
        rival = ("llama.cpp", f"{mix}, importance")
        rounded = ("llama.cpp", f"dse's types in the bytes of {mix}, importance")
        kept = ("dse", f"mix with its table in the bytes of {mix}")
        learned = ("dse", f"mix, GPTQ, in the bytes of {mix}")
        found += [(own, rival), (rounded, rival), (kept, rival), (own, types), (types, rival)]
        found += [(learned, rival), (learned, own)]
    for budget in BUDGETS:
        own = ("dse", f"{budget}, searched ranges")
        found += [(own, (tool, own[1])) for tool in ("AutoRound", *MODELOPT, "dse, fused")]
        found += [(("dse, fused", own[1]), (MODELOPT[0], own[1]))]
    return found


def main() -> None:
    """Every pair that both windows were measured of."""
    with score.WINDOWS.open(newline="") as stream:
        known = {
            (row["tool"], row["recipe"]): np.array([
                float(value) for key, value in row.items() if key.startswith("kl_")
            ])
            for row in csv.DictReader(stream)
        }  # fmt: skip
    PAIRED.unlink(missing_ok=True)
    for first, second in pairs():
        if first in known and second in known:
            names = {"first": ": ".join(first), "second": ": ".join(second)}
            row = {**names, **difference(known[first], known[second])}
            score.put(PAIRED, row, ("first", "second"))
    print(PAIRED.read_text())


def difference(first: NDArray[np.float64], second: NDArray[np.float64]) -> dict[str, float | int]:
    """Of two recipes on the same windows."""
    found = first - second
    error = float(found.std(ddof=1) / len(found) ** 0.5)
    reach = float(stats.t.ppf((1 + LEVEL) / 2, len(found) - 1)) * error
    mean = float(found.mean())
    return {
        "difference": mean, "stderr": error, "low": mean - reach, "high": mean + reach,
        "windows_less": int((found < 0).sum()), "windows": len(found),
    }  # fmt: skip


if __name__ == "__main__":
    main()
