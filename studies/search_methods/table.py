"""Results: a CSV that grows with every finished task, and the tables of README.md."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from studies.search_methods.methods import HELD_OUT, METHODS, SPACES

KEY = ("space", "cost", "method", "seed", "effort")
Row = Mapping[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """Median and (worst) over seeds and costs of one quantity."""

    space: str
    effort: int
    quantity: str = "share"

    def cell(self, rows: Sequence[Row], method: str) -> str:
        """Of one method; a dash where it was not run."""
        found = [
            float(str(row[self.quantity]))
            for row in rows
            if (row["method"], row["space"], int(str(row["effort"])))
            == (method, self.space, self.effort)
        ]
        if not found:
            return "-"
        worst = max(found) if self.quantity == "epsilon" else min(found)
        return f"{np.median(found):.3f} ({worst:.3f})"


ALL = tuple(name for name in METHODS if not name.startswith("ours, "))
OURS = ("ours, gradient", "ours, direct")
VARIANTS = tuple(name for name in METHODS if name.startswith("ours, "))
TABLES: Mapping[str, tuple[tuple[str, ...], tuple[Column, ...]]] = {
    "held out": (
        (*ALL, *OURS),
        (
            *(Column(space=HELD_OUT, effort=effort) for effort in (30, 60, 150)),
            *(Column(space=HELD_OUT, effort=e, quantity="log_share") for e in (30, 60)),
        ),
    ),
    "within a limit": (
        (
            "knapsack, gradient", "GP, log losses, 4 at once",
            "GP, log losses, limit, 4 at once", "ours, 4 at once", "ours, limit, 4 at once",
        ),
        tuple(Column(space=HELD_OUT, effort=e, quantity="within_share") for e in (30, 60)),
    ),
    "other spaces": (
        (*(name for name in ALL if METHODS[name].spaces == SPACES), *OURS),
        tuple(
            Column(space=space, effort=effort, quantity=quantity)
            for space in SPACES if space != HELD_OUT
            for effort in (30, 60) for quantity in ("share", "log_share")
        ),
    ),
    "variants": (
        VARIANTS,
        tuple(
            Column(space=HELD_OUT, effort=effort, quantity=quantity)
            for effort in (30, 60) for quantity in ("share", "log_share")
        ),
    ),
    "gains": (
        ("ours, gradient", "ours, linear gains", "ours, gains from 1e-3"),
        tuple(
            Column(space=space, effort=30, quantity=quantity)
            for space in SPACES for quantity in ("share", "log_share")
        ),
    ),
    "report split": (
        OURS,
        tuple(
            Column(space=space, effort=effort, quantity="report_share")
            for space in SPACES for effort in (30, 60)
        ),
    ),
}  # fmt: skip
"""The tables of README.md by name: methods, and what of them."""


def read(path: Path) -> list[Row]:
    """The rows of a file; none where there is no file."""
    if not path.exists():
        return []
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def write(path: Path, rows: Sequence[Row]) -> None:
    """All rows, in the order of the methods, spaces, costs, seeds and efforts."""
    places = {name: place for place, name in enumerate(METHODS)}

    def place(row: Row) -> tuple[int, str, str, int, int]:
        method = places[str(row["method"])]
        seed, effort = int(str(row["seed"])), int(str(row["effort"]))
        return method, str(row["space"]), str(row["cost"]), seed, effort

    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(sorted(rows, key=place))


def merged(old: Sequence[Row], new: Sequence[Row]) -> list[Row]:
    """The old rows that the new ones do not replace, then these."""
    fresh = {_key(row) for row in new}
    return [*(row for row in old if _key(row) not in fresh), *new]


def with_tables(text: str, rows: Sequence[Row]) -> str:
    """A README whose tables, each between two comments with its name, are those of the results."""
    for name, (methods, columns) in TABLES.items():
        lines = [
            "| method | " + " | ".join(_title(column) for column in columns) + " |",
            "|---" * (len(columns) + 1) + "|",
            *(
                f"| {method} | " + " | ".join(c.cell(rows, method) for c in columns) + " |"
                for method in methods
            ),
        ]
        before, mark, rest = text.partition(f"<!-- {name} -->\n")
        after = rest.partition("<!-- end -->")[2]
        text = "".join([before, mark, "\n".join(lines), "\n<!-- end -->", after])
    return text


def _title(column: Column) -> str:
    kind = {"share": "", "log_share": " log", "within_share": " within", "report_share": " report"}
    space = "" if column.space == HELD_OUT else f"{column.space} "
    return f"{space}{column.effort}{kind[column.quantity]}"


def _key(row: Row) -> tuple[str, ...]:
    return tuple(str(row[name]) for name in KEY)
