"""Few measurements correct kernels without a learned part: a Gaussian process for each kind.

The logarithm of measured over predicted time of a kind (attention, convolutions, pointwise, ...)
is a shift of the kind on the device, a shift of each kernel of the kind (its name, number type and
runtime), and smooth functions of the size, for the kind and for each kernel. So three softmaxes of
one width do not move a GELU as far as another softmax, nor a long row as far as a short one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hwmodels.estimators.gpu.gemm_correction import Correction, Observed, posterior
from hwmodels.work.kernel import Kernel
from hwmodels.work.loops import RowLoops

Floats = NDArray[np.float64]

# Standard deviations of log(measured / predicted) by what kernels share. Their sum is what a 90 %
# interval of a factor 1.9 says of unseen devices (`estimators/gpu.py`): ln 1.9 / 1.64 = 0.39.
KIND_SD = 0.25
KERNEL_SD = 0.20
SIZE_SD = 0.15
KERNEL_SIZE_SD = 0.15
NOISE_SD = 0.20
"""Rest that no smooth function of the size explains: tiles, alignment, the day."""
SCALES = (3.0, 4.0, 3.0)
"""Reach of a sample in powers of two: of bytes, of multiply-accumulates, of the row's length."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelSample:
    """One measured kernel."""

    kind: str
    name: str
    """The same for one kernel at all sizes (`kernel_name`)."""
    size: tuple[float, float, float]
    log_ratio: float
    """log(measured / predicted without samples)."""
    reach: float
    """The interval of `log_ratio` without samples goes as far on both sides."""


def kernel_name(kernel: Kernel, runtime: str) -> str:
    """Detail, number type and runtime."""
    stored = kernel.input_format
    width = kernel.input_element or (f"{stored.element.bits} bits" if stored else "")
    return f"{kernel.detail}/{width}/{runtime}"


def kernel_size(kernel: Kernel) -> tuple[float, float, float]:
    """Bytes, multiply-accumulates and row length as powers of two over their reach."""
    row = kernel.loops.cols if isinstance(kernel.loops, RowLoops) else 0
    values = (kernel.bytes, kernel.macs, row)
    bytes_, macs, length = (
        float(np.log2(1 + value)) / scale for value, scale in zip(values, SCALES, strict=True)
    )
    return bytes_, macs, length


def kernel_correction(
    samples: Sequence[KernelSample],
    kernels: Sequence[Kernel],
    runtime: str,
    names: Sequence[str] | None = None,
) -> Correction:
    """The posterior at kernels of one kind, none or more, given samples of that kind.

    `names` are those of the kernels where they are not `kernel_name`'s.
    """
    known_as = [kernel_name(kernel, runtime) for kernel in kernels] if names is None else names
    known = np.array([sample.size for sample in samples])
    observed = np.array([sample.name for sample in samples])
    here = np.array([kernel_size(kernel) for kernel in kernels]).reshape(-1, len(SCALES))
    own = np.array(known_as, dtype=str)
    same = observed[:, None] == observed
    reach = np.array([sample.reach for sample in samples])
    return posterior(
        Observed(
            ratios=np.array([sample.log_ratio for sample in samples]), low=-reach, high=reach
        ),
        kernel_covariance(known, observed, known, observed),
        kernel_covariance(here, own, known, observed),
        same=same,
        alike=same * _nearness(known, known),
        alike_across=(own[:, None] == observed) * _nearness(here, known),
        prior=KIND_SD**2 + KERNEL_SD**2 + SIZE_SD**2 + KERNEL_SIZE_SD**2,
        noise=np.full(len(samples), NOISE_SD**2),
        rest=np.full(len(samples), NOISE_SD**2),
        rest_across=np.full(len(here), NOISE_SD**2),
    )


def kernel_covariance(
    first: Floats, first_names: NDArray[np.str_], second: Floats, second_names: NDArray[np.str_]
) -> Floats:
    """Of two lists of kernels of one kind by the prior, by size and name; (first, second)."""
    near = _nearness(first, second)
    same = first_names[:, None] == second_names
    shared = KIND_SD**2 + SIZE_SD**2 * near
    return np.asarray(shared + same * (KERNEL_SD**2 + KERNEL_SIZE_SD**2 * near))


def _nearness(first: Floats, second: Floats) -> Floats:
    """Likeness of kernels' sizes, 1 for the same, shape (first, second)."""
    squares = ((first[:, None, :] - second[None, :, :]) ** 2).sum(-1)
    return np.asarray(np.exp(-0.5 * squares))
