"""Learning what the skeleton misses: boosted trees, exported to plain arrays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.ensemble import GradientBoostingRegressor

from hwmodels.estimators.gpu.constants import SkeletonConstants
from hwmodels.estimators.gpu.overhead import Overhead
from hwmodels.estimators.gpu.residual import Trees, with_runtime
from hwmodels.fit.predict import Prediction, predict
from hwmodels.fit.skeleton import fit_constants, fit_overheads

Floats = NDArray[np.float64]

ROWS_PER_GROUP = 1200
TREES = 140
DEPTH = 5
LEAF_ROWS = 25
LEARNING_RATE = 0.07
ROUNDS = 2
"""Overheads are fitted beside the skeleton's GEMMs, then beside corrected ones."""
LEAST_GEMM = 0.3
"""Least share of the skeleton's time that a measured time leaves for its GEMM."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """Skeleton, overheads and trees, fitted to the same rows."""

    constants: SkeletonConstants
    overheads: Mapping[str, Overhead]
    trees: Trees
    runtimes: tuple[str, ...]
    residual_share: float = 1.0
    """Share of the trees' correction that counts; less on devices that they never saw."""

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
        learned = self.trees.predict(_inputs(table, known, self.runtimes))
        correction = self.residual_share * learned
        overhead = known.overhead_s(table, self.overheads)
        return np.maximum(known.gemm_s * np.exp(correction) + overhead, known.light_s)

    def overhead_share(self, table: pd.DataFrame, account: Prediction | None = None) -> Floats:
        """Share of the skeleton's seconds that is no GEMM, in [0, 1)."""
        known = account or self.account(table)
        overhead = known.overhead_s(table, self.overheads)
        return overhead / (known.gemm_s + overhead)


def fit_model(
    table: pd.DataFrame, seed: int = 0, constants: SkeletonConstants | None = None
) -> Model:
    """Constants, then overheads and trees in turn; rows are numbered from 0."""
    fitted = constants or fit_constants(table, seed)
    account = predict(table, fitted)
    runtimes = tuple(sorted(table["runtime"].unique()))
    inputs = _inputs(table, account, runtimes)
    gemm = account.gemm_s
    for _ in range(ROUNDS):
        overheads = fit_overheads(table, account, gemm, seed)
        trees = _fit_trees(table, account, inputs, account.overhead_s(table, overheads), seed)
        gemm = account.gemm_s * np.exp(trees.predict(inputs))
    return Model(constants=fitted, overheads=overheads, trees=trees, runtimes=runtimes)


def _fit_trees(
    table: pd.DataFrame, account: Prediction, inputs: Floats, overhead: Floats, seed: int
) -> Trees:
    """Trees on log(GEMM's share of the measured time / skeleton).

    Every number type of a runtime of a device weighs the same, however many rows it has; a row
    weighs as much as the GEMM has part in its time.
    """
    shuffled = table.sample(frac=1.0, random_state=seed)
    groups = ["device", "runtime", "dtype"]
    rows = shuffled.groupby(groups).head(ROWS_PER_GROUP).index.to_numpy()
    gemm = account.gemm_s
    left = np.maximum(table["latency_s"].to_numpy() - overhead, LEAST_GEMM * gemm)
    counts = table.loc[rows].groupby(groups)["k"].transform("size").to_numpy(dtype=float)
    share = gemm / (gemm + overhead)
    boosted = GradientBoostingRegressor(
        loss="huber",
        n_estimators=TREES,
        max_depth=DEPTH,
        min_samples_leaf=LEAF_ROWS,
        learning_rate=LEARNING_RATE,
        subsample=0.3,
        max_features=0.4,
        random_state=seed,
    )
    weights = share[rows] * len(rows) / counts
    boosted.fit(inputs[rows], np.log(left / gemm)[rows], sample_weight=weights)
    return exported(boosted)


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


def _inputs(table: pd.DataFrame, account: Prediction, runtimes: tuple[str, ...]) -> Floats:
    columns = np.zeros((len(table), account.features.shape[1] + len(runtimes)))
    names = table["runtime"].to_numpy()
    for runtime in np.unique(names):
        chosen = names == runtime
        columns[chosen] = with_runtime(account.features[chosen], str(runtime), runtimes)
    return columns
