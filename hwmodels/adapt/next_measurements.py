"""The operators to measure next: those that leave the least doubt about all of a table.

Doubt is the variance of log(measured / predicted) under the Gaussian processes that correct
predictions, one for GEMMs and one for each other kind of kernel. Each next operator is the one
that takes the most of it from all rows together (Cohn, "Neural network exploration using optimal
experiment design", 1994), not the least certain one, which is extreme and says little of others.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hwmodels.adapt.prediction import rows_kernels
from hwmodels.devices.device import Device
from hwmodels.estimators.cpu.correction import sample_name
from hwmodels.estimators.gpu import gemm_correction, kernel_correction
from hwmodels.estimators.gpu.features import gemm_features
from hwmodels.estimators.gpu.kernel_correction import kernel_covariance, kernel_name, kernel_size
from hwmodels.estimators.gpu.kernels import gemms_of
from hwmodels.estimators.gpu.residual import load_artefact
from hwmodels.estimators.gpu.samples import SAME_KERNELS, measured_kernels
from hwmodels.estimators.gpu.skeleton import GpuFigures, gemm_terms
from hwmodels.operators.optable import OpTable, runtimes_of
from hwmodels.runtimes.load import load_runtime
from hwmodels.work.kernel import Kernel

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]

POOL = 1500
"""Candidates that are looked at, drawn at random from longer tables."""


def next_measurements(
    table: OpTable, rows: Indices, device: Device, *, runtime: str, count: int, seed: int = 0
) -> Indices:
    """`count` of the rows, the one that leaves the least doubt first, given earlier measurements.

    Rows of several kernels without a GEMM correct nothing and come last, in the order given.
    """
    pool = np.sort(np.random.default_rng(seed).permutation(rows)[:POOL])
    blocks = _blocks(_candidates(table, pool, device, runtime), _known(device), device)
    chosen: list[int] = []
    while len(chosen) < count and (open_ := [block for block in blocks if block.best_gain > 0]):
        chosen.append(max(open_, key=lambda block: block.best_gain).take())
    rest = [int(row) for row in pool if row not in set(chosen)]
    return np.array([*chosen, *rest][:count], dtype=np.intp)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Candidate:
    """The kernel that a measurement corrects, and the row that it is of; -1 for one that is."""

    row: int
    kernel: Kernel
    runtime: str


@dataclass(slots=True, kw_only=True)
class Block:
    """Candidates of one kind and what is unknown of them."""

    rows: list[int]
    doubt: Floats
    """Covariance, shape (candidates, candidates)."""
    noise: Floats
    """Variance of a measurement of each, shape (candidates,)."""
    best: int = -1
    best_gain: float = 0.0

    def take(self) -> int:
        """The row of the best candidate, which is known from now on."""
        row, self.rows[self.best] = self.rows[self.best], -1
        self.know(self.best)
        self.look()
        return row

    def know(self, index: int) -> None:
        """Takes from the doubt what a measurement at `index` tells."""
        column = self.doubt[:, index]
        self.doubt = self.doubt - np.outer(column, column) / (column[index] + self.noise[index])

    def look(self) -> None:
        """Finds the candidate that takes the most doubt from all candidates."""
        gains = (self.doubt**2).sum(0) / (np.diag(self.doubt) + self.noise)
        gains[np.array(self.rows) < 0] = 0.0
        self.best = int(np.argmax(gains))
        self.best_gain = float(gains[self.best])


def _blocks(
    candidates: Iterable[_Candidate], known: Iterable[_Candidate], device: Device
) -> list[Block]:
    """Candidates by kind, knowing what was measured."""
    by_kind: dict[str, list[_Candidate]] = {}
    for one in (*candidates, *known):
        by_kind.setdefault(one.kernel.kind, []).append(one)
    blocks = []
    for kind, members in by_kind.items():
        gemm = kind == "gemm" and device.kind == "gpu"
        doubt, noise = _gemm_doubt(members, device) if gemm else _kernel_doubt(members, device)
        block = Block(rows=[one.row for one in members], doubt=doubt, noise=noise)
        wanted = [index for index, row in enumerate(block.rows) if row >= 0]
        for index in range(len(wanted), len(block.rows)):
            block.know(index)
        if wanted:
            block.rows = block.rows[: len(wanted)]
            block.doubt = block.doubt[: len(wanted), : len(wanted)]
            block.noise = block.noise[: len(wanted)]
            block.look()
            blocks.append(block)
    return blocks


def _gemm_doubt(members: list[_Candidate], device: Device) -> tuple[Floats, Floats]:
    """Covariance of GEMMs, and the noise of each."""
    artefact, gpu = load_artefact(), GpuFigures.of(device)
    gemms = gemms_of([one.kernel for one in members], device)
    features = gemm_features(gemms, gemm_terms(gemms, gpu, artefact.constants), gpu)
    runtimes = np.array([one.runtime for one in members])
    device_sd, noise_sd = np.zeros(len(members)), np.zeros(len(members))
    for name in np.unique(runtimes):
        here = runtimes == name
        called = SAME_KERNELS.get(str(name), str(name))
        doubt = artefact.doubt(features[here], called, device, np.zeros(int(here.sum())))
        device_sd[here], noise_sd[here] = doubt.device_sd, doubt.noise_sd
    covariance = gemm_correction.covariance(features, runtimes, features, runtimes)
    noise_sd = np.maximum(gemm_correction.NOISE_SHARE * noise_sd, gemm_correction.LEAST_NOISE_SD)
    return covariance * np.outer(device_sd, device_sd), noise_sd**2


def _kernel_doubt(members: list[_Candidate], device: Device) -> tuple[Floats, Floats]:
    """Covariance of other kernels of one kind, and the noise of each."""
    sizes = np.array([kernel_size(one.kernel) for one in members])
    name = sample_name if device.kind == "cpu" else kernel_name
    names = np.array([name(one.kernel, one.runtime) for one in members])
    noise = np.full(len(members), kernel_correction.NOISE_SD**2)
    return kernel_covariance(sizes, names, sizes, names), noise


def _candidates(
    table: OpTable, rows: Indices, device: Device, runtime: str
) -> list[_Candidate]:  # fmt: skip
    runtimes = np.array(runtimes_of(table, runtime), dtype=object)[rows]
    found = []
    for name in dict.fromkeys(runtimes.tolist()):
        here = rows[runtimes == name].tolist()
        groups = rows_kernels(table, here, device, load_runtime(str(name)))
        for row, group in zip(here, groups, strict=True):
            found += _corrected(row, group, str(name))
    return found


def _known(device: Device) -> list[_Candidate]:
    return [
        one
        for entry in device.measurements
        for one in _corrected(-1, measured_kernels(entry, device), entry.runtime)
    ]


def _corrected(row: int, kernels: tuple[Kernel, ...], runtime: str) -> list[_Candidate]:
    """The kernel that a time of these corrects: the GEMM, or the only one."""
    chosen = [one for one in kernels if one.kind == "gemm" or len(kernels) == 1]
    return [_Candidate(row=row, kernel=kernel, runtime=runtime) for kernel in chosen[:1]]
