"""The learned part of GPU latency: trees over dimensionless features, evaluated in numpy.

    latency = max(skeleton * exp(trees(features, runtime)), speed of light)

The artefact is one `.npz` of arrays without pickle (`python -m hwmodels.fit` writes it).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwmodels.estimators.gpu.constants import (
    SkeletonConstants,
    constants_from_json,
    constants_to_json,
)
from hwmodels.estimators.gpu.features import FEATURES
from hwmodels.estimators.gpu.overhead import Overhead, Overheads

Floats = NDArray[np.float64]
Integers = NDArray[np.int32]

INTEGER_FIELDS = ("roots", "feature", "left", "right")
FLOAT_FIELDS = ("threshold", "value")
REGIMES = ("launch", "memory", "compute")
UNSEEN_SHARE = 0.5
"""Share of the trees' correction for devices that did not go in: what trees learned of a few
devices is in part about those. Equal weights of two forecasts, as few devices cannot tell better
ones (Clemen 1989, "Combining forecasts: a review and annotated bibliography")."""
ROWS_AT_ONCE = 4096
"""Kernels that walk down the trees together: what the arrays of a step fit a cache with."""
ARTEFACT = Path(__file__).parent / "gpu.npz"


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """90 % interval of log(measured / predicted): (low, high) exp(slope * overhead share)."""

    low: float
    high: float
    slope: float
    """Doubt about quantising and widening beyond that about GEMMs."""

    def interval(self, overhead: Floats) -> tuple[Floats, Floats]:
        """Its ends for kernels of which a share `overhead` of the time is no GEMM."""
        scale = np.exp(self.slope * overhead)
        return self.low * scale, self.high * scale


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GpuArtefact:
    """Everything that is fitted: constants, trees, intervals."""

    version: str
    devices: tuple[str, ...]
    """Devices whose measurements went in."""
    runtimes: tuple[str, ...]
    constants: SkeletonConstants
    overheads: Overheads
    """Time of quantisation and weight-only kernels beside their GEMM, by `runtime/dtype`."""
    trees: Trees
    weight_only: tuple[str, ...]
    """Runtimes whose weight-only kernels were measured; those of others are taken to be as good
    as their 16-bit kernels."""
    seen: Spread
    """Of devices that went in: from folds over shapes."""
    unseen: Spread
    """Of other devices: from leaving one device out."""

    def correction(self, features: Floats, runtime: str, device: str) -> Floats:
        """log(measured / skeleton) as learned, shape (rows,)."""
        if runtime not in self.weight_only:
            features = as_dense(features)
        share = 1.0 if device in self.devices else UNSEEN_SHARE
        return share * self.trees.predict(with_runtime(features, runtime, self.runtimes))

    def spread(self, device: str) -> Spread:
        """The interval of predictions for a device."""
        return self.seen if device in self.devices else self.unseen

    def quantises(self, runtime: str) -> bool:
        """Whether a runtime's quantisation was measured."""
        return any(name.startswith(f"{runtime}/") for name in self.overheads)


def as_dense(features: Floats) -> Floats:
    """Features of weight-only kernels as if the weights were as wide as the activations."""
    inputs, weights = FEATURES.index("input_bytes"), FEATURES.index("weight_bytes")
    dense = features.copy()
    dense[:, weights] = np.maximum(features[:, inputs], features[:, weights])
    return dense


def with_runtime(features: Floats, runtime: str, runtimes: tuple[str, ...]) -> Floats:
    """Features beside one column a runtime, 1 for this one; an unknown runtime has none."""
    columns = np.array([float(runtime == name) for name in runtimes])
    return np.hstack([features, np.broadcast_to(columns, (len(features), len(runtimes)))])


def regimes(features: Floats) -> NDArray[np.str_]:
    """The bound of each kernel: launch, memory or compute, shape (rows,)."""
    index = [FEATURES.index(name) for name in ("fixed_share", "memory_share", "compute_share")]
    names = np.array(REGIMES)
    ruling: NDArray[np.str_] = names[np.argmax(features[:, index], axis=1)]
    return ruling


@cache
def load_artefact(path: Path = ARTEFACT) -> GpuArtefact:
    """The artefact of a file, read without pickle."""
    with np.load(path, allow_pickle=False) as arrays:
        meta = json.loads(str(arrays["meta"]))
        trees = trees_from_arrays(arrays, meta)
    return GpuArtefact(
        version=meta["version"],
        devices=tuple(meta["devices"]),
        runtimes=tuple(meta["runtimes"]),
        constants=constants_from_json(meta["constants"]),
        overheads={name: Overhead(**entry) for name, entry in meta["overheads"].items()},
        trees=trees,
        weight_only=tuple(meta["weight_only"]),
        seen=Spread(**meta["seen"]),
        unseen=Spread(**meta["unseen"]),
    )


def save_artefact(artefact: GpuArtefact, path: Path) -> None:
    """Writes the artefact; equal artefacts give equal files."""
    arrays, scalars = trees_to_arrays(artefact.trees)
    meta = {
        "version": artefact.version,
        "devices": list(artefact.devices),
        "runtimes": list(artefact.runtimes),
        "constants": constants_to_json(artefact.constants),
        "overheads": {name: asdict(one) for name, one in artefact.overheads.items()},
        "weight_only": list(artefact.weight_only),
        "seen": asdict(artefact.seen),
        "unseen": asdict(artefact.unseen),
        **scalars,
    }
    stored: dict[str, Any] = {"meta": np.array(json.dumps(meta, sort_keys=True)), **arrays}
    np.savez_compressed(path, **stored)


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
