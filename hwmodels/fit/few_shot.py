"""Few-shot adaptation of a model to a device that it never saw, from rows of its table."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hwmodels.estimators.gpu.gemm_correction import GemmSample, gemm_correction
from hwmodels.estimators.gpu.residual import Spread
from hwmodels.fit.residual import Model

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """Seconds of rows and the ends of their intervals, each of shape (rows,)."""

    latency_s: Floats
    low_s: Floats
    high_s: Floats


def adapt(model: Model, spread: Spread, measured: pd.DataFrame) -> tuple[GemmSample, ...]:
    """Samples of a device: how far the model is off on the measured rows."""
    account = model.account(measured)
    ratios = np.log(measured["latency_s"].to_numpy() / model.latency_s(measured, account))
    low, high = spread.interval(model.overhead_share(measured, account))
    return tuple(
        GemmSample(
            runtime=str(runtime),
            features=tuple(map(float, account.features[row])),
            log_ratio=float(ratios[row]),
            low=float(low[row]),
            high=float(high[row]),
        )
        for row, runtime in enumerate(measured["runtime"])
    )


def forecast(
    model: Model, spread: Spread, samples: tuple[GemmSample, ...], table: pd.DataFrame
) -> Forecast:
    """A table's rows as the samples correct them; without samples as the model predicts them."""
    account = model.account(table)
    runtimes = table["runtime"].to_numpy()
    correction, width = np.zeros(len(table)), np.ones(len(table))
    for runtime in np.unique(runtimes):
        chosen = runtimes == runtime
        posterior = gemm_correction(samples, account.features[chosen], str(runtime))
        correction[chosen], width[chosen] = posterior.mean, posterior.width
    seconds = model.latency_s(table, account) * np.exp(correction)
    low, high = spread.interval(model.overhead_share(table, account))
    return Forecast(
        latency_s=np.maximum(seconds, account.light_s),
        low_s=np.maximum(seconds * np.exp(width * low), account.light_s),
        high_s=np.maximum(seconds * np.exp(width * high), account.light_s),
    )
