"""Additive ensembles of binary trees, evaluated in numpy and stored as plain arrays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int32]

INTEGER_FIELDS = ("roots", "feature", "left", "right")
FLOAT_FIELDS = ("threshold", "value")
ROWS_AT_ONCE = 4096
"""Kernels that walk down the trees together: what the arrays of a step fit a cache with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trees:
    """An additive ensemble of binary trees; nodes of all trees in one array."""

    roots: Integers
    """First node of each tree, shape (trees,)."""
    feature: Integers
    """Feature that a node asks for, -1 for a leaf, shape (nodes,)."""
    threshold: Floats
    left: Integers
    right: Integers
    value: Floats
    """Contribution of a leaf, shape (nodes,)."""
    offset: float
    depth: int

    def predict(self, features: Floats) -> Floats:
        """(rows, features) to (rows,)."""
        blocks = range(0, max(len(features), 1), ROWS_AT_ONCE)
        return np.concatenate([self._block(features[at : at + ROWS_AT_ONCE]) for at in blocks])

    def _block(self, features: Floats) -> Floats:
        """All trees walk down together, shape (trees, rows): a step is one look-up for all."""
        rows = np.arange(len(features))
        node = np.broadcast_to(self.roots[:, None], (len(self.roots), len(features)))
        for _ in range(self.depth):
            asked = self.feature[node]
            goes_left = features[rows, np.maximum(asked, 0)] <= self.threshold[node]
            child = np.where(goes_left, self.left[node], self.right[node])
            node = np.where(asked >= 0, child, node)
        # Added one after the other: `sum` adds in an order that depends on the number of rows, and
        # a kernel would not cost alone what it costs among others, to the last bit.
        first = np.full((1, len(features)), self.offset)
        return np.asarray(np.cumsum(np.vstack([first, self.value[node]]), axis=0)[-1])


def with_name(features: Floats, name: str, names: tuple[str, ...]) -> Floats:
    """Features beside one column a name, 1 for this one; an unknown name has none."""
    columns = np.array([float(name == one) for one in names])
    return np.hstack([features, np.broadcast_to(columns, (len(features), len(names)))])


def trees_from_arrays(
    arrays: Mapping[str, NDArray[np.generic]], scalars: Mapping[str, float], prefix: str = ""
) -> Trees:
    """The inverse of `trees_to_arrays`."""
    found = {name: np.asarray(arrays[prefix + name]) for name in (*INTEGER_FIELDS, *FLOAT_FIELDS)}
    floats = {name: found.pop(name).astype(float) for name in FLOAT_FIELDS}
    return Trees(**found, **floats, offset=float(scalars["offset"]), depth=int(scalars["depth"]))


def trees_to_arrays(
    trees: Trees, prefix: str = ""
) -> tuple[dict[str, NDArray[np.generic]], dict[str, float]]:
    """Arrays by prefixed name, and what is a number."""
    arrays: dict[str, NDArray[np.generic]] = {
        prefix + name: getattr(trees, name) for name in INTEGER_FIELDS
    }
    arrays |= {prefix + name: getattr(trees, name).astype(np.float32) for name in FLOAT_FIELDS}
    return arrays, {"offset": trees.offset, "depth": trees.depth}
