"""Scores of predicted latencies."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from hwmodels.estimators.gpu_residual import Spread, cells

TAIL = 0.05
"""Below and above a 90 % interval."""


def scores(held: pd.DataFrame, seconds: np.ndarray) -> dict[str, float]:
    """Errors in percent: of all rows, of bf16, weighted by time; ranks within the rows.

    `time_weighted` is the sum of absolute errors over the sum of times: long kernels rule it.
    """
    if not len(held):
        return {}
    measured = held["latency_s"].to_numpy()
    error = np.abs(seconds / measured - 1)
    plain = (held["dtype"] == "bf16").to_numpy()
    return {
        "mape_all": 100 * error.mean(),
        "mape_bf16": 100 * error[plain].mean() if plain.any() else float("nan"),
        "time_weighted": 100 * float(np.abs(seconds - measured).sum() / measured.sum()),
        "mean_abs_log": 100 * float(np.abs(np.log(seconds / measured)).mean()),
        "within_10": 100 * float((error <= 0.1).mean()),
        "spearman": float(spearmanr(seconds, measured).statistic),
    }


def interval_scores(
    held: pd.DataFrame, seconds: np.ndarray, features: np.ndarray, spread: Spread
) -> dict[str, float]:
    """Coverage, median width as a ratio, and the interval score in log units.

    Source: Gneiting and Raftery 2007, "Strictly proper scoring rules", equation 43.
    """
    names = cells(features)
    low = np.array([spread.low[name] for name in names])
    high = np.array([spread.high[name] for name in names])
    log = np.log(held["latency_s"].to_numpy() / seconds)
    miss = np.maximum(low - log, 0) + np.maximum(log - high, 0)
    return {
        "coverage": float(((log >= low) & (log <= high)).mean()),
        "median_high_over_low": float(np.median(np.exp(high - low))),
        "interval_score": float(np.mean(high - low + miss / TAIL)),
    }
