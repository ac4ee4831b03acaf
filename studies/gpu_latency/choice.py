"""Time lost by picking the format that is predicted the fastest, beside a threshold rule."""

from __future__ import annotations

import numpy as np
import pandas as pd
from real import SHAPE

NOTICEABLE = 0.10
"""Choices of a format count where the fastest and the slowest differ by more than this."""
CHOSEN_FROM = ("bf16", "fp8_dynamic", "nvfp4")


def scores(
    device: str,
    kept: pd.DataFrame,
    held: pd.DataFrame,
    real: pd.DataFrame,
) -> list[dict[str, object]]:
    """One row a runtime; `held` and `real` (of networks) have predictions as `seconds`."""
    rows: list[dict[str, object]] = []
    for runtime, group in held.groupby("runtime"):
        threshold = best_threshold(kept[kept["runtime"] == runtime])
        measured = pivot(group, "latency_s")
        if measured.shape[1] < 2 or measured.empty:
            continue
        best = measured.min(axis=1)
        matters = measured.max(axis=1) > best * (1 + NOTICEABLE)
        chosen = choices(measured, pivot(group, "seconds"), threshold)
        networks = real[real["runtime"] == runtime]
        rows.append(
            {
                "device": device, "runtime": runtime, "formats": " ".join(measured.columns),
                "shapes": int(matters.sum()),
                "right": float((chosen["ours"] == best)[matters].mean()),
                "threshold_right": float((chosen["threshold"] == best)[matters].mean()),
                **{f"{name}_regret": lost(chosen[name], best) for name in chosen},
                **{f"{name}_regret_real": value for name, value in
                   network_regrets(networks, threshold).items()},
            }
        )  # fmt: skip
    return rows


def network_regrets(real: pd.DataFrame, threshold: float) -> dict[str, float]:
    """Time lost in the GEMMs of a network, mean over networks."""
    found = []
    for _, rows in real.groupby("network"):
        measured = pivot(rows, "latency_s")
        calls = rows.groupby(SHAPE)["calls"].max().reindex(measured.index)
        chosen = choices(measured, pivot(rows, "seconds"), threshold)
        best = measured.min(axis=1) * calls
        found.append({name: lost(chosen[name] * calls, best) for name in chosen})
    return {str(name): mean for name, mean in pd.DataFrame(found).mean().items()}


def choices(measured: pd.DataFrame, predicted: pd.DataFrame, threshold: float) -> pd.DataFrame:
    """Seconds of each shape in the format that each rule picks."""
    narrow = [str(name) for name in measured if name != "bf16"]
    sizes = np.array([m * n * k for m, n, k in measured.index], dtype=float)
    rule = pd.Series(np.where(sizes > threshold, narrow[0], "bf16"), index=measured.index)
    narrowest = pd.Series(narrow[-1], index=measured.index)
    return pd.DataFrame(
        {
            "ours": picked(measured, predicted.reindex(measured.index).idxmin(axis=1)),
            "threshold": picked(measured, rule),
            "narrowest": picked(measured, narrowest),
        }
    )


def lost(seconds: pd.Series, best: pd.Series) -> float:
    return float((seconds.sum() - best.sum()) / best.sum())


def pivot(table: pd.DataFrame, column: str) -> pd.DataFrame:
    """Shapes by format; shapes that were measured in every format of the runtime."""
    rows = table[table["dtype"].isin(CHOSEN_FROM)]
    return rows.pivot_table(index=SHAPE, columns="dtype", values=column).dropna()


def picked(measured: pd.DataFrame, choice: pd.Series) -> pd.Series:
    columns = measured.columns.get_indexer(pd.Index(choice))
    values = measured.to_numpy()[np.arange(len(measured)), columns]
    return pd.Series(values, index=measured.index)


def best_threshold(kept: pd.DataFrame) -> float:
    """The M N K above which fp8 is best taken to be faster than bf16, on other devices."""
    tables = [pivot(rows, "latency_s") for _, rows in kept.groupby("device")]
    tables = [table for table in tables if {"bf16", "fp8_dynamic"} <= set(table)]
    if not tables:
        return 2.0**33
    both = pd.concat(tables)
    sizes = np.array([m * n * k for m, n, k in both.index], dtype=float)
    candidates = 2.0 ** np.arange(10, 46)
    missed = [np.where(sizes > c, both["fp8_dynamic"], both["bf16"]).sum() for c in candidates]
    return float(candidates[int(np.argmin(missed))])
