"""The near end of kinship: a device that is the measured one, in another collection.

No two measured devices are siblings, so that what is left of an error when the device is the same
is seen on older versions of a runtime on the device itself: other kernels, another day, another
board. The trees come from the newest versions' other shapes.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from hwmodels.fit.measurement import read_aiconfigurator
from hwmodels.fit.residual import fit_model
from hwmodels.fit.skeleton import fit_constants

FOLDS = 3
LEAST_ROWS = 100


def versions(folder: Path, table: pd.DataFrame) -> Iterator[dict[str, object]]:
    """Errors on held-out shapes: of the rows that stand for the device, and of older ones."""
    older = read_aiconfigurator(folder, older=True)
    shapes = table[["m", "n", "k"]].drop_duplicates()
    older = older.merge(shapes, on=["m", "n", "k"])
    constants = fit_constants(table)
    for device, newest in table.groupby("device"):
        rows = newest.reset_index(drop=True)
        held = rows[_fold(rows) == 0].reset_index(drop=True)
        kept = rows[_fold(rows) != 0].reset_index(drop=True)
        model = fit_model(kept, constants=constants)
        known = held.assign(seconds=model.latency_s(held))
        other = older[(older["device"] == device)].drop_duplicates(
            ["runtime", "dtype", "m", "n", "k"]
        )
        other = other[_fold(other) == 0].reset_index(drop=True)
        if not len(other):
            continue
        other = other.assign(seconds=model.latency_s(other))
        for (runtime, dtype), group in other.groupby(["runtime", "dtype"]):
            same = known[(known["runtime"] == runtime) & (known["dtype"] == dtype)]
            if len(group) < LEAST_ROWS or not len(same):
                continue
            both = group.merge(same, on=["m", "n", "k"], suffixes=("", "_newest"))
            between = both["latency_s_newest"] / both["latency_s"] - 1
            yield {
                "device": device, "runtime": runtime, "dtype": dtype, "rows": len(group),
                "mape_newest": _mape(same), "mape_older": _mape(group),
                "versions_differ": 100 * between.abs().mean(),
            }  # fmt: skip


def _fold(rows: pd.DataFrame) -> pd.Series:
    return pd.util.hash_pandas_object(rows[["n", "k"]], index=False) % FOLDS


def _mape(rows: pd.DataFrame) -> float:
    return 100 * float((rows["seconds"] / rows["latency_s"] - 1).abs().mean())
