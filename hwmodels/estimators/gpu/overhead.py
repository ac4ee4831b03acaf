"""Time of a runtime's quantisation and dequantisation, as its own tables show.

    t = l t_launch + (n_0 + n_r r + n_k K + n_e e) / f + p max(D / W_dram, bytes / W_cache)

with r = ceil(M/c) the rows that one core quantises one after the other, e the elements that one
core handles: r K of a dynamically quantised activation, N K / c of a weight that a weight-only
kernel widens (p = 0: its bytes count in the GEMM). l launches, p passes, n in cycles.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple, dataclass

import numpy as np

from hwmodels.estimators.gpu.constants import SkeletonConstants
from hwmodels.estimators.gpu.skeleton import Floats, GpuFigures, dram_traffic
from hwmodels.operators.number_type import NUMBER_TYPES, NumberType


@dataclass(frozen=True, slots=True, kw_only=True)
class Overhead:
    """The equation's coefficients for one number type under one runtime."""

    launches: float
    row_cycles: float
    depth_cycles: float
    element_cycles: float
    passes: float
    fixed_cycles: float

    def seconds(self, basis: Floats) -> Floats:
        """Seconds of rows of a `basis`."""
        return np.asarray(basis @ np.array(astuple(self)))


Overheads = Mapping[str, Overhead]
"""By `runtime/dtype`."""


def has_overhead(number: NumberType) -> bool:
    """Whether times of a number type hold more than its GEMM."""
    return number.quantizes or number.is_weight_only or number.is_integer


def conversion_basis(
    rows: Floats,
    cols: Floats,
    moved_bytes: Floats,
    gpu: GpuFigures,
    constants: SkeletonConstants,
) -> Floats:
    """The equation's terms for activations of (rows, cols), shape (kernels, 6)."""
    per_core = np.ceil(rows / gpu.cores)
    dram = dram_traffic(np.zeros_like(rows), moved_bytes, gpu, constants)
    moving = np.maximum(dram / gpu.dram_bytes_per_s, moved_bytes / gpu.cache_bytes_per_s)
    return _stacked(per_core, cols, per_core * cols, moving, gpu)


def widening_basis(rows: Floats, outputs: Floats, depth: Floats, gpu: GpuFigures) -> Floats:
    """The equation's terms for weights of (outputs, depth), shape (kernels, 6)."""
    per_core = np.ceil(rows / gpu.cores)
    return _stacked(per_core, depth, outputs * depth / gpu.cores, 0 * rows, gpu)


def _stacked(
    per_core: Floats, depth: Floats, elements: Floats, moving: Floats, gpu: GpuFigures
) -> Floats:
    cycle = 1 / gpu.clock_hz
    launch = np.full_like(depth, gpu.launch_s)
    fixed = np.full_like(depth, cycle)
    terms = [launch, per_core * cycle, depth * cycle, elements * cycle, moving, fixed]
    return np.stack(terms, axis=1)


def overhead_s(overheads: Overheads, runtime: str, dtype: str, basis: Floats) -> Floats:
    """Seconds of a number type's overhead, shape (kernels,).

    A runtime whose quantisation was not measured takes the fastest of those with the type that
    were, a type that nobody has the fastest of all: who ships a format ships a kernel for it.
    Weight-only kernels of other runtimes are taken to be free of it.
    """
    known = overheads.get(f"{runtime}/{dtype}")
    if known is not None:
        return known.seconds(basis)
    number = NUMBER_TYPES.get(dtype)
    if number is not None and not number.quantizes:
        return np.zeros(len(basis))
    quantising = {
        name: one
        for name, one in overheads.items()
        if NUMBER_TYPES[name.partition("/")[2]].quantizes
    }
    same = [one for name, one in quantising.items() if name.endswith(f"/{dtype}")]
    nearest = same or list(quantising.values())
    if not nearest:
        return np.zeros(len(basis))
    return np.asarray(np.min([one.seconds(basis) for one in nearest], axis=0))
