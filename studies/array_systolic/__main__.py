"""Are a systolic array's cycles those of SCALE-Sim?

Usage: python -m studies.array_systolic

Maps every row of SCALE-Sim's tables (`oracle.py` writes them) and writes
`results/compute_errors.csv`: layers and equal ones by dataflow and array. Prints the README's
table.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from hwmodels.estimators.array.schedule import Task, schedule
from studies.array_systolic.ours import array, nest

RESULTS = Path(__file__).parent / "results"


def without_stalls(table: pd.DataFrame) -> pd.Series:
    """Our cycles of the rows of `compute.csv`."""
    found = [
        schedule(array(row), Task(nest=nest(row)), "latency").cost.cycles
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


def published() -> str:
    """The README's table."""
    table = pd.read_csv(RESULTS / "compute_errors.csv")
    table["share"] = table["equal"].astype(str) + " of " + table["layers"].astype(str)
    shown = table.pivot(index="dataflow", columns="array", values="share")
    lines = [
        "| dataflow | " + " | ".join(shown.columns) + " |",
        "|---" * (len(shown.columns) + 1) + "|",
    ]
    lines += [
        f"| {name} | " + " | ".join(row) + " |"
        for name, row in zip(shown.index, shown.values, strict=True)
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    compute_errors().to_csv(RESULTS / "compute_errors.csv", index=False)
    print(published())
