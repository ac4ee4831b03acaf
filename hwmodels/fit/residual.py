"""Learning what the skeleton misses of GEMMs: boosted trees of every device."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hwmodels.devices.load import load_device
from hwmodels.estimators.gpu.constants import SkeletonConstants
from hwmodels.estimators.gpu.kinship import Kin
from hwmodels.estimators.gpu.learned import TYPE, Learned, Source, Spread
from hwmodels.estimators.gpu.overhead import Overhead
from hwmodels.estimators.gpu.samples import LEAST_GEMM
from hwmodels.estimators.gpu.trees import Trees, with_name
from hwmodels.fit.predict import Prediction, predict
from hwmodels.fit.skeleton import fit_constants, fit_overheads
from hwmodels.fit.trees import Growth, grown
from hwmodels.operators.number_type import NUMBER_TYPES

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]

ROUNDS = 2
"""Overheads are fitted beside the skeleton's GEMMs, then beside corrected ones."""
FOLDS = 3
"""Groups of (n, k) that are left out in turn to see how far trees are off on new shapes."""
LEAST_ERROR = 0.02
"""Added to |errors| before their logarithm, so that a lucky row is not a sure one."""
GROUP = ["device", "runtime", "dtype"]
"""Columns of rows that weigh as much as any other such group, however many they are."""
NOTHING = Spread(low=0.0, high=0.0)


CORRECTION = Growth(trees=200, leaves=31, depth=6, leaf_rows=25, rate=0.1)
SCALE = Growth(trees=40, leaves=15, depth=4, leaf_rows=60, rate=0.1)
"""Fewer: what is learned is a spread, from one error a row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """Skeleton, overheads and trees, fitted to the same rows."""

    constants: SkeletonConstants
    overheads: Mapping[str, Overhead]
    learned: Learned
    scores: Floats
    """log(measured / predicted) over what `Source.scale` says, of the rows that the model was
    fitted to, each as the other shapes of its device predict it."""

    def account(self, table: pd.DataFrame) -> Prediction:
        """The skeleton's account of a table."""
        return predict(table, self.constants)

    def skeleton_s(self, table: pd.DataFrame, account: Prediction | None = None) -> Floats:
        """Seconds without what the trees learned; never below the speed of light."""
        known = account or self.account(table)
        seconds = known.gemm_s + known.overhead_s(table, self.overheads)
        return np.maximum(seconds, known.light_s)

    def latency_s(self, table: pd.DataFrame, account: Prediction | None = None) -> Floats:
        """Predicted seconds of a table's rows; never below the speed of light."""
        known = account or self.account(table)
        return np.maximum(sum(self.parts_s(table, known)), known.light_s)

    def parts_s(self, table: pd.DataFrame, account: Prediction) -> tuple[Floats, Floats]:
        """Seconds of GEMMs, widening included, and of quantising kernels beside them."""
        overhead = account.overhead_s(table, self.overheads)
        beside = table["dtype"].map(lambda name: NUMBER_TYPES[name].quantizes).to_numpy(bool)
        gemm = account.gemm_s * np.exp(self.correction(table, account))
        return gemm + np.where(beside, 0.0, overhead), np.where(beside, overhead, 0.0)

    def correction(self, table: pd.DataFrame, account: Prediction) -> Floats:
        """log(measured / skeleton) of GEMMs as learned, shape (rows,)."""
        found = np.zeros(len(table))
        for device, runtime, rows in runs(table):
            kin = Kin.of(load_device(device))
            found[rows] = self.learned.correction(account.features[rows], runtime, kin)
        return found

    def overhead_share(self, table: pd.DataFrame, account: Prediction | None = None) -> Floats:
        """Share of the skeleton's seconds that is no GEMM, in [0, 1)."""
        known = account or self.account(table)
        overhead = known.overhead_s(table, self.overheads)
        return overhead / (known.gemm_s + overhead)


def runs(table: pd.DataFrame) -> list[tuple[str, str, Indices]]:
    """Devices and runtimes of a table, with the positions of their rows."""
    groups = table.groupby(["device", "runtime"], sort=False).indices.items()
    named = [(cast("tuple[str, str]", names), np.asarray(rows)) for names, rows in groups]
    return [(device, runtime, rows) for (device, runtime), rows in named]


