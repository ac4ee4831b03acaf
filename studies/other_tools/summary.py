"""`results/points.csv` and `searches.csv` as the tables and the figure of the README."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from dse.explore.solve.front import hypervolume, nondominated

RESULTS = Path(__file__).parent / "results"
SHARES = (0.875, 0.75, 0.625)
"""Budgets, of the bytes of 8-bit weights."""
COSTS = ("weight_bytes", "bops")
REFERENCE = np.array([1.05, 1.05])
"""Beyond the worst of the box, so that its edges count."""
COLOURS = {"dse": "#0a7", "dse-short": "#8c4", "aimet": "#c50", "mct": "#55c"}
TITLES = {
    "dse": "dse search",
    "dse-short": "dse search, 12 trials",
    "aimet": "AIMET AMP",
    "mct": "Sony MCT",
}


def main() -> None:
    """Prints the tables, writes `summary.csv` and `front.svg`."""
    points = pd.read_csv(RESULTS / "points.csv")
    searches = pd.read_csv(RESULTS / "searches.csv")
    wide = points["weight_bytes"].max()
    rows = []
    for (tool, seed), found in points.groupby(["tool", "seed"], sort=False):
        row = {"tool": tool, "seed": seed, "points": len(found)}
        kept = nondominated(found[["loss", COSTS[0]]].to_numpy())
        row["dominated"] = len(found) - int(kept.sum())
        for column in COSTS:
            row[f"hypervolume_{column}"] = volume(found, points, column)
        for share in SHARES:
            within = found[found["weight_bytes"] <= share * wide]
            best = within.loc[within["loss"].idxmin()]
            row[f"loss_at_{share}"], row[f"accuracy_at_{share}"] = best["loss"], best["accuracy"]
        rows.append(row)
    summary = pd.DataFrame(rows).merge(searches, on=["tool", "seed"])
    summary.to_csv(RESULTS / "summary.csv", index=False)
    columns = [name for name in summary.columns if name not in ("tool", "seed")]
    print(summary.groupby("tool", sort=False)[columns].median().T.to_string())
    (RESULTS / "front.svg").write_text(figure(points))


def volume(found: pd.DataFrame, points: pd.DataFrame, column: str) -> float:
    """Share of the box of all tools' recipes that one search's dominate; loss on a log scale."""
    low, high = points[column].min(), points[column].max()
    floor, ceiling = np.log(points["loss"].min()), np.log(points["loss"].max())
    scaled = np.column_stack([
        (np.log(found["loss"]) - floor) / (ceiling - floor), (found[column] - low) / (high - low)
    ])  # fmt: skip
    return hypervolume(scaled, REFERENCE) / float(REFERENCE.prod())


def figure(points: pd.DataFrame) -> str:
    """Loss over weight bytes of the first seed as SVG: every recipe, by tool."""
    first = points[points["seed"] == 0]
    sizes = first["weight_bytes"]
    x = np.interp(sizes.to_numpy(float), [sizes.min(), sizes.max()], [70, 560])
    logs = np.log10(first["loss"])
    y = np.interp(logs.to_numpy(float), [logs.min(), logs.max()], [330, 30])
    marks = [
        f'<circle cx="{a:.1f}" cy="{b:.1f}" r="4" fill="{COLOURS[tool]}"/>'
        for a, b, tool in zip(x, y, first["tool"], strict=True)
    ]
    legend = [
        f'<text x="430" y="{40 + 20 * i}" fill="{COLOURS[tool]}">{TITLES[tool]}</text>'
        for i, tool in enumerate(TITLES)
    ]
    ticks = [
        f'<text x="60" y="{np.interp(power, [logs.min(), logs.max()], [330, 30]):.0f}" '
        f'text-anchor="end">1e{power}</text>'
        for power in range(int(np.ceil(logs.min())), int(np.floor(logs.max())) + 1)
    ]
    low, high = first["weight_bytes"].min() / 1e3, first["weight_bytes"].max() / 1e3
    axes = (
        f'<text x="315" y="375" text-anchor="middle">weights, kB: {low:.0f} to {high:.0f}</text>'
        '<text x="70" y="18">loss, nats an image, report split</text>'
        '<rect x="62" y="22" width="506" height="316" fill="none" stroke="#999"/>'
    )
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 600 390" font-family="sans-serif" '
        f'font-size="13"><rect width="600" height="390" fill="white"/>{axes}{"".join(ticks)}'
        f"{''.join(legend)}{''.join(marks)}</svg>\n"
    )


if __name__ == "__main__":
    main()
