"""GPTQ: rounding column by column, each error spread over the columns to come."""

from __future__ import annotations

import torch
from torch import Tensor

from dse.numerics.calibrate import complete_state
from dse.numerics.grids.state import QuantizerState
from dse.numerics.neighbours import neighbours
from dse.numerics.output_range import output_range
from hwmodels.formats.quantizer import Quantizer

DAMPING = 0.01
"""GPTQ's share of the mean diagonal that is added to the Hessian (arXiv 2210.17323, section 3)."""
DAMPINGS = (0.0, 0.1, 0.3, 1.0, 3.0)
"""Shares that held-out inputs choose between, before `DAMPING`: few samples know little of the
directions that a deep row has."""
JUDGED = 64
"""Rows of a weight by which they choose."""
SIDE_BY_SIDE = 1 << 22
"""Elements of the moments that are tried under several dampings together."""
BLOCK = 128
"""Columns whose errors reach the rest of the matrix together (section 3, "lazy batch-updates")."""

FEW_BITS = 8
"""Integers of at most so many bits have codes and products with scales that float32 holds."""


def gptq(
    weight: Tensor,
    hessian: Tensor,
    quantizer: Quantizer,
    *,
    state: QuantizerState | None = None,
    damping: float = DAMPING,
) -> Tensor:
    """Weights (outputs, depth) rounded column by column, each error spread over those to come.

    Scales are fixed beforehand from the weights. Columns go in their own order; ties between the
    neighbours go down. A column that no input reaches is rounded to nearest.

    Args:
        weight: (outputs, depth), or (groups, outputs, depth) for as many independent products.
        hessian: (depth, depth) sum of outer products of the inputs, with the groups of the weight.
        quantizer: Granularity along the last axis.
        state: Scales of the rows; those of `fixed_state` unless given.
        damping: Added to the Hessian's diagonal, relative to its mean.

    Raises:
        torch.linalg.LinAlgError: The damped Hessian is not positive definite: inputs with NaN.

    Source: Frantar et al., GPTQ, arXiv 2210.17323, algorithm 1.
    """
    groups = weight.reshape(-1, *weight.shape[-2:])
    _, outputs, depth = groups.shape
    state = state or fixed_state(groups, hessian, quantizer)
    factor = _factor(hessian.reshape(-1, depth, depth), damping)
    left, values = groups.to(torch.float64).clone(), torch.empty_like(groups)
    for start in range(0, depth, BLOCK):
        stop = min(start + BLOCK, depth)
        errors = torch.empty_like(left[..., start:stop])
        for column in range(start, stop):
            current = left[..., column].to(weight.dtype)
            here = _at(state, column, quantizer)
            down, up = (side.reshape(-1, outputs) for side in _sides(current, quantizer, here))
            value = torch.where(up - current < current - down, up, down)
            values[..., column] = value
            row = factor[:, column, column:stop]
            error = (left[..., column] - value) / row[:, :1]
            errors[..., column - start] = error
            left[..., column:stop] -= error[..., None] * row[:, None]
        left[..., stop:] -= errors @ factor[:, start:stop, stop:]
    return values.reshape(weight.shape)


def gptq_macs(outputs: int, depth: int) -> int:
    """Multiply-accumulates of one product: a Cholesky inverse and factor, and the spreading."""
    return depth**3 + outputs * depth**2 // 2


def damped(hessian: Tensor, share: float) -> Tensor:
    """Hessians (..., depth, depth) with a share of their mean diagonal added to the diagonal."""
    mean = hessian.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None]
    unit = torch.eye(hessian.shape[-1], dtype=hessian.dtype, device=hessian.device)
    return hessian + share * mean * unit


