"""Results: a CSV that grows with every finished task, and the tables of README.md."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from studies.search_methods.methods import METHODS

KEY = ("space", "cost", "method", "seed", "effort")
Row = Mapping[str, object]


def read(path: Path) -> list[Row]:
    """The rows of a file; none where there is no file."""
    if not path.exists():
        return []
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def write(path: Path, rows: Sequence[Row]) -> None:
    """All rows, in the order of the methods."""
    places = {name: place for place, name in enumerate(METHODS)}
    ordered = sorted(rows, key=lambda row: places.get(str(row["method"]), len(places)))
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(ordered[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(ordered)


def merged(old: Sequence[Row], new: Sequence[Row]) -> list[Row]:
    """The old rows that the new ones do not replace, then these."""
    fresh = {_key(row) for row in new}
    return [*(row for row in old if _key(row) not in fresh), *new]


def summary(rows: Sequence[Row], quantity: str = "share") -> str:
    """Median (worst) over seeds and costs of each space, by effort; how many runs stand behind it.

    Args:
        rows: of the results.
        quantity: `share`, `report_share` or `epsilon`.
    """
    columns = list(dict.fromkeys((str(r["space"]), int(str(r["effort"]))) for r in rows))
    columns.sort()
    head = [f"{space} {effort}" for space, effort in columns]
    lines = ["| method | " + " | ".join(head) + " |", "|---" * (len(head) + 1) + "|"]
    for method in dict.fromkeys(str(row["method"]) for row in rows):
        cells = [_cell(rows, quantity, method, *column) for column in columns]
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(rows: Sequence[Row], quantity: str, method: str, space: str, effort: int) -> str:
    found = [
        float(str(row[quantity]))
        for row in rows
        if (row["method"], row["space"], int(str(row["effort"]))) == (method, space, effort)
    ]
    if not found:
        return "-"
    worst = max(found) if quantity == "epsilon" else min(found)
    return f"{np.median(found):.3f} ({worst:.3f}; {len(found)})"


def _key(row: Row) -> tuple[str, ...]:
    return tuple(str(row[name]) for name in KEY)
