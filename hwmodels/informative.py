"""Which operators to measure next: those whose correction is the least certain."""

from __future__ import annotations

from collections import Counter
from itertools import chain, zip_longest

import numpy as np
from numpy.typing import NDArray

from hwmodels.adaptation import Sample, adapted
from hwmodels.device import Device
from hwmodels.estimators.gpu import gemms_of, measured_kernels
from hwmodels.estimators.gpu_features import gemm_features
from hwmodels.estimators.gpu_residual import load_artefact
from hwmodels.estimators.gpu_skeleton import GpuFigures, gemm_terms
from hwmodels.kernel import Kernel
from hwmodels.op_kernels import KINDS
from hwmodels.op_prediction import rows_kernels
from hwmodels.optable import OpTable, runtimes_of
from hwmodels.runtime_file import load_runtime

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]

GEMMS = ("gemm", "bmm")
POOL = 3000
"""Candidates that are looked at, drawn at random from longer tables."""


def most_informative(
    table: OpTable, rows: Indices, device: Device, *, runtime: str, count: int, seed: int = 0
) -> Indices:
    """`count` of the rows, most informative first, knowing what the device was measured on.

    Every second one is a GEMM, whose correction depends on its shape: the one that the Gaussian
    process is least certain of, given those before. The others take turns over the kinds of
    kernels that one factor corrects, and within a kind over operators and number types.
    """
    generator = np.random.default_rng(seed)
    pool = np.sort(generator.permutation(rows)[:POOL])
    is_gemm = np.array([table.ops[row] in GEMMS for row in pool], dtype=bool)
    gemms = _gemms_by_doubt(table, pool[is_gemm], device, runtime=runtime, count=count, seed=seed)
    others = _others_in_turn(table, generator.permutation(pool[~is_gemm]), device, count)
    taken = chain.from_iterable(zip_longest(gemms, others))
    return np.array([row for row in taken if row is not None][:count], dtype=np.intp)


def _gemms_by_doubt(
    table: OpTable, rows: Indices, device: Device, *, runtime: str, count: int, seed: int
) -> list[int]:
    """Rows, the least certain first; the first of a device without measurements at random."""
    if not len(rows):
        return []
    runtimes = np.array(runtimes_of(table, runtime), dtype=object)[rows]
    features = _features_of_rows(table, rows, device, runtimes)
    samples = list(_known(device))
    chosen: list[int] = []
    while len(chosen) < min(count, len(rows)):
        if samples:
            doubt = _doubt(samples, features, runtimes)
            doubt[chosen] = -1.0
            chosen.append(int(np.argmax(doubt)))
        else:
            chosen.append(int(np.random.default_rng(seed).integers(len(rows))))
        samples.append(_sample(str(runtimes[chosen[-1]]), features[chosen[-1]]))
    return [int(row) for row in rows[chosen]]


def _doubt(samples: list[Sample], features: Floats, runtimes: NDArray[np.object_]) -> Floats:
    """Share of the prior's standard deviation that the samples leave at each GEMM."""
    left = np.zeros(len(features))
    for name in dict.fromkeys(runtimes.tolist()):
        here = runtimes == name
        left[here] = adapted(tuple(samples), features[here], str(name)).sd_share
    return left


def _others_in_turn(table: OpTable, rows: Indices, device: Device, count: int) -> list[int]:
    """Rows so that kinds are measured equally often, and operators and types within a kind."""
    by_kind = Counter(KINDS.get(one.op, one.op) for one in device.measurements)
    by_type = Counter((one.op, one.dtype) for one in device.measurements)
    waiting: dict[tuple[str, str], list[int]] = {}
    for row in map(int, rows):
        waiting.setdefault((table.ops[row], table.dtypes[row]), []).append(row)
    chosen: list[int] = []
    while waiting and len(chosen) < count:
        least = min(waiting, key=lambda key: (by_kind[KINDS.get(key[0], key[0])], by_type[key]))
        chosen.append(waiting[least].pop())
        if not waiting[least]:
            del waiting[least]
        by_kind[KINDS.get(least[0], least[0])] += 1
        by_type[least] += 1
    return chosen


def _known(device: Device) -> list[Sample]:
    """GEMMs that the device was measured on; what they said does not matter here."""
    found = []
    for entry in device.measurements:
        found += [
            _sample(entry.runtime, _features([kernel], device)[0])
            for kernel in measured_kernels(entry, device)
            if kernel.kind == "gemm"
        ]
    return found


def _sample(runtime: str, features: Floats) -> Sample:
    return Sample(runtime=runtime, features=tuple(map(float, features)), log_ratio=0.0)


def _features_of_rows(
    table: OpTable, rows: Indices, device: Device, runtimes: NDArray[np.object_]
) -> Floats:
    kernels: list[Kernel | None] = [None] * len(rows)
    for name in dict.fromkeys(runtimes.tolist()):
        here = np.flatnonzero(runtimes == name)
        groups = rows_kernels(table, rows[here].tolist(), device, load_runtime(str(name)))
        for index, group in zip(here, groups, strict=True):
            kernels[index] = next(one for one in reversed(group) if one.kind == "gemm")
    return _features([kernel for kernel in kernels if kernel is not None], device)


def _features(kernels: list[Kernel], device: Device) -> Floats:
    gpu = GpuFigures.of(device)
    gemms = gemms_of(kernels, device)
    return gemm_features(gemms, gemm_terms(gemms, gpu, load_artefact().constants), gpu)
