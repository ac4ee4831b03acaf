"""Intervals: how far measured times lie from predicted ones, on shapes and devices left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from hwmodels.devices.load import load_device
from hwmodels.estimators.gpu.kinship import Kin
from hwmodels.estimators.gpu.learned import Spread
from hwmodels.fit.left_out import ends_of
from hwmodels.fit.residual import Model, fit_model, runs

Floats = NDArray[np.float64]

SLOPES = (-2.0, 3.0)
"""Range in which the slope of the scale is looked for."""
SLOPE_RIDGE = 0.01
LEAST_ERROR = 0.01
"""Added to |errors|, so that a lucky row does not count for more than the noise."""
WHOLE_DOUBT = Spread(low=-1.0, high=1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Errors:
    """log(measured / predicted) of rows whose device the model never saw, each (rows,)."""

    log: Floats
    beyond: Floats
    """The part of it that the spread of shapes leaves to the device, with all of the doubt."""
    overhead: Floats
    """Share of the predicted time that is no GEMM."""
    devices: NDArray[np.str_]


class DeviceFits:
    """Models of some devices of a table, each fitted once."""

    def __init__(self, table: pd.DataFrame, seed: int = 0) -> None:
        self._table = table
        self._seed = seed
        self._models: dict[frozenset[str], Model] = {}

    def model(self, devices: Sequence[str] | frozenset[str]) -> Model:
        """The model of these devices, with the spread of shapes left out on them."""
        key = frozenset(devices)
        if key not in self._models:
            rows = self._rows(key)
            model = fit_model(rows, self._seed)
            names = rows["device"].to_numpy(dtype=str)
            seen = spread_of(model.scores, np.zeros(len(rows)), names)
            learned = replace(model.learned, seen=replace(seen, slope=0.0))
            self._models[key] = replace(model, learned=learned)
        return self._models[key]

    def whole(self, devices: Sequence[str] | frozenset[str]) -> Model:
        """The same with the spread of devices, from leaving each of them out."""
        model = self.model(devices)
        learned = replace(model.learned, unseen=unseen_spread(self.errors(devices)))
        return replace(model, learned=learned)

    def errors(self, devices: Sequence[str] | frozenset[str]) -> Errors:
        """Each of these devices as the model of the others predicts it."""
        return _joined([self._left_out(one, frozenset(devices)) for one in sorted(devices)])

    def _rows(self, devices: frozenset[str]) -> pd.DataFrame:
        return self._table[self._table["device"].isin(devices)].reset_index(drop=True)

    def _left_out(self, device: str, devices: frozenset[str]) -> Errors:
        rows = self._rows(frozenset({device}))
        model = self.model(devices - {device})
        account = model.account(rows)
        errors = np.log(rows["latency_s"].to_numpy() / model.latency_s(rows, account))
        overhead = model.overhead_share(rows, account)
        beyond = np.zeros(len(rows))
        learned = replace(model.learned, unseen=WHOLE_DOUBT)
        for name, runtime, index in runs(rows):
            kin = Kin.of(load_device(name))
            features = account.features[index]
            doubt = learned.doubt(features, runtime, kin, np.zeros(len(index)))
            share = learned.doubts(features, runtime, kin)
            end = np.where(errors[index] < 0, doubt.low, doubt.high)
            shapes = end**2 - share
            left = np.clip(errors[index] ** 2 - shapes, 0.0, None) / np.maximum(share, 1e-3)
            beyond[index] = np.sign(errors[index]) * np.sqrt(left)
        return Errors(
            log=errors, beyond=beyond, overhead=overhead,
            devices=rows["device"].to_numpy(dtype=str),
        )  # fmt: skip


def unseen_spread(errors: Errors) -> Spread:
    """The spread that relatives leave unknown of a device, from devices that were left out.

    An error counts as far as it is beyond the spread of shapes, and by the root of the doubt that
    its device was in: then the interval of `learned`, of both, holds `COVERAGE` of such rows.
    """
    return spread_of(errors.beyond, errors.overhead, errors.devices)


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
    low, high = ends_of(scores, weights)
    return Spread(low=low, high=high, slope=slope)


def _joined(parts: list[Errors]) -> Errors:
    return Errors(
        log=np.concatenate([part.log for part in parts]),
        beyond=np.concatenate([part.beyond for part in parts]),
        overhead=np.concatenate([part.overhead for part in parts]),
        devices=np.concatenate([part.devices for part in parts]),
    )
