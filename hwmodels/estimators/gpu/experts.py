"""Experts of a mixture as tables of serving runtimes teach them: a batch of products and trees.

    latency = max(skeleton(batch of hit experts) * exp(share * trees(features, kernel)), light)

The skeleton is that of GEMMs; what the layer's routing, its uneven experts and the kernel's own
tiles add is learned. The artefact is one `.npz` of arrays without pickle
(`python -m hwmodels.fit.experts` writes it).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from hwmodels.devices.device import Device
from hwmodels.devices.load import load_device
from hwmodels.estimators.gpu.constants import SkeletonConstants
from hwmodels.estimators.gpu.features import FEATURES, gemm_features
from hwmodels.estimators.gpu.kernels import gemms_of
from hwmodels.estimators.gpu.kinship import Kin, shares
from hwmodels.estimators.gpu.learned import LEAST_DOUBT
from hwmodels.estimators.gpu.skeleton import Floats, GpuFigures, Terms, gemm_terms
from hwmodels.estimators.gpu.standing import SHARES, Measured, Standing, standing_of
from hwmodels.estimators.gpu.trees import Trees, trees_from_arrays, trees_to_arrays, with_name
from hwmodels.runtimes.runtime import Runtime
from hwmodels.work.kernel import Kernel
from hwmodels.work.loops import ExpertLoops

ARTEFACT = Path(__file__).parent / "experts.npz"
FIGURES = 6
"""Features of `_routing`."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ExpertArtefact:
    """Everything that is fitted."""

    version: str
    kernels: tuple[str, ...]
    """Kernels that were measured (`ExpertKernel.name`), in the order of the trees' columns."""
    measured: Measured
    trees: Trees
    seen: tuple[float, float]
    """90 % interval of log(measured / predicted) on measured devices."""
    unseen: tuple[float, float]

    def interval(self, standing: Standing, kernel: str, device: Device) -> tuple[float, float]:
        """The interval of a kernel; a sibling's is that of seen ones and its doubt (`kinship`)."""
        if standing != "sibling":
            return self.seen if standing == "seen" else self.unseen
        kin = [Kin.of(load_device(name)) for name in self.measured[kernel]]
        doubt = max(shares(Kin.of(device), kin, [True] * len(kin)).doubt, LEAST_DOUBT)
        low, high = (
            float(np.hypot(near, np.sqrt(doubt) * far))
            for near, far in zip(self.seen, self.unseen, strict=True)
        )
        return -low, high


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpertForecast:
    """Kernels of experts and what is known of them, each array (kernels, ...)."""

    terms: Terms
    features: Floats
    """Those of GEMMs, for what few measurements of GEMMs say of the device."""
    latency_s: Floats
    low: Floats
    """Ends of the interval in log units."""
    high: Floats


def forecast_experts(
    artefact: ExpertArtefact,
    kernels: Sequence[Kernel],
    device: Device,
    runtime: Runtime,
    constants: SkeletonConstants,
) -> ExpertForecast:
    """Kernels of experts under a runtime that names its code for them, in the order given."""
    terms, columns = expert_inputs(kernels, device, constants)
    names = np.array([expert_kernel(kernel, device, runtime) for kernel in kernels])
    correction, low, high = np.zeros((3, len(kernels)))
    for name in np.unique(names):
        rows = names == name
        standing = standing_of(artefact.measured, str(name), device)
        inputs = with_name(columns[rows], str(name), artefact.kernels)
        correction[rows] = SHARES[standing] * artefact.trees.predict(inputs)
        low[rows], high[rows] = artefact.interval(standing, str(name), device)
    return ExpertForecast(
        terms=terms,
        features=columns[:, : len(FEATURES)],
        latency_s=np.maximum(terms.latency_s * np.exp(correction), terms.light_s),
        low=low,
        high=high,
    )


def expert_inputs(
    kernels: Sequence[Kernel], device: Device, constants: SkeletonConstants
) -> tuple[Terms, Floats]:
    """The terms of the batch of hit experts, and what trees see beside the kernel's name."""
    gpu, gemms = GpuFigures.of(device), gemms_of(kernels, device)
    terms = gemm_terms(gemms, gpu, constants)
    return terms, np.hstack([gemm_features(gemms, terms, gpu), _routing(kernels)])


def has_experts(kernel: Kernel, runtime: Runtime) -> bool:
    """Whether a kernel multiplies experts under a runtime that names its code for them."""
    return (
        kernel.kind == "gemm"
        and isinstance(kernel.loops, ExpertLoops)
        and bool(runtime.expert_kernels)
    )


def expert_kernel(kernel: Kernel, device: Device, runtime: Runtime) -> str:
    """The name of the code that runs a kernel of experts; empty where none is known."""
    assert kernel.weight_format is not None, "kernels that multiply have both formats"
    assert kernel.input_format is not None, "kernels that multiply have both formats"
    found = runtime.expert_kernel(
        device.architecture, kernel.weight_format.element.name, kernel.input_format.element.name
    )
    return found.name if found else ""


def _routing(kernels: Sequence[Kernel]) -> Floats:
    """Features of how tokens meet experts, shape (kernels, FIGURES)."""
    rows = []
    for kernel in kernels:
        loops = kernel.loops
        assert isinstance(loops, ExpertLoops), "has_experts"
        rows.append(
            (
                np.log2(loops.experts),
                np.log2(loops.rows / loops.experts),
                loops.choices,
                loops.parts,
                loops.skew,
                loops.batch / loops.experts,
            )
        )
    return np.array(rows, dtype=float).reshape(-1, FIGURES)


@cache
def load_experts(path: Path = ARTEFACT) -> ExpertArtefact:
    """The artefact of a file, read without pickle."""
    with np.load(path, allow_pickle=False) as arrays:
        meta = json.loads(str(arrays["meta"]))
        trees = trees_from_arrays(arrays, meta["trees"])
    return ExpertArtefact(
        version=meta["version"],
        kernels=tuple(meta["kernels"]),
        measured=meta["measured"],
        trees=trees,
        seen=(meta["seen"][0], meta["seen"][1]),
        unseen=(meta["unseen"][0], meta["unseen"][1]),
    )


def save_experts(artefact: ExpertArtefact, path: Path) -> None:
    """Writes the artefact; equal artefacts give equal files."""
    found, scalars = trees_to_arrays(artefact.trees)
    meta = {
        "version": artefact.version,
        "kernels": list(artefact.kernels),
        "measured": {name: dict(where) for name, where in artefact.measured.items()},
        "trees": scalars,
        "seen": list(artefact.seen),
        "unseen": list(artefact.unseen),
    }
    arrays: dict[str, Any] = {**found, "meta": np.array(json.dumps(meta, sort_keys=True))}
    np.savez_compressed(path, **arrays)
