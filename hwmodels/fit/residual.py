"""Learning what the skeleton misses: boosted trees, exported to plain arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.ensemble import GradientBoostingRegressor

from hwmodels.estimators.gpu_residual import Spread, Trees, regimes, with_runtime
from hwmodels.fit.predict import Prediction, predict
from hwmodels.fit.skeleton import FittedSkeleton, fit_skeleton

Floats = NDArray[np.float64]

ROWS_PER_GROUP = 4000
TREES = 160
DEPTH = 5
LEAF_ROWS = 30
LEARNING_RATE = 0.07
COVERAGE = 0.9


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """Skeleton and trees, fitted to the same rows."""

    skeleton: FittedSkeleton
    trees: Trees
    runtimes: tuple[str, ...]

    def account(self, table: pd.DataFrame) -> Prediction:
        """The skeleton's account of a table."""
        return predict(table, self.skeleton.constants, self.skeleton.cycles)

    def latency_s(self, table: pd.DataFrame) -> Floats:
        """Predicted seconds of a table's rows; never below the speed of light."""
        account = self.account(table)
        correction = self.trees.predict(_inputs(table, account, self.runtimes))
        return np.maximum(account.skeleton_s * np.exp(correction), account.light_s)


def fit_model(table: pd.DataFrame, seed: int = 0, skeleton: FittedSkeleton | None = None) -> Model:
    """Skeleton constants, then trees on log(measured / skeleton).

    Every runtime of every device weighs the same, however many rows it has.
    """
    fitted = skeleton or fit_skeleton(table, seed)
    shuffled = table.sample(frac=1.0, random_state=seed)
    rows = shuffled.groupby(["device", "runtime"]).head(ROWS_PER_GROUP).reset_index(drop=True)
    runtimes = tuple(sorted(table["runtime"].unique()))
    account = predict(rows, fitted.constants, fitted.cycles)
    target = np.log(rows["latency_s"].to_numpy() / account.skeleton_s)
    counts = rows.groupby(["device", "runtime"])["k"].transform("size").to_numpy(dtype=float)
    boosted = GradientBoostingRegressor(
        loss="huber",
        n_estimators=TREES,
        max_depth=DEPTH,
        min_samples_leaf=LEAF_ROWS,
        learning_rate=LEARNING_RATE,
        subsample=0.4,
        max_features=0.4,
        random_state=seed,
    )
    boosted.fit(_inputs(rows, account, runtimes), target, sample_weight=len(rows) / counts)
    return Model(skeleton=fitted, trees=exported(boosted), runtimes=runtimes)


def exported(boosted: GradientBoostingRegressor) -> Trees:
    """The ensemble as arrays; thresholds are rounded up to float32 as scikit-learn compares."""
    trees = [stage.tree_ for stage in boosted.estimators_[:, 0]]
    starts = np.cumsum([0, *(tree.node_count for tree in trees)])
    shifted = [
        (
            tree.feature.astype(np.int32).clip(min=-1),
            tree.threshold,
            np.where(tree.children_left >= 0, tree.children_left + start, 0),
            np.where(tree.children_right >= 0, tree.children_right + start, 0),
            tree.value[:, 0, 0] * boosted.learning_rate,
        )
        for tree, start in zip(trees, starts, strict=False)
    ]
    feature, threshold, left, right, value = (
        np.concatenate(part) for part in zip(*shifted, strict=True)
    )
    return Trees(
        roots=starts[:-1].astype(np.int32),
        feature=feature,
        threshold=threshold.astype(np.float32).astype(float),
        left=left.astype(np.int32),
        right=right.astype(np.int32),
        value=value.astype(np.float32).astype(float),
        offset=float(np.ravel(boosted.init_.constant_)[0]),
        depth=max(tree.max_depth for tree in trees),
    )


def spread_of(log_errors: Floats, regime: NDArray[np.str_], devices: NDArray[np.str_]) -> Spread:
    """Interval of log(measured / predicted) that holds `COVERAGE` of the rows of each regime.

    Devices count equally, whatever the number of their rows.
    """
    tail = (1 - COVERAGE) / 2
    low: dict[str, float] = {}
    high: dict[str, float] = {}
    for name in ("launch", "memory", "compute"):
        errors, weights = [], []
        for device in np.unique(devices):
            chosen = log_errors[(regime == name) & (devices == device)]
            errors.append(chosen)
            weights.append(np.full(len(chosen), 1 / max(len(chosen), 1)))
        low[name] = _quantile(np.concatenate(errors), np.concatenate(weights), tail)
        high[name] = _quantile(np.concatenate(errors), np.concatenate(weights), 1 - tail)
    return Spread(low=low, high=high)


def _quantile(values: Floats, weights: Floats, level: float) -> float:
    if not len(values):
        return 0.0
    order = np.argsort(values)
    cumulative = np.cumsum(weights[order]) / weights.sum()
    index = min(int(np.searchsorted(cumulative, level)), len(values) - 1)
    return float(values[order][index])


def _inputs(table: pd.DataFrame, account: Prediction, runtimes: tuple[str, ...]) -> Floats:
    columns = np.zeros((len(table), account.features.shape[1] + len(runtimes)))
    names = table["runtime"].to_numpy()
    for runtime in np.unique(names):
        chosen = names == runtime
        columns[chosen] = with_runtime(account.features[chosen], str(runtime), runtimes)
    return columns


__all__ = ["Model", "exported", "fit_model", "regimes", "spread_of"]
