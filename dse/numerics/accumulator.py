"""GEMMs whose sum is kept in something narrower than float32, or in something exact."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dse.numerics.grids.errors import QuantizeError
from dse.numerics.grids.grid import grid_of
from dse.numerics.numba.accumulation import blocked_sum
from dse.numerics.summation import integer_sums, rounded_sums, rounds_here
from hwmodels.formats.accumulator import ACCUMULATORS, Accumulator

__all__ = ["ACCUMULATORS", "Accumulator", "matmul"]


def matmul(a: Tensor, b: Tensor, accumulator: Accumulator, *, seed: int = 0) -> Tensor:
    """A @ b with every product exact and the sum as the accumulator has it.

    Args:
        a: (m, depth) float32 values, or integer codes for integer accumulators.
        b: (depth, n), likewise.
        accumulator: See `ACCUMULATORS`.
        seed: Of stochastic rounding.

    Returns:
        (m, n) float32; int64 for integer accumulators. NaN and Inf propagate as in float32.

    Raises:
        QuantizeError: Shapes do not match, or codes that are not integers.
    """
    if a.dim() != 2 or b.dim() != 2 or a.shape[1] != b.shape[0]:
        raise QuantizeError(f"matmul: shapes {tuple(a.shape)} and {tuple(b.shape)} do not match")
    if accumulator.kind == "integer":
        return _integer(a, b, accumulator)
    if rounds_here(accumulator):
        return rounded_sums(a.float(), b.float(), accumulator, seed)
    left = np.ascontiguousarray(a.to(torch.float32).cpu().numpy())
    right = np.ascontiguousarray(b.to(torch.float32).cpu().numpy().T)
    if accumulator.kind == "exact":
        return torch.from_numpy(_exact(left, right)).to(a.device)
    out = np.empty((a.shape[0], b.shape[1]), np.float32)
    blocked_sum(
        left,
        right,
        out,
        accumulator.chunk,
        accumulator.alignment_bits,
        accumulator.promote_every or max(a.shape[1], 1),
        grid_of(accumulator.element, accumulator.rounding),
    )
    return torch.from_numpy(out).to(a.device)


def _integer(a: Tensor, b: Tensor, accumulator: Accumulator) -> Tensor:
    if a.is_floating_point() or b.is_floating_point():
        raise QuantizeError(f"matmul: {accumulator.name} adds integer codes, got floats")
    return integer_sums(a, b, accumulator).to(torch.int64)


def _exact(
    left: npt.NDArray[np.float32], right: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """Correctly rounded float32 dot products: products of two float32 are exact in float64."""
    out = np.empty((left.shape[0], right.shape[0]), np.float32)
    for i, row in enumerate(left.astype(np.float64)):
        for j, column in enumerate(right.astype(np.float64)):
            out[i, j] = _rounded_once((row * column).tolist())
    return out


def _rounded_once(terms: list[float]) -> float:
    """The exact sum rounded to odd in float64, so that the next rounding is the only one."""
    total = math.fsum(terms)
    if not math.isfinite(total):
        return total
    left = math.fsum([*terms, -total])
    even = np.float64(total).view(np.uint64) & np.uint64(1) == 0
    return math.nextafter(total, math.copysign(math.inf, left)) if left and even else total
