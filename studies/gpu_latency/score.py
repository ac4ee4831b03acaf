"""Scores of predicted latencies."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from hwmodels.fit.few_shot import Forecast

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


def interval_errors(held: pd.DataFrame, forecast: Forecast) -> pd.DataFrame:
    """Rows' intervals: whether they hold the time, width and interval score in log units."""
    measured = held["latency_s"].to_numpy()
    return log_interval_errors(
        np.log(measured / forecast.latency_s),
        np.log(forecast.low_s / forecast.latency_s),
        np.log(forecast.high_s / forecast.latency_s),
    )


def log_interval_errors(log_error: np.ndarray, low: np.ndarray, high: np.ndarray) -> pd.DataFrame:
    """The same of log(measured / predicted) and the ends of its intervals.

    Source: Gneiting and Raftery 2007, "Strictly proper scoring rules", equation 43.
    """
    miss = np.maximum(low - log_error, 0) + np.maximum(log_error - high, 0)
    return pd.DataFrame(
        {"inside": miss == 0, "width": high - low, "score": high - low + miss / TAIL}
    )


def interval_scores(errors: pd.DataFrame) -> dict[str, float]:
    """Coverage, median width as a ratio, mean interval score of rows of `interval_errors`."""
    return {
        "coverage": float(errors["inside"].mean()),
        "median_high_over_low": float(np.exp(errors["width"].median())),
        "interval_score": float(errors["score"].mean()),
    }