def held_out_damping(
    weight: Tensor,
    halves: tuple[Tensor, Tensor],
    quantizer: Quantizer,
    *,
    tensor_scale: float | None = None,
) -> float:
    """The share to add to all inputs' moments so that GPTQ errs least on others.

    Some rows of the weight are rounded with the moments of the first half of the inputs under each
    of `DAMPINGS`; the second half says what that costs. Twice the inputs need half of the best.
    The same share serves all groups.

    Args:
        weight: (outputs, depth), or (groups, outputs, depth).
        halves: second moments of either half of the inputs, shaped as `gptq` takes them.
        quantizer: along the last axis.
        tensor_scale: The second level of a two-level format; that of the rows by default.

    Raises:
        torch.linalg.LinAlgError: inputs with NaN.
    """
    rows = weight.reshape(-1, *weight.shape[-2:])
    rows = rows[:, :: -(-rows.shape[1] // JUDGED)].contiguous()
    first, second = (half.reshape(-1, *half.shape[-2:]) for half in halves)
    costs: list[float] = []
    # Side by side as groups: steps over columns are many and small.
    at_once = max(SIDE_BY_SIDE // first.numel(), 1)
    for start in range(0, len(DAMPINGS), at_once):
        shares = DAMPINGS[start : start + at_once]
        known = torch.cat([damped(first, share) for share in shares])
        tried = rows.repeat(len(shares), 1, 1)
        state = fixed_state(tried, known, quantizer, tensor_scale=tensor_scale)
        error = (gptq(tried, known, quantizer, state=state) - tried).to(second.dtype)
        energy = (error @ second.repeat(len(shares), 1, 1)) * error
        costs += energy.reshape(len(shares), -1).sum(1).tolist()
    return DAMPINGS[costs.index(min(costs))] / 2


def held_out_macs(outputs: int, depth: int) -> int:
    """Multiply-accumulates of `held_out_damping` for one group."""
    rows = min(outputs, JUDGED)
    return len(DAMPINGS) * (gptq_macs(rows, depth) + rows * depth**2)


def fixed_state(
    weight: Tensor, hessian: Tensor, quantizer: Quantizer, *, tensor_scale: float | None = None
) -> QuantizerState:
    """Every scale of the rows of a weight, the block scales of two-level formats included.

    Shapes are those of `gptq`; the Hessian counts for statistic `output_mse`. A `tensor_scale` is
    the second level, in place of the weight's own.
    """
    if quantizer.statistic == "output_mse":
        return output_range(weight, hessian, quantizer)
    rows = weight.reshape(-1, weight.shape[-1])
    return complete_state(rows, quantizer, tensor_scale=tensor_scale)


def _factor(hessian: Tensor, damping: float) -> Tensor:
    """The upper Cholesky factor of the inverse of each damped Hessian, float64."""
    damped = hessian.to(torch.float64).clone()
    diagonal = damped.diagonal(dim1=-2, dim2=-1)
    diagonal += damping * diagonal.mean(-1, keepdim=True) + (diagonal == 0)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(damped))
    factor: Tensor = torch.linalg.cholesky(inverse, upper=True)
    return factor


def _sides(column: Tensor, quantizer: Quantizer, state: QuantizerState) -> tuple[Tensor, Tensor]:
    """The grid values below and above the weights of a column, one a row."""
    format, weights = quantizer.format, column.reshape(-1, 1)
    plain = format.element.kind == "int" and state.tensor_scale is None
    if not plain or state.scales is None or format.element.bits > FEW_BITS:
        near = neighbours(weights, quantizer, axes=(1,), state=state)
        return near.down, near.up
    # Integers need no search, which takes most of the time of a column.
    points = state.zero_points
    shift = torch.zeros_like(state.scales) if points is None else points
    added = torch.zeros_like(state.scales) if state.offsets is None else state.offsets
    lowest, highest = format.element.min - shift, format.element.max - shift
    steps = torch.where(state.scales != 0, (weights - added) / state.scales, 0.0).floor()
    first, second = (
        (steps + up).clamp(min=lowest, max=highest) * state.scales + added for up in (0, 1)
    )
    return torch.minimum(first, second), torch.maximum(first, second)  # scales may be negative


def _at(state: QuantizerState, column: int, quantizer: Quantizer) -> QuantizerState:
    """The scales that hold for one column."""
    if state.scales is None or state.scales.shape[1] == 1:
        return state
    group = column // quantizer.format.group
    points, offsets = state.zero_points, state.offsets
    return QuantizerState(
        scales=state.scales[:, group : group + 1],
        zero_points=None if points is None else points[:, group : group + 1],
        offsets=None if offsets is None else offsets[:, group : group + 1],
        tensor_scale=state.tensor_scale,
    )
