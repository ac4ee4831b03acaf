"""Time lost by picking the format that is predicted the fastest, beside a threshold rule."""

from __future__ import annotations

import numpy as np
import pandas as pd

NOTICEABLE = 0.10
"""Choices of a format count where the fastest and the slowest differ by more than this."""
CHOSEN_FROM = ("bf16", "fp8_dynamic", "nvfp4")


def scores(
    device: str, kept: pd.DataFrame, held: pd.DataFrame, seconds: np.ndarray
) -> list[dict[str, object]]:
    """Time lost by picking the format that is predicted the fastest, beside a threshold rule."""
    rows = []
    guessed = held.assign(guess=seconds)
    for runtime, group in guessed.groupby("runtime"):
        threshold = best_threshold(kept[kept["runtime"] == runtime])
        measured = pivot(group, "latency_s")
        predicted = pivot(group, "guess").reindex(measured.index)
        if measured.shape[1] < 2 or measured.empty:
            continue
        narrow = [name for name in measured if name != "bf16"]
        best = measured.min(axis=1)
        matters = measured.max(axis=1) > best * (1 + NOTICEABLE)
        ours = picked(measured, predicted.idxmin(axis=1))
        sizes = np.array([m * n * k for m, n, k in measured.index], dtype=float)
        rule = np.where(sizes > threshold, narrow[0], "bf16")
        theirs = picked(measured, pd.Series(rule, index=measured.index))
        bits = picked(measured, pd.Series(narrow[-1], index=measured.index))
        rows.append(
            {
                "device": device, "runtime": runtime, "formats": " ".join(measured.columns),
                "shapes": int(matters.sum()),
                "right": float((ours == best)[matters].mean()),
                "regret": float((ours.sum() - best.sum()) / best.sum()),
                "threshold_right": float((theirs == best)[matters].mean()),
                "threshold_regret": float((theirs.sum() - best.sum()) / best.sum()),
                "narrowest_regret": float((bits.sum() - best.sum()) / best.sum()),
            }
        )  # fmt: skip
    return rows


def pivot(table: pd.DataFrame, column: str) -> pd.DataFrame:
    """Shapes by format; shapes that were measured in every format of the runtime."""
    rows = table[table["dtype"].isin(CHOSEN_FROM)]
    return rows.pivot_table(index=["m", "n", "k"], columns="dtype", values=column).dropna()


def picked(measured: pd.DataFrame, choice: pd.Series) -> pd.Series:
    columns = measured.columns.get_indexer(choice)
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
    lost = [np.where(sizes > c, both["fp8_dynamic"], both["bf16"]).sum() for c in candidates]
    return float(candidates[int(np.argmin(lost))])
