"""Intervals: how far measured times lie from predicted ones, on shapes and devices left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from hwmodels.estimators.gpu.residual import UNSEEN_SHARE, Spread
from hwmodels.fit.residual import Model, fit_model

Floats = NDArray[np.float64]

COVERAGE = 0.9
SLOPES = (-2.0, 3.0)
"""Range in which the slope of the scale is looked for."""
SLOPE_RIDGE = 0.01
LEAST_ERROR = 0.01
"""Added to |errors|, so that a lucky row does not count for more than the noise."""
SHARES = (0.0, UNSEEN_SHARE, 1.0)
"""Shares of the learned residual that errors are known for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Errors:
    """log(measured / predicted) of rows whose device the model never saw."""

    log: Floats
    """Shape (shares, rows), one line for each of `SHARES`."""
    overhead: Floats
    """Share of the predicted time that is no GEMM, shape (rows,)."""
    devices: NDArray[np.str_]

    def of(self, share: float) -> Floats:
        """Those with a share of the residual, shape (rows,)."""
        return np.asarray(self.log[SHARES.index(share)])

    def mean(self, share: float) -> float:
        """Mean |log| with a share of the residual, devices weighted equally."""
        errors = np.abs(self.of(share))
        return float(np.mean([errors[self.devices == one].mean() for one in set(self.devices)]))


class DeviceFits:
    """Models of some devices of a table, each fitted once."""

    def __init__(self, table: pd.DataFrame, seed: int = 0) -> None:
        self._table = table
        self._seed = seed
        self._models: dict[frozenset[str], Model] = {}
        self._errors: dict[frozenset[str], Errors] = {}

    def model(self, devices: Sequence[str] | frozenset[str]) -> Model:
        """The model of these devices."""
        key = frozenset(devices)
        if key not in self._models:
            rows = self._table[self._table["device"].isin(key)].reset_index(drop=True)
            self._models[key] = fit_model(rows, self._seed)
        return self._models[key]

    def errors(self, devices: Sequence[str] | frozenset[str]) -> Errors:
        """Each of these devices as the model of the others predicts it."""
        key = frozenset(devices)
        if key not in self._errors:
            self._errors[key] = _joined([self._left_out(one, key) for one in sorted(key)])
        return self._errors[key]

    def _left_out(self, device: str, devices: frozenset[str]) -> Errors:
        rows = self._table[self._table["device"] == device].reset_index(drop=True)
        model = self.model(devices - {device})
        account = model.account(rows)
        measured = rows["latency_s"].to_numpy()
        predicted = [
            replace(model, residual_share=share).latency_s(rows, account) for share in SHARES
        ]
        return Errors(
            log=np.log(measured / np.array(predicted)),
            overhead=model.overhead_share(rows, account),
            devices=rows["device"].to_numpy(dtype=str),
        )


def unseen_spread(fits: DeviceFits, devices: Sequence[str]) -> Spread:
    """The interval of a device that is none of these, from leaving each of them out.

    Those models know one device fewer than the one whose interval this is. Errors fall with the
    number n of known devices as a + b/n, which n - 2 and n - 1 of them determine; the interval is
    narrowed as much. (b cannot exceed what there is: a is not negative.)
    """
    known = len(devices) - 1
    errors = fits.errors(devices)
    now = errors.mean(UNSEEN_SHARE)
    factor = 1.0
    if known > 1:
        fewer = [fits.errors(frozenset(devices) - {one}).mean(UNSEEN_SHARE) for one in devices]
        fall = max(float(np.mean(fewer)) - now, 0.0) / (1 / (known - 1) - 1 / known)
        factor = 1 - min(fall, known * now) * (1 / known - 1 / (known + 1)) / now
    found = spread_of(errors.of(UNSEEN_SHARE), errors.overhead, errors.devices)
    return replace(found, low=found.low * factor, high=found.high * factor)


def spread_of(log_errors: Floats, overhead: Floats, devices: NDArray[np.str_]) -> Spread:
    """The interval of log(measured / predicted) that holds `COVERAGE` of rows like these.

    The errors' scale is taken as exp(slope * overhead share): the slope is Laplace's likeliest,
    the ends are quantiles of errors over scale. Devices count equally.

    Source: Lei et al. 2018, "Distribution-free predictive inference for regression", section 5.2
    (locally weighted conformal intervals); here what is left out are devices, not rows.
    """
    names, index = np.unique(devices, return_inverse=True)
    weights = 1 / np.bincount(index)[index] / len(names)
    sizes = np.abs(log_errors) + LEAST_ERROR

    def loss(slope: float) -> float:
        scaled = float(weights @ (sizes * np.exp(-slope * overhead)))
        return float(np.log(scaled) + slope * (weights @ overhead) + SLOPE_RIDGE * slope**2)

    slope = float(minimize_scalar(loss, bounds=SLOPES, method="bounded").x)
    scores = log_errors * np.exp(-slope * overhead)
    tail = (1 - COVERAGE) / 2
    low, high = (_quantile(scores, weights, level) for level in (tail, 1 - tail))
    return Spread(low=min(low, 0.0), high=max(high, 0.0), slope=slope)


def _quantile(values: Floats, weights: Floats, level: float) -> float:
    order = np.argsort(values)
    cumulative = np.cumsum(weights[order])
    index = min(int(np.searchsorted(cumulative, level * cumulative[-1])), len(values) - 1)
    return float(values[order][index])


def _joined(parts: list[Errors]) -> Errors:
    return Errors(
        log=np.concatenate([part.log for part in parts], axis=1),
        overhead=np.concatenate([part.overhead for part in parts]),
        devices=np.concatenate([part.devices for part in parts]),
    )
