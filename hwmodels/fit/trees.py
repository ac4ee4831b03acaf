"""Boosted trees of scikit-learn as the plain arrays that estimators evaluate."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import GradientBoostingRegressor, HistGradientBoostingRegressor

from hwmodels.estimators.gpu.trees import Trees

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Growth:
    """Size of an ensemble."""

    trees: int
    leaves: int
    depth: int
    leaf_rows: int
    rate: float


def grown(inputs: Floats, target: Floats, weights: Floats, size: Growth, seed: int) -> Trees:
    """Boosted trees on squared errors."""
    boosted = HistGradientBoostingRegressor(
        max_iter=size.trees,
        max_leaf_nodes=size.leaves,
        max_depth=size.depth,
        min_samples_leaf=size.leaf_rows,
        learning_rate=size.rate,
        l2_regularization=1.0,
        max_bins=127,
        early_stopping=False,
        random_state=seed,
    )
    boosted.fit(inputs, target, sample_weight=weights / weights.mean())
    return exported_histogram(boosted)


def exported_histogram(boosted: HistGradientBoostingRegressor) -> Trees:
    """The ensemble as arrays, with thresholds in float32.

    They are rounded up: many are values of the data, which go left of themselves.
    """
    trees = [stage[0].nodes for stage in boosted._predictors]
    starts = np.cumsum([0, *(len(nodes) for nodes in trees)])
    nodes = np.concatenate(trees)
    start = np.repeat(starts[:-1], [len(one) for one in trees])
    leaf = nodes["is_leaf"].astype(bool)
    threshold = np.where(leaf, 0.0, nodes["num_threshold"]).astype(np.float32)
    return Trees(
        roots=starts[:-1].astype(np.int32),
        feature=np.where(leaf, -1, nodes["feature_idx"]).astype(np.int32),
        threshold=np.nextafter(threshold, np.float32(np.inf)).astype(float),
        left=np.where(leaf, 0, nodes["left"] + start).astype(np.int32),
        right=np.where(leaf, 0, nodes["right"] + start).astype(np.int32),
        value=np.where(leaf, nodes["value"], 0.0).astype(np.float32).astype(float),
        offset=float(np.ravel(boosted._baseline_prediction)[0]),
        depth=int(nodes["depth"].max()),
    )


def exported(boosted: GradientBoostingRegressor) -> Trees:
    """The ensemble as arrays, with thresholds in float32, in which scikit-learn compares."""
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
