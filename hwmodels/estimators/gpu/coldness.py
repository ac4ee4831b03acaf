"""The share of what warm tables taught of GEMMs that holds for weights from main memory.

A table times one GEMM again and again, with a few copies of its weights: small ones stay in the
last-level cache. What their times deviate from the skeleton is then the cache's, and says nothing
of a network, which reads every weight once. On an H100's cold rows, trees of warm rows alone are
right where the copies did not fit (slope of measured on predicted deviation 0.4 to 0.8), and not
where they did (-0.2 to 0): `studies/served_models`. So

    share = 1 - kept,   kept the share of the copies that the cache held in the table.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hwmodels.estimators.gpu.constants import SkeletonConstants
from hwmodels.estimators.gpu.kernels import array
from hwmodels.estimators.gpu.skeleton import Floats, GpuFigures, kept_share
from hwmodels.operators.lower import CYCLED_WEIGHTS, TORCH
from hwmodels.work.kernel import Kernel


def holding_share(
    kernels: Sequence[Kernel], runtime: str, gpu: GpuFigures, constants: SkeletonConstants
) -> Floats:
    """Share of the correction of each GEMM; 1 for warm ones and for runtimes measured cold."""
    if runtime.startswith(TORCH):
        return np.ones(len(kernels))
    weights = array(kernels, lambda kernel: kernel.weight_bytes)
    others = array(kernels, lambda kernel: kernel.bytes - kernel.weight_bytes)
    cold = array(kernels, lambda kernel: kernel.weight_is_cold)
    kept = kept_share(others + CYCLED_WEIGHTS * weights, gpu, constants)
    return np.asarray(1 - cold * kept)
