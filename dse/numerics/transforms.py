"""Reversible changes of a tensor around its quantization, each with what it costs.

A transform works on rows (slices, depth) of one contraction. In a deployed network its inverse is
folded into the other operand or applied by the kernel; in values the result is the same as
undoing it right after quantization, which is what the emulator does.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional

from dse.numerics.balance import SMOOTHING
from dse.numerics.grids.errors import QuantizeError
from dse.numerics.grids.state import QuantizerState
from hwmodels.formats.quantizer import Quantizer

OnRows = Callable[[Tensor], Tensor]
E4M3_MAX = 448.0
EXPANSION_STEPS = 16
"""COAT rounds the exponent of its expansion down to sixteenths (`expand_min` in its code)."""
_CALL = re.compile(r"(\w+)(?:\(([^()]*)\))?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Transform:
    """A change of rows: what to do around a quantization, and its cost."""

    around: Callable[[Tensor, OnRows, QuantizerState], Tensor]
    """(rows, quantize rows, state) -> the quantized rows in the original coordinates."""
    flops_per_element: float
    """Floating-point operations at run time, forward direction, on the vector unit."""
    bytes_per_row: float = 0.0
    """Extra bytes stored or moved for each row."""


def transform(spec: str) -> Transform:
    """The transform of a name with arguments: `hadamard(16)`, `clamp(99.9)`.

    * `hadamard(n)`, `random_hadamard(n, seed)`: rotates blocks of n (a power of two) along the
      contraction; a last block that is short stays as it is. QuaRot, arXiv 2404.00456.
    * `smooth(a)`: multiplies channels by the state's factors, made with strength a. SmoothQuant,
      arXiv 2211.10438.
    * `equalize(before, after)`: the same with factors shared with the weights before and after
      (1, or 0 without). Nagel et al., arXiv 1906.04721, section 4.1.
    * `power(k)`: sign(x) |x|^k before, the root after; COAT's range expansion, arXiv 2410.19313.
    * `expand(n, m)`: the same with the k that spreads each group of n over the range of a format
      with maximum m (448); COAT's dynamic range expansion.
    * `clamp(p)`: clips each row at the p-th percentile of its magnitudes.
    * `outlier_split(p)`: the largest p percent stay in float32, beside the quantized rest.
      LLM.int8, arXiv 2208.07339.
    * `low_rank(r)`: adds a rank-r approximation of the error. LoRC, arXiv 2303.08302.

    Raises:
        QuantizeError: No such transform, or an argument that is no number.
    """
    name, arguments = transform_arguments(spec)
    try:
        return _MAKERS[name](*arguments)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise QuantizeError(f"transform {spec!r}: {error}") from error


def transform_arguments(spec: str) -> tuple[str, tuple[float, ...]]:
    """Name and arguments of a transform.

    Raises:
        QuantizeError: No such transform, or an argument that is no number.
    """
    match = _CALL.fullmatch(spec)
    if match is None or match[1] not in _MAKERS:
        raise QuantizeError(f"unknown transform {spec!r}; known: {', '.join(_MAKERS)}")
    try:
        return match[1], tuple(float(part) for part in (match[2] or "").split(",") if part.strip())
    except ValueError as error:
        raise QuantizeError(f"transform {spec!r}: {error}") from error


def within(quantizer: Quantizer, state: QuantizerState, quantized: OnRows) -> OnRows:
    """`quantized` inside all transforms of a quantizer, the first one outermost."""
    for spec in reversed(quantizer.transforms):
        quantized = _wrapped(transform(spec), state, quantized)
    return quantized


def _wrapped(outer: Transform, state: QuantizerState, inner: OnRows) -> OnRows:
    return lambda rows: outer.around(rows, inner, state)


ROTATIONS = ("hadamard", "random_hadamard")
"""Transforms whose first argument is the side of what they rotate."""
LARGEST_ROTATION = 8192
"""Side of the largest rotation that is written out as a matrix: 256 MiB."""


@lru_cache(maxsize=16)
def hadamard_matrix(n: int) -> Tensor:
    """The orthonormal Sylvester-Hadamard matrix, (n, n) float32, n a power of two."""
    if not 1 <= n <= LARGEST_ROTATION or n & (n - 1):
        raise ValueError(f"size must be a power of two up to {LARGEST_ROTATION}, got {n}")
    matrix: Tensor = torch.ones(1, 1)
    while matrix.shape[0] < n:
        matrix = torch.cat([torch.cat([matrix, matrix], 1), torch.cat([matrix, -matrix], 1)])
    return matrix / math.sqrt(n)


def _rotation(matrix: Tensor, flops: float) -> Transform:
    size = matrix.shape[0]

    def rotated(rows: Tensor, by: Tensor) -> Tensor:
        whole = rows.shape[1] // size * size
        blocks = rows[:, :whole].reshape(-1, size) @ by.to(rows.device)
        turned = blocks.reshape(rows.shape[0], whole)
        return torch.cat([turned, rows[:, whole:]], dim=1) if whole < rows.shape[1] else turned

    def around(rows: Tensor, quantized: OnRows, _: QuantizerState) -> Tensor:
        return rotated(quantized(rotated(rows, matrix)), matrix.T)

    return Transform(around=around, flops_per_element=flops)


def _whole(name: str, value: float) -> int:
    if not (value >= 1 and value == int(value)):
        raise ValueError(f"{name}: expected a whole number from 1, got {value:g}")
    return int(value)


def _percent(value: float) -> float:
    if not 0 < value <= 100:
        raise ValueError(f"expected more than 0 and at most 100 per cent, got {value:g}")
    return value


def _hadamard(n: float) -> Transform:
    size = _side(n)
    return _rotation(hadamard_matrix(size), math.log2(size))


def _random_hadamard(n: float, seed: float = 0) -> Transform:
    generator = torch.Generator().manual_seed(int(seed))
    size = _side(n)
    signs = torch.randint(0, 2, (size,), generator=generator) * 2.0 - 1
    return _rotation(signs[:, None] * hadamard_matrix(size), math.log2(size) + 1)


def _side(n: float) -> int:
    """The side of a rotation; what is no whole number is none of those that exist."""
    return int(n) if n == int(n) else 0


def _smooth(strength: float = SMOOTHING) -> Transform:
    if not 0 <= strength <= 1:
        raise ValueError(f"the strength must be from 0 to 1, got {strength:g}")
    return _by_factors("smooth")


def _equalize(before: float = 1.0, after: float = 1.0) -> Transform:
    if not {before, after} <= {0.0, 1.0}:
        raise ValueError(f"each side must be 0 or 1, got {before:g} and {after:g}")
    return _by_factors("equalize")


def _by_factors(name: str) -> Transform:
    def around(rows: Tensor, quantized: OnRows, state: QuantizerState) -> Tensor:
        if state.channel_factors is None:
            raise QuantizeError(f"transform {name!r} needs channel factors in the state")
        return quantized(rows * state.channel_factors) / state.channel_factors

    return Transform(around=around, flops_per_element=1.0)


def _power(k: float) -> Transform:
    if not (math.isfinite(k) and k > 0):
        raise ValueError(f"the power must be positive, got {k:g}")

    def around(rows: Tensor, quantized: OnRows, _: QuantizerState) -> Tensor:
        values = quantized(torch.sign(rows) * torch.pow(rows.abs(), k))
        return torch.sign(values) * torch.pow(values.abs(), 1 / k)

    return Transform(around=around, flops_per_element=2.0)


def _expand(size: float, largest: float = E4M3_MAX) -> Transform:
    group = _whole("size of a group", size)
    if not 1 < largest < math.inf:
        raise ValueError(f"the largest value of a format must be above 1, got {largest:g}")
    reach = math.log2(largest * largest / 2)

    def around(rows: Tensor, quantized: OnRows, _: QuantizerState) -> Tensor:
        depth = rows.shape[1]
        missing = -depth % group
        tiles = functional.pad(rows, (0, missing)).reshape(rows.shape[0], -1, group)
        magnitude = tiles.abs()
        high = magnitude.amax(-1, keepdim=True)
        low = torch.where(magnitude > 0, magnitude, torch.inf).amin(-1, keepdim=True)
        spread = torch.log2(high / low)
        power = torch.floor(EXPANSION_STEPS * reach / spread) / EXPANSION_STEPS
        power = torch.where(spread > 0, power, 1.0)
        middle = torch.where(high > 0, torch.sqrt(high) * torch.sqrt(low), 1.0)
        expanded = torch.sign(tiles) * (magnitude / middle) ** power
        seen = quantized(expanded.reshape(rows.shape[0], -1)[:, :depth])
        values = functional.pad(seen, (0, missing)).reshape(tiles.shape)
        back = middle * torch.sign(values) * values.abs() ** (1 / power)
        return back.reshape(rows.shape[0], -1)[:, :depth]

    return Transform(around=around, flops_per_element=6.0, bytes_per_row=8.0)


def _clamp(percent: float) -> Transform:
    percent = _percent(percent)

    def around(rows: Tensor, quantized: OnRows, _: QuantizerState) -> Tensor:
        limit = _order_statistic(rows, percent)
        return quantized(torch.maximum(torch.minimum(rows, limit), -limit))

    return Transform(around=around, flops_per_element=2.0)


def _outlier_split(percent: float) -> Transform:
    percent = _percent(percent)

    def around(rows: Tensor, quantized: OnRows, _: QuantizerState) -> Tensor:
        outlier = rows.abs() > _order_statistic(rows, 100 - percent)
        return torch.where(outlier, rows, quantized(torch.where(outlier, 0.0, rows)))

    return Transform(around=around, flops_per_element=1 + 2 * percent / 100)


def _low_rank(rank: float) -> Transform:
    kept = _whole("rank", rank)

    def around(rows: Tensor, quantized: OnRows, _: QuantizerState) -> Tensor:
        values = quantized(rows)
        left, middle, right = torch.linalg.svd(rows - values, full_matrices=False)
        correction: Tensor = (left[:, :kept] * middle[:kept]) @ right[:kept]
        return values + correction

    return Transform(around=around, flops_per_element=2 * rank, bytes_per_row=4 * rank)


def _order_statistic(rows: Tensor, percent: float) -> Tensor:
    """(slices, 1): the magnitude that `percent` of each row do not exceed."""
    place = min(max(math.ceil(percent / 100 * rows.shape[1]), 1), rows.shape[1])
    return rows.abs().kthvalue(place, dim=1, keepdim=True).values


_MAKERS: dict[str, Callable[..., Transform]] = {
    "hadamard": _hadamard,
    "random_hadamard": _random_hadamard,
    "smooth": _smooth,
    "equalize": _equalize,
    "power": _power,
    "expand": _expand,
    "clamp": _clamp,
    "outlier_split": _outlier_split,
    "low_rank": _low_rank,
}
