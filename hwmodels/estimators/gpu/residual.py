"""The fitted part of GPU latency: constants, overheads, and what is learned beyond them.

    latency = max(skeleton * exp(correction) + overhead, speed of light)

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

from hwmodels.devices.device import Device
from hwmodels.estimators.gpu.constants import (
    SkeletonConstants,
    constants_from_json,
    constants_to_json,
)
from hwmodels.estimators.gpu.features import FEATURES
from hwmodels.estimators.gpu.kinship import Kin
from hwmodels.estimators.gpu.learned import Doubt, Learned, Source, Spread
from hwmodels.estimators.gpu.overhead import Overhead, Overheads
from hwmodels.estimators.gpu.trees import trees_from_arrays, trees_to_arrays

Floats = NDArray[np.float64]

REGIMES = ("launch", "memory", "compute")
ARTEFACT = Path(__file__).parent / "gpu.npz"
PARTS = ("trees", "scale")
"""Ensembles of a measured device."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GpuArtefact:
    """Everything that is fitted."""

    version: str
    constants: SkeletonConstants
    overheads: Overheads
    """Time of quantisation and weight-only kernels beside their GEMM, by `runtime/dtype`."""
    learned: Learned
    weight_only: tuple[str, ...]
    """Runtimes whose weight-only kernels were measured; those of others are taken to be as good
    as their 16-bit kernels."""

    def correction(self, features: Floats, runtime: str, device: Device) -> Floats:
        """log(measured / skeleton) as learned, shape (rows,)."""
        return self.learned.correction(self._known(features, runtime), runtime, _kin(device))

    def doubt(
        self, features: Floats, runtime: str, device: Device, overhead: Floats
    ) -> Doubt:  # fmt: skip
        """Certainty of that, for kernels of which a share `overhead` of the time is no GEMM."""
        features = self._known(features, runtime)
        return self.learned.doubt(features, runtime, _kin(device), overhead)

    def quantises(self, runtime: str) -> bool:
        """Whether a runtime's quantisation was measured."""
        return any(name.startswith(f"{runtime}/") for name in self.overheads)

    def _known(self, features: Floats, runtime: str) -> Floats:
        return features if runtime in self.weight_only else as_dense(features)


@cache
def _kin(device: Device) -> Kin:
    return Kin.of(device)


def as_dense(features: Floats) -> Floats:
    """Features of weight-only kernels as if the weights were as wide as the activations."""
    inputs, weights = FEATURES.index("input_bytes"), FEATURES.index("weight_bytes")
    dense = features.copy()
    dense[:, weights] = np.maximum(features[:, inputs], features[:, weights])
    return dense


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
        sources = {
            device: _source(entry, arrays, device) for device, entry in meta["sources"].items()
        }
    return GpuArtefact(
        version=meta["version"],
        constants=constants_from_json(meta["constants"]),
        overheads={name: Overhead(**entry) for name, entry in meta["overheads"].items()},
        learned=Learned(
            runtimes=tuple(meta["runtimes"]),
            sources=sources,
            seen=Spread(**meta["seen"]),
            unseen=Spread(**meta["unseen"]),
        ),
        weight_only=tuple(meta["weight_only"]),
    )


def _source(
    entry: Mapping[str, Any], arrays: Mapping[str, NDArray[np.generic]], device: str
) -> Source:
    kin = entry["kin"]
    found = {
        part: trees_from_arrays(arrays, entry[part], f"{device}/{part}/") for part in PARTS
    }  # fmt: skip
    return Source(
        kin=Kin(**{**kin, "figures": tuple(kin["figures"])}),
        kernels=tuple((name, a, w, i) for name, a, w, i in entry["kernels"]),
        **found,
    )


def save_artefact(artefact: GpuArtefact, path: Path) -> None:
    """Writes the artefact; equal artefacts give equal files."""
    arrays: dict[str, NDArray[np.generic]] = {}
    sources: dict[str, Any] = {}
    for device, source in artefact.learned.sources.items():
        entry: dict[str, Any] = {"kin": asdict(source.kin), "kernels": source.kernels}
        for part in PARTS:
            found, entry[part] = trees_to_arrays(getattr(source, part), f"{device}/{part}/")
            arrays |= found
        sources[device] = entry
    meta = {
        "version": artefact.version,
        "runtimes": list(artefact.learned.runtimes),
        "constants": constants_to_json(artefact.constants),
        "overheads": {name: asdict(one) for name, one in artefact.overheads.items()},
        "weight_only": list(artefact.weight_only),
        "seen": asdict(artefact.learned.seen),
        "unseen": asdict(artefact.learned.unseen),
        "sources": sources,
    }
    stored: dict[str, Any] = {"meta": np.array(json.dumps(meta, sort_keys=True)), **arrays}
    np.savez_compressed(path, **stored)
