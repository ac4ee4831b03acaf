"""Are a systolic array's cycles those of SCALE-Sim?

Usage: python -m studies.array_systolic

Maps every row of SCALE-Sim's tables (`oracle.py` writes them) and writes
`results/compute_errors.csv` (layers and equal ones by dataflow and array) and
`results/stall_errors.csv` (rows behind double buffers, and those within 3 %). Prints the README's
tables.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from hwmodels.estimators.array.schedule import Task, schedule
from hwmodels.estimators.array.timing import cycles_of
from hwmodels.estimators.array.traffic import Placed
from hwmodels.estimators.array.uneven import decided_unevenly
from hwmodels.estimators.array.unrolling import unrolling_of
from studies.array_systolic.ours import Row, buffered, nest, never_stalling, scale_sim_loops

RESULTS = Path(__file__).parent / "results"
NEAR = 0.03
KINDS = {"gemm": "products", "conv": "convolutions"}


def without_stalls(table: pd.DataFrame) -> pd.Series:
    """Our cycles of the rows of `compute.csv`."""
    found = [
        schedule(never_stalling(row), Task(nest=nest(row)), "latency").cost.cycles
        for row in table.to_dict("records")
    ]
    return pd.Series(found, index=table.index)


def compute_errors() -> pd.DataFrame:
    """Rows and equal ones, by dataflow and array."""
    table = pd.read_csv(RESULTS / "compute.csv")
    table["equal"] = without_stalls(table) == table["cycles"]
    table["array"] = table["rows"].astype(str) + "x" + table["columns"].astype(str)
    grouped = table.groupby(["dataflow", "array"], sort=False)["equal"]
    found: pd.DataFrame = grouped.agg(["size", "sum"]).reset_index()
    return found.rename(columns={"size": "layers", "sum": "equal"})


def with_stalls(table: pd.DataFrame) -> pd.Series:
    """Our cycles of the rows of `stalls.csv`, under SCALE-Sim's order of loops."""
    return pd.Series([_stalled(row) for row in table.to_dict("records")], index=table.index)


def _stalled(row: Row) -> float:
    hierarchy, loops = buffered(row), nest(row).flattened()
    placed = Placed(hierarchy=hierarchy, nest=loops, unrolling=unrolling_of(hierarchy, loops))
    found, _ = decided_unevenly(placed, scale_sim_loops(row, placed))
    return float(cycles_of(placed, found)[0][0])


def stall_errors() -> pd.DataFrame:
    """Rows, and those within 3 % of the double buffer and of SCALE-Sim, by kind and dataflow."""
    table = pd.read_csv(RESULTS / "stalls.csv")
    ours = with_stalls(table)
    error = (ours / table["buffer_cycles"] - 1).abs()
    table["near"] = error <= NEAR
    table["median"], table["worst"] = 100 * error, 100 * error
    table["scale_sim_near"] = (ours / table["cycles"] - 1).abs() <= NEAR
    table["in_order"] = in_order(table)
    table["in_order_near"] = table["in_order"] & table["scale_sim_near"]
    table["kind"] = table["name"].str.split("_").str[0].map(KINDS)
    found: pd.DataFrame = table.groupby(["kind", "dataflow"], sort=False).agg(
        rows=("near", "size"), near=("near", "sum"), median=("median", "median"),
        worst=("worst", "max"), scale_sim_near=("scale_sim_near", "sum"),
        in_order=("in_order", "sum"), in_order_near=("in_order_near", "sum"),
    )  # fmt: skip
    return found.round(1).reset_index()


COPIES = {
    "copied": "all of SCALE-Sim's faults",
    "counted_once": "stalls counted once",
    "demand_order": "fetched in the order of the demands",
    "neither": "both",
}
"""Variants of the copy of SCALE-Sim's buffers (`oracle.py copied`), in words."""


def copies() -> pd.DataFrame:
    """Rows of each variant that are equal to SCALE-Sim, near it, and near the double buffer."""
    rows = ["name", "dataflow", "sram", "words"]
    copied = pd.read_csv(RESULTS / "copied.csv")
    table = pd.read_csv(RESULTS / "stalls.csv").merge(copied, on=rows, validate="one_to_one")
    found = []
    for name in COPIES:
        near = {
            f"{other}_near": int(((table[name] / table[cycles] - 1).abs() <= NEAR).sum())
            for other, cycles in (("scale_sim", "cycles"), ("buffer", "buffer_cycles"))
        }
        equal = int((table[name] == table["cycles"]).sum())
        found.append({"variant": name, "rows": len(table), "equal": equal, **near})
    return pd.DataFrame(found)


def in_order(table: pd.DataFrame) -> pd.Series:
    """Whether SCALE-Sim fetched no more words than are needed, and half a buffer that it fills
    anyway."""
    kept = [
        table[f"{name}_words"]
        <= 1.03 * np.maximum(table[f"buffer_{name}_words"], table["sram"] / 2)
        for name in ("input", "weight")
    ]
    return kept[0] & kept[1]


def published() -> tuple[str, str, str]:
    """The README's tables."""
    table = pd.read_csv(RESULTS / "compute_errors.csv")
    table["share"] = table["equal"].astype(str) + " of " + table["layers"].astype(str)
    shown = table.pivot(index="dataflow", columns="array", values="share")
    equal = [
        f"| dataflow | {' | '.join(shown.columns)} |",
        "|---" * (len(shown.columns) + 1) + "|",
    ]
    equal += [f"| {name} | {' | '.join(row)} |" for name, row in shown.iterrows()]
    near = [
        "| | within 3 % of a double buffer | median, worst | within 3 % of SCALE-Sim "
        "| of rows that it fetches in order |",
        "|---|---|---|---|---|",
    ]
    near += [
        f"| {row['kind']}, {row['dataflow']} | {row['near']} of {row['rows']} "
        f"| {row['median']} %, {row['worst']} % | {row['scale_sim_near']} of {row['rows']} "
        f"| {row['in_order_near']} of {row['in_order']} |"
        for row in pd.read_csv(RESULTS / "stall_errors.csv").to_dict("records")
    ]
    copied = [
        "| SCALE-Sim's buffers, copied | its own cycles | within 3 % of them "
        "| within 3 % of a double buffer |",
        "|---|---|---|---|",
    ]
    copied += [
        f"| {COPIES[row['variant']]} | {row['equal']} of {row['rows']} "
        f"| {row['scale_sim_near']} of {row['rows']} | {row['buffer_near']} of {row['rows']} |"
        for row in copies().to_dict("records")
    ]
    return "\n".join(equal), "\n".join(near), "\n".join(copied)


if __name__ == "__main__":
    compute_errors().to_csv(RESULTS / "compute_errors.csv", index=False)
    stall_errors().to_csv(RESULTS / "stall_errors.csv", index=False)
    print(*published(), sep="\n\n")
