"""Few-shot adaptation of a model to a device that it never saw, from rows of its table."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hwmodels.devices.load import load_device
from hwmodels.estimators.gpu.gemm_correction import GemmSample, gemm_correction
from hwmodels.estimators.gpu.kinship import Kin
from hwmodels.estimators.gpu.learned import Doubt
from hwmodels.estimators.gpu.samples import LEAST_GEMM
from hwmodels.fit.predict import Prediction
from hwmodels.fit.residual import Model, runs

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """Seconds of rows and the ends of their intervals, each of shape (rows,)."""

    latency_s: Floats
    low_s: Floats
    high_s: Floats


def adapt(model: Model, measured: pd.DataFrame) -> tuple[GemmSample, ...]:
    """Samples of a device: how far the model is off on the GEMMs of the measured rows."""
    account = model.account(measured)
    gemm, extra = model.parts_s(measured, account)
    left = np.maximum(measured["latency_s"].to_numpy() - extra, LEAST_GEMM * gemm)
    ratios = np.log(left / gemm)
    found = []
    for device, runtime, rows in runs(measured):
        share = (gemm / (gemm + extra))[rows]
        doubt = _doubt(model, account.take(rows), share, device, runtime).of_part(share)
        found += [
            GemmSample(
                runtime=runtime,
                features=tuple(map(float, account.features[row])),
                log_ratio=float(ratios[row]),
                low=float(doubt.low[index]),
                high=float(doubt.high[index]),
                device_sd=float(doubt.device_sd[index]),
                noise_sd=float(doubt.noise_sd[index]),
            )
            for index, row in enumerate(rows)
        ]
    return tuple(found)


def forecast(model: Model, samples: tuple[GemmSample, ...], table: pd.DataFrame) -> Forecast:
    """A table's rows as the samples correct their GEMMs; without samples as predicted."""
    account = model.account(table)
    gemm, extra = model.parts_s(table, account)
    correction, low, high = (np.zeros(len(table)) for _ in range(3))
    for device, runtime, rows in runs(table):
        share = (gemm / (gemm + extra))[rows]
        doubt = _doubt(model, account.take(rows), share, device, runtime)
        features = account.features[rows]
        posterior = gemm_correction(samples, features, runtime, doubt.of_part(share))
        correction[rows] = posterior.mean
        low[rows], high[rows] = posterior.width * doubt.low, posterior.width * doubt.high
    seconds = gemm * np.exp(correction) + extra
    return Forecast(
        latency_s=np.maximum(seconds, account.light_s),
        low_s=np.maximum(seconds * np.exp(low), account.light_s),
        high_s=np.maximum(seconds * np.exp(high), account.light_s),
    )


def _doubt(
    model: Model, account: Prediction, share: Floats, device: str, runtime: str
) -> Doubt:  # fmt: skip
    kin = Kin.of(load_device(device))
    return model.learned.doubt(account.features, runtime, kin, 1 - share)
