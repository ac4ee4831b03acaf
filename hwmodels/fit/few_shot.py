"""Few-shot adaptation of a model to a device that it never saw, from rows of its table."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hwmodels.adaptation import Sample, adapted
from hwmodels.fit.residual import Model

Floats = NDArray[np.float64]


def adapt(model: Model, measured: pd.DataFrame) -> tuple[Sample, ...]:
    """Samples of a device: how far the model is off on the measured rows."""
    account = model.account(measured)
    features = account.features
    ratios = np.log(measured["latency_s"].to_numpy() / model.latency_s(measured, account))
    return tuple(
        Sample(runtime=str(runtime), features=tuple(map(float, row)), log_ratio=float(ratio))
        for runtime, row, ratio in zip(measured["runtime"], features, ratios, strict=True)
    )


def adapted_latency_s(model: Model, samples: tuple[Sample, ...], table: pd.DataFrame) -> Floats:
    """Seconds of a table's rows as the samples correct them."""
    account = model.account(table)
    seconds = model.latency_s(table, account)
    runtimes = table["runtime"].to_numpy()
    correction = np.zeros(len(table))
    for runtime in np.unique(runtimes):
        chosen = runtimes == runtime
        correction[chosen] = adapted(samples, account.features[chosen], str(runtime)).mean
    return np.maximum(seconds * np.exp(correction), account.light_s)
