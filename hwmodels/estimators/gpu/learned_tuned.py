"""Products under a runtime with a tuner (`Runtime.tuned`): their constants, trees, intervals.

    latency = max(skeleton * exp(share * trees(features)), speed of light)

The skeleton is that of every GEMM; its constants are what a tuner's best kernels reach on one
family of instruction sets, in shares and cycles. The artefact is one `.npz` of arrays without
pickle (`python -m hwmodels.fit.tuned` writes it).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np

from hwmodels.devices.device import Device
from hwmodels.estimators.gpu.constants import (
    SkeletonConstants,
    constants_from_json,
    constants_to_json,
)
from hwmodels.estimators.gpu.features import gemm_features
from hwmodels.estimators.gpu.kernels import gemms_of
from hwmodels.estimators.gpu.learned_attention import Forecast
from hwmodels.estimators.gpu.skeleton import Floats, GpuFigures, Terms, gemm_terms
from hwmodels.estimators.gpu.standing import SAME_GENERATION
from hwmodels.estimators.gpu.trees import Trees, trees_from_arrays, trees_to_arrays
from hwmodels.runtimes.runtime import Runtime
from hwmodels.work.kernel import Kernel

ARTEFACT = Path(__file__).parent / "tuned.npz"
Standing = Literal["seen", "other type", "other device"]
RELATED_SHARE = 0.5
"""Share of the trees' correction on another device of the measured generation: two forecasts,
equally weighted, as for attention."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TunedArtefact:
    """Everything that is fitted."""

    device: str
    """The device that was measured."""
    family: str
    version: float
    """Its architecture."""
    types: tuple[str, ...]
    """Types of kernels that the trees were grown on (`type_of`)."""
    constants: SkeletonConstants
    trees: Trees
    ends: Mapping[Standing, tuple[float, float]]
    """90 % interval of log(measured / predicted)."""

    def standing(self, kernel: Kernel, device: Device) -> Standing:
        """Nearness of a kernel on a device to what was measured."""
        if device.name != self.device:
            return "other device"
        return "seen" if type_of(kernel) in self.types else "other type"

    def share(self, kernel: Kernel, device: Device) -> float:
        """Share of the trees' correction that is a kernel's."""
        if type_of(kernel) not in self.types:
            return 0.0
        if device.name == self.device:
            return 1.0
        architecture = device.architecture
        near = abs(architecture.version - self.version) < SAME_GENERATION
        return RELATED_SHARE if near and architecture.family == self.family else 0.0


def is_tuned(kernel: Kernel, runtime: Runtime) -> bool:
    """Whether a kernel is a product that a tuner has picked."""
    return runtime.tuned and kernel.kind == "gemm"


def type_of(kernel: Kernel) -> str:
    """Element of the weight and whose scale it shares: what decides which code runs."""
    assert kernel.weight_format is not None, "kernels that multiply have both formats"
    return f"{kernel.weight_format.element.name}/{kernel.weight_format.granularity}"


def tuned_forecast(
    artefact: TunedArtefact, kernels: Sequence[Kernel], device: Device
) -> Forecast:  # fmt: skip
    """Tuned products, in the order given."""
    terms, features = tuned_terms(kernels, device, artefact.constants)
    share = np.array([artefact.share(kernel, device) for kernel in kernels])
    correction = share * artefact.trees.predict(features)
    ends = np.array([artefact.ends[artefact.standing(one, device)] for one in kernels])
    return Forecast(
        terms=terms,
        latency_s=np.maximum(terms.latency_s * np.exp(correction), terms.light_s),
        low=ends[:, 0],
        high=ends[:, 1],
    )


def tuned_terms(
    kernels: Sequence[Kernel], device: Device, constants: SkeletonConstants
) -> tuple[Terms, Floats]:
    """The skeleton's account of products, and the trees' inputs."""
    gpu = GpuFigures.of(device)
    gemms = gemms_of(kernels, device)
    terms = gemm_terms(gemms, gpu, constants)
    return terms, gemm_features(gemms, terms, gpu)


@cache
def load_tuned(path: Path = ARTEFACT) -> TunedArtefact:
    """The artefact of a file, read without pickle."""
    with np.load(path, allow_pickle=False) as arrays:
        meta = json.loads(str(arrays["meta"]))
        trees = trees_from_arrays(arrays, meta["trees"], "")
    return TunedArtefact(
        device=meta["device"],
        family=meta["family"],
        version=meta["version"],
        types=tuple(meta["types"]),
        constants=constants_from_json(meta["constants"]),
        trees=trees,
        ends={name: (low, high) for name, (low, high) in meta["ends"].items()},
    )


def save_tuned(artefact: TunedArtefact, path: Path) -> None:
    """Writes the artefact; equal artefacts give equal files."""
    arrays, scalars = trees_to_arrays(artefact.trees, "")
    meta: dict[str, Any] = {
        "device": artefact.device,
        "family": artefact.family,
        "version": artefact.version,
        "types": list(artefact.types),
        "constants": constants_to_json(artefact.constants),
        "trees": scalars,
        "ends": {name: list(ends) for name, ends in artefact.ends.items()},
    }
    stored: dict[str, Any] = {"meta": np.array(json.dumps(meta, sort_keys=True)), **arrays}
    np.savez_compressed(path, **stored)
