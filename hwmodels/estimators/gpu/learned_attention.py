"""Attention as tables of serving runtimes teach it: constants, trees, intervals by phase.

    latency = max(skeleton * exp(share * trees(features, kernel)), speed of light)

The skeleton is `paged_attention`. The artefact is one `.npz` of arrays without pickle
(`python -m hwmodels.fit.attention` writes it).
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
from hwmodels.estimators.gpu.constants import SkeletonConstants
from hwmodels.estimators.gpu.kernels import WIDE_ELEMENTS, array, rates, sizes, temperatures
from hwmodels.estimators.gpu.paged_attention import PagedAttentions, PagedConstants, paged_terms
from hwmodels.estimators.gpu.skeleton import Floats, GpuFigures, Terms
from hwmodels.estimators.gpu.standing import SHARES, Measured, Standing, standing_of
from hwmodels.estimators.gpu.trees import (
    Trees,
    trees_from_arrays,
    trees_to_arrays,
    with_name,
)
from hwmodels.runtimes.runtime import AttentionKernel, Runtime
from hwmodels.work.kernel import Kernel

PhaseName = Literal["decode", "prefill"]
PHASES: tuple[PhaseName, ...] = ("decode", "prefill")
ARTEFACT = Path(__file__).parent / "attention.npz"


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """Everything learned of decoding, or of the rest."""

    constants: PagedConstants
    trees: Trees
    ends: Mapping[Standing, tuple[float, float]]
    """90 % interval of log(measured / predicted)."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AttentionArtefact:
    """Everything that is fitted."""

    version: str
    kernels: tuple[str, ...]
    """Kernels that were measured (`AttentionKernel.name`), in the order of the trees' columns."""
    measured: Measured
    phases: Mapping[PhaseName, Phase]

    def standing(self, kernel: AttentionKernel | None, device: Device) -> Standing:
        """Nearness of the kernel on the device to what was measured."""
        return standing_of(self.measured, kernel.name if kernel else "", device)


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """Seconds of kernels and the ends of their intervals in log units, each (kernels,)."""

    terms: Terms
    latency_s: Floats
    low: Floats
    high: Floats


def forecast(
    artefact: AttentionArtefact,
    kernels: Sequence[Kernel],
    device: Device,
    runtime: Runtime,
    skeleton: SkeletonConstants,
) -> Forecast:
    """Attention kernels under a runtime with a paged cache, in the order given."""
    gpu = GpuFigures.of(device)
    terms = {name: np.zeros(len(kernels)) for name in Terms.__dataclass_fields__}
    latency, low, high = np.zeros((3, len(kernels)))
    groups: dict[tuple[PhaseName, AttentionKernel | None], list[int]] = {}
    for index, kernel in enumerate(kernels):
        key = (phase_of(kernel), attention_kernel(kernel, device, runtime))
        groups.setdefault(key, []).append(index)
    for (phase, own), chosen in groups.items():
        learned, standing = artefact.phases[phase], artefact.standing(own, device)
        calls = paged_calls([kernels[index] for index in chosen], device, own)
        found, features = paged_terms(calls, gpu, learned.constants, skeleton)
        columns = with_name(features, own.name if own else "", artefact.kernels)
        # Of code that no runtime file names nothing is known but the skeleton.
        share = SHARES[standing] if own else 0.0
        correction = share * learned.trees.predict(columns)
        for name, values in terms.items():
            values[chosen] = getattr(found, name)
        latency[chosen] = np.maximum(found.latency_s * np.exp(correction), found.light_s)
        low[chosen], high[chosen] = learned.ends[standing]
    return Forecast(terms=Terms(**terms), latency_s=latency, low=low, high=high)


def is_paged(kernel: Kernel, device: Device, runtime: Runtime) -> bool:
    """Whether a kernel is attention over a runtime's paged cache on a GPU; none is in 32 bits."""
    return (
        kernel.kind == "attention"
        and device.kind == "gpu"
        and bool(runtime.paged_attention)
        and kernel.input_element not in WIDE_ELEMENTS
    )


