"""Rounding and scaling in torch operations: any device, bit-identical to the compiled kernels.

Slower than `dse.numerics.numba` and used where that cannot go: other devices, and statistics
that kernels do not derive by themselves. Integer work is done in int64, which holds every uint32.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from dse.numerics.grids.grid import Grid, Method, Thresholds
from dse.numerics.grids.scaling import Rule, Scaling
from dse.numerics.grids.table import SPECIAL_SLOTS

SIGN, MAGNITUDE, INFINITY = 1 << 31, (1 << 31) - 1, 0x7F800000
_U32 = (1 << 32) - 1


def round_to_grid(
    y: Tensor,
    grid: Grid,
    table: Thresholds,
    *,
    draw: Tensor | None = None,
    zero_point: Tensor | None = None,
) -> Tensor:
    """The value on the grid for each element of a float32 tensor.

    `draw` has 32 random bits an element as int64, for stochastic methods; `zero_point`, which
    broadcasts against `y`, shifts the limits of an integer grid. NaN stays NaN.
    """
    if grid.method == Method.IDENTITY:
        return y
    if grid.method in (Method.TABLE, Method.SEARCH, Method.TABLE_STOCHASTIC):
        return _from_table(y, grid, table, draw)
    steps, left, step = _split(y, grid)
    if draw is not None:
        away = _drawn_away(left, draw, int(grid.random_bits))
    else:
        away = _away(y, steps, left, grid)
    rounded = torch.ldexp((steps + away).to(torch.float64), step - 127).to(torch.float32)
    return _finished(y, rounded, grid, zero_point)


def random_bits(shape: tuple[int, ...], seed: int, *, device: torch.device) -> Tensor:
    """32 random bits for each index modulo 2^32, as int64; the same on every device."""
    index = torch.arange(torch.Size(shape).numel(), device=device, dtype=torch.int64)
    key = _mixed(torch.tensor(seed & _U32, device=device))
    return _mixed((((index & _U32) * 0x9E3779B1) & _U32) ^ key).reshape(shape)


def scale_of(largest: Tensor, scaling: Scaling, table: Thresholds) -> Tensor:
    """Scales of groups (without the tensor's) whose largest magnitudes are `largest`.

    `table` is that of the scale's encoding.
    """
    if scaling.rule >= Rule.FLOOR:
        scale = torch.clamp(_exponent_scale(largest, scaling), min=float(scaling.minimum))
    else:
        wanted = _divided(largest, float(scaling.element_max))
        if scaling.two_level:
            wanted = _divided(wanted, float(scaling.tensor_scale))
        wanted = torch.clamp(wanted, min=float(scaling.minimum))
        if scaling.rule == Rule.ROUNDED:
            wanted = round_to_grid(wanted, scaling.grid, table)
        scale = torch.clamp(wanted, min=float(scaling.minimum))
    return torch.where(torch.isfinite(largest), scale, torch.nan)


def apply(
    x: Tensor,
    scale: Tensor,
    grid: Grid,
    table: Thresholds,
    scaling: Scaling,
    *,
    draw: Tensor | None = None,
    zero_point: Tensor | None = None,
    offset: Tensor | None = None,
) -> Tensor:
    """grid(x / scale) * scale, or the two-level form; `scale` broadcasts against float32 `x`.

    With an offset, grid((x - offset) / scale) * scale + offset.
    """
    if offset is not None:
        y = torch.where(scale == 0, x * 0, (x - offset) / scale)
        return round_to_grid(y, grid, table, draw=draw) * scale + offset
    if scaling.two_level:
        tensor_scale = torch.tensor(float(scaling.tensor_scale), device=x.device)
        y = x * ((1 / tensor_scale) / scale)
        total = tensor_scale * scale
    else:
        y, total = x / scale, scale
    y = torch.where(total == 0, x * 0, y)
    return round_to_grid(y, grid, table, draw=draw, zero_point=zero_point) * total


def _divided(x: Tensor, divisor: float) -> Tensor:
    """X / divisor, rounded once: CUDA multiplies by the reciprocal of a host scalar."""
    return x / torch.tensor(divisor, dtype=x.dtype, device=x.device)


def _bits(y: Tensor) -> Tensor:
    return y.view(torch.int32).to(torch.int64) & _U32


def _from_table(y: Tensor, grid: Grid, table: Thresholds, draw: Tensor | None) -> Tensor:
    count = len(table.values) - SPECIAL_SLOTS
    values = torch.from_numpy(table.values).to(y.device)
    thresholds = torch.from_numpy(table.thresholds[: count - 1]).to(y.device)
    index = torch.searchsorted(thresholds, y.contiguous(), right=True)
    index = torch.where(y.isnan(), count, index)
    index = torch.where(y == torch.inf, count + 1, index)
    index = torch.where(y == -torch.inf, count + 3, index)
    low, high = values[index], values[index + 1]
    if draw is None:
        return low
    inside = (y > low) & (y < high)
    fraction = ((y - low) / (high - low)).to(torch.float64) * 2.0**32
    left = torch.where(inside, torch.clamp(fraction, max=2.0**32 - 1), 0.0).to(torch.int64)
    return torch.where(inside & _drawn_away(left, draw, int(grid.random_bits)), high, low)


def _split(y: Tensor, grid: Grid) -> tuple[Tensor, Tensor, Tensor]:
    """As `rounding.split`: steps below |y|, the rest in 2^-32 of a step, the step's exponent."""
    magnitude = _bits(y) & MAGNITUDE
    exponent = torch.clamp(magnitude >> 23, min=1)
    significand = (magnitude & 0x7FFFFF) | torch.where(magnitude >= 0x800000, 0x800000, 0)
    step = torch.where(
        exponent >= int(grid.lowest_exponent),
        exponent - int(grid.mantissa_bits),
        int(grid.lowest_step),
    )
    shift = torch.clamp(step - exponent + 23, max=63)
    steps = significand >> torch.clamp(shift, max=31)
    left = torch.where(
        shift <= 31,
        (significand << (32 - torch.clamp(shift, max=31))) & _U32,
        torch.maximum(
            significand >> torch.clamp(shift - 32, min=0, max=31),
            torch.clamp(significand, max=1),
        ),
    )
    return steps, torch.where(shift <= 0, 0, left), step


def _away(y: Tensor, steps: Tensor, left: Tensor, grid: Grid) -> Tensor:
    odd = (steps & 1) == 1
    threshold = int(grid.threshold) + torch.where(odd, 0, int(grid.threshold_if_even))
    by_sign = torch.where(y.signbit(), bool(grid.away_if_negative), bool(grid.away_if_positive))
    away = (left >= threshold) & by_sign
    return away if grid.away_if_odd else away & ~odd


def _drawn_away(left: Tensor, draw: Tensor, bits: int) -> Tensor:
    if bits == 0:
        return left > draw
    if bits == 33:
        return (left != 0) & (draw >= SIGN)
    unused = 32 - bits
    kept, rest, half = left >> unused, left & ((1 << unused) - 1), 1 << (unused - 1)
    kept = kept + ((rest > half) | ((rest == half) & ((kept & 1) == 1)))
    return kept + (draw >> unused) >= (1 << bits)


def _finished(y: Tensor, rounded: Tensor, grid: Grid, zero_point: Tensor | None) -> Tensor:
    """Overflow, sign of zero and specials of rounded magnitudes."""
    negative = y.signbit()
    if zero_point is None:
        limit = _by_sign(negative, grid.positive_max, grid.negative_max)
        overflow = _by_sign(negative, grid.positive_overflow, grid.negative_overflow)
        infinite = _by_sign(negative, grid.positive_infinity, grid.negative_infinity)
    else:
        limit = torch.where(
            negative, float(grid.negative_max) + zero_point, float(grid.positive_max) - zero_point
        )
        overflow = infinite = limit
    bounded = torch.where(rounded > limit, overflow, rounded)
    bounded = torch.where(y.isinf(), infinite, bounded)
    signed = torch.where(negative, -bounded, bounded) + float(grid.zero)
    return torch.where(y.isnan(), y, signed)


def _by_sign(negative: Tensor, positive_value: np.float32, negative_value: np.float32) -> Tensor:
    return torch.where(negative, float(negative_value), float(positive_value))


def _exponent_scale(largest: Tensor, scaling: Scaling) -> Tensor:
    if scaling.rule == Rule.RCEIL:
        bits = _bits(_divided(largest, float(scaling.element_max)))
        exponent = (bits >> 23) - 127 + ((bits & 0x7FFFFF) != 0)
        exponent = torch.where(bits < 0x800000, -127 + (bits > 0x400000).long(), exponent)
    else:
        bits = _bits(largest)
        if scaling.rule == Rule.EVEN:
            bits = bits + (1 << (22 - int(scaling.element_mantissa)))
        exponent = (bits >> 23) - 127
        if scaling.rule == Rule.CEIL:
            exponent = exponent + ((bits & 0x7FFFFF) != 0)
        exponent = exponent - int(scaling.element_exponent)
    exponent = torch.clamp(exponent, -127, 127)
    return torch.ldexp(torch.ones_like(largest, dtype=torch.float64), exponent).to(torch.float32)


def _mixed(x: Tensor) -> Tensor:
    """As `rounding.mixed`."""
    x = x ^ (x >> 16)
    x = (x * 0x7FEB352D) & _U32
    x = x ^ (x >> 15)
    x = (x * 0x846CA68B) & _U32
    return x ^ (x >> 16)