def fit_model(
    table: pd.DataFrame, seed: int = 0, constants: SkeletonConstants | None = None
) -> Model:
    """Constants, then overheads and trees in turn; rows are numbered from 0.

    The spreads of what is learned are nothing yet (`fit.spread`).
    """
    fitted = constants or fit_constants(table, seed)
    account = predict(table, fitted)
    runtimes = tuple(sorted(table["runtime"].unique()))
    inputs = _inputs(table, account, runtimes)
    gemm = account.gemm_s
    for _ in range(ROUNDS):
        overheads = fit_overheads(table, account, gemm, seed)
        target = _Target.of(table, account, account.overhead_s(table, overheads))
        trees = {device: target.trees(inputs, rows, seed) for device, rows in _device_rows(table)}
        learned = np.zeros(len(table))
        for device, rows in _device_rows(table):
            learned[rows] = trees[device].predict(inputs[rows])
        gemm = account.gemm_s * np.exp(learned)
    fold = pd.util.hash_pandas_object(table[["n", "k"]], index=False).to_numpy() % FOLDS
    sources, scores = {}, np.zeros(len(table))
    for device, rows in _device_rows(table):
        errors = target.errors_left_out(inputs, rows, fold.astype(np.intp), seed)
        scale = _scale(inputs[rows], errors, target.weights[rows], seed)
        scores[rows] = errors / np.exp(scale.predict(inputs[rows]))
        sources[device] = Source(
            kin=Kin.of(load_device(device)),
            trees=trees[device],
            scale=scale,
            kernels=_kernels(table.iloc[rows], account.features[rows]),
        )
    return Model(
        constants=fitted,
        overheads=overheads,
        learned=Learned(runtimes=runtimes, sources=sources, seen=NOTHING, unseen=NOTHING),
        scores=scores,
    )


def _device_rows(table: pd.DataFrame) -> list[tuple[str, Indices]]:
    groups = table.groupby("device").indices.items()
    return [(str(device), np.asarray(rows)) for device, rows in groups]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Target:
    """Targets of trees, each of shape (rows,)."""

    log: Floats
    """log(GEMM's share of the measured time / skeleton)."""
    weights: Floats
    """A row weighs as much as the GEMM has part in its time, a number type of a runtime of a
    device as much as any other."""
    measured: Floats
    gemm: Floats
    overhead: Floats

    @classmethod
    def of(cls, table: pd.DataFrame, account: Prediction, overhead: Floats) -> _Target:
        gemm, measured = account.gemm_s, table["latency_s"].to_numpy()
        left = np.maximum(measured - overhead, LEAST_GEMM * gemm)
        counts = table.groupby(GROUP)["k"].transform("size").to_numpy(dtype=float)
        return cls(
            log=np.log(left / gemm),
            weights=gemm / (gemm + overhead) / counts * len(table),
            measured=measured,
            gemm=gemm,
            overhead=overhead,
        )

    def trees(self, inputs: Floats, rows: Indices, seed: int) -> Trees:
        return grown(inputs[rows], self.log[rows], self.weights[rows], CORRECTION, seed)

    def errors_left_out(self, inputs: Floats, rows: Indices, fold: Indices, seed: int) -> Floats:
        """log(measured / predicted) of a device's rows, each from other folds."""
        errors = np.zeros(len(rows))
        for index in range(FOLDS):
            held = fold[rows] == index
            if held.all() or not held.any():
                continue
            learned = self.trees(inputs, rows[~held], seed).predict(inputs[rows[held]])
            chosen = rows[held]
            predicted = self.gemm[chosen] * np.exp(learned) + self.overhead[chosen]
            errors[held] = np.log(self.measured[chosen] / predicted)
        return errors


def _scale(inputs: Floats, errors: Floats, weights: Floats, seed: int) -> Trees:
    """Trees on the logarithm of |errors|."""
    return grown(inputs, np.log(np.abs(errors) + LEAST_ERROR), weights, SCALE, seed)


def _kernels(
    table: pd.DataFrame, features: Floats
) -> tuple[tuple[str, float, float, float], ...]:  # fmt: skip
    """Runtimes and types of a device's rows."""
    found: set[tuple[str, float, float, float]] = set()
    for runtime, rows in table.groupby("runtime").indices.items():
        kinds = np.unique(features[np.asarray(rows)][:, TYPE], axis=0)
        found |= {(str(runtime), float(a), float(w), float(i)) for a, w, i in kinds}
    return tuple(sorted(found))


def _inputs(table: pd.DataFrame, account: Prediction, runtimes: tuple[str, ...]) -> Floats:
    columns = np.zeros((len(table), account.features.shape[1] + len(runtimes)))
    names = table["runtime"].to_numpy()
    for runtime in np.unique(names):
        chosen = names == runtime
        columns[chosen] = with_name(account.features[chosen], str(runtime), runtimes)
    return columns