def attention_kernel(kernel: Kernel, device: Device, runtime: Runtime) -> AttentionKernel | None:
    """The code that runs an attention: by device and element of its cache."""
    assert kernel.weight_format is not None, "kernels that multiply have both formats"
    return runtime.attention_kernel(device.architecture, kernel.weight_format.element.name)


def phase_of(kernel: Kernel) -> PhaseName:
    """Decoding has one query a sequence."""
    return "decode" if kernel.loops.queries == 1 else "prefill"  # type: ignore[union-attr]


def paged_calls(
    kernels: Sequence[Kernel], device: Device, own: AttentionKernel | None
) -> PagedAttentions:
    """Kernels of one code as arrays."""
    cold, warm = temperatures(kernels)
    heads, kv_heads = sizes(kernels, "heads"), sizes(kernels, "kv_heads")
    queries, keys, reach = (sizes(kernels, name) for name in ("queries", "keys", "reach"))
    packs = np.ones(len(kernels))
    if own is not None and own.packs_when_decoding:
        whole = array(kernels, lambda kernel: kernel.loops.window is None)  # type: ignore[union-attr]
        packs = whole * (queries == 1) * (heads > kv_heads)
    rate = rates(kernels, device)
    return PagedAttentions(
        batch=sizes(kernels, "batch"),
        heads=heads,
        kv_heads=kv_heads,
        queries=queries,
        keys=keys,
        reach=reach,
        depth=sizes(kernels, "depth"),
        macs=array(kernels, lambda kernel: kernel.macs),
        cache_width=array(kernels, _cache_width),
        cold_bytes=cold,
        warm_bytes=warm,
        causal=array(kernels, lambda kernel: kernel.loops.causal),  # type: ignore[union-attr]
        packs=packs,
        ops_per_s=rate * array(kernels, lambda kernel: kernel.efficiency),
        peak_ops_per_s=rate,
    )


def _cache_width(kernel: Kernel) -> float:
    assert kernel.weight_format is not None, "kernels that multiply have both formats"
    return kernel.weight_format.bits_per_element / 8


@cache
def load_attention(path: Path = ARTEFACT) -> AttentionArtefact:
    """The artefact of a file, read without pickle."""
    with np.load(path, allow_pickle=False) as arrays:
        meta = json.loads(str(arrays["meta"]))
        trees = {
            phase: trees_from_arrays(arrays, meta["phases"][phase]["trees"], f"{phase}_")
            for phase in PHASES
        }
    return AttentionArtefact(
        version=meta["version"],
        kernels=tuple(meta["kernels"]),
        measured=meta["measured"],
        phases={
            phase: Phase(
                constants=PagedConstants(**meta["phases"][phase]["constants"]),
                trees=trees[phase],
                ends={name: (low, high)
                      for name, (low, high) in meta["phases"][phase]["ends"].items()},
            )
            for phase in PHASES
        },
    )  # fmt: skip


def save_attention(artefact: AttentionArtefact, path: Path) -> None:
    """Writes the artefact; equal artefacts give equal files."""
    meta: dict[str, object] = {
        "version": artefact.version,
        "kernels": list(artefact.kernels),
        "measured": {name: dict(where) for name, where in artefact.measured.items()},
    }
    arrays: dict[str, Any] = {}
    phases: dict[str, object] = {}
    for name, phase in artefact.phases.items():
        trees, scalars = trees_to_arrays(phase.trees, f"{name}_")
        arrays.update(trees)
        phases[name] = {
            "constants": phase.constants.to_json(),
            "trees": scalars,
            "ends": {standing: list(ends) for standing, ends in phase.ends.items()},
        }
    meta["phases"] = phases
    arrays["meta"] = np.array(json.dumps(meta, sort_keys=True))
    np.savez_compressed(path, **arrays)
