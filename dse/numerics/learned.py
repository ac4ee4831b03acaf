"""Learned rounding: which of the two neighbours on the grid, chosen with data.

Methods see a quantizer only through the values just below and just above each weight, so that
they work with every format.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dse.numerics.calibrate import calibrated_state
from dse.numerics.quantize import quantize
from dse.numerics.state import QuantizerState
from hwmodels.formats import Quantizer

DAMPING = 0.01
"""GPTQ's share of the mean diagonal that is added to the Hessian (arXiv 2210.17323, section 3)."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Neighbours:
    """The grid values just below and just above each weight; equal where the weight is on it."""

    down: Tensor
    up: Tensor


def neighbours(
    weight: Tensor,
    quantizer: Quantizer,
    *,
    axes: Sequence[int],
    state: QuantizerState | None = None,
) -> Neighbours:
    """`round_down(weight)` and `round_up(weight)` under one fixed set of scales."""
    fixed = state or calibrated_state(weight, quantizer, axes=axes)
    down, up = (
        quantize(weight, quantizer.replaced(rounding=mode), axes=axes, state=fixed)
        for mode in ("down", "up")
    )
    return Neighbours(down=torch.minimum(down, up), up=torch.maximum(down, up))


def gptq(
    weight: Tensor, inputs: Tensor, quantizer: Quantizer, *, damping: float = DAMPING
) -> Tensor:
    """Weights (outputs, depth) rounded column by column, each error spread over those to come.

    Scales are fixed beforehand from the weights. Columns go in their own order; ties between the
    neighbours go down.

    Args:
        weight: (outputs, depth).
        inputs: (samples, depth) calibration inputs of the layer.
        quantizer: Granularity along axis 1.
        damping: Added to the Hessian's diagonal, relative to its mean.

    Source: Frantar et al., GPTQ, arXiv 2210.17323, algorithm 1.
    """
    state = calibrated_state(weight, quantizer, axes=(1,))
    hessian = inputs.to(torch.float64).T @ inputs.to(torch.float64)
    diagonal = hessian.diagonal()
    diagonal += damping * diagonal.mean() + (diagonal == 0)
    factor = torch.linalg.cholesky(torch.linalg.inv(hessian), upper=True)
    left, values = weight.to(torch.float64).clone(), torch.empty_like(weight)
    for column in range(weight.shape[1]):
        current = left[:, column : column + 1].to(weight.dtype)
        here = _at(state, column, quantizer)
        near = neighbours(current, quantizer, axes=(1,), state=here)
        upwards = near.up - current < current - near.down
        value = torch.where(upwards, near.up, near.down)
        values[:, column : column + 1] = value
        error = (left[:, column] - value[:, 0].to(torch.float64)) / factor[column, column]
        left[:, column + 1 :] -= error[:, None] * factor[column, column + 1 :]
    return values


def _at(state: QuantizerState, column: int, quantizer: Quantizer) -> QuantizerState:
    """The scales that hold for one column."""
    if state.scales is None or state.scales.shape[1] == 1:
        return state
    group = column // quantizer.format.group
    points = state.zero_points
    return QuantizerState(
        scales=state.scales[:, group : group + 1],
        zero_points=None if points is None else points[:, group : group + 1],
        tensor_scale=state.tensor_scale,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class DiscQuant:
    """Settings of DiscQuant; the defaults are those of its code."""

    steps: int = 1000
    learning_rate: float = 0.1
    rho: float = 200.0
    """Weight of the data term against the pull to the corners."""
    clamp: float = 1.0
    """Largest magnitude of the data term for one weight."""


def discquant(
    weight: Tensor,
    near: Neighbours,
    loss: Callable[[Tensor], Tensor],
    *,
    settings: DiscQuant | None = None,
) -> Tensor:
    """Weights at one of their neighbours each, chosen by gradient descent on a mixture x.

    w(x) = (1 - x) down + x up with x in [0, 1], started at the weight itself. The gradient is
    -(2y - 1) + clamp(rho dloss/dx), y the start; after each step x is clamped to [0, 1], and in
    the end it is rounded at 0.5.

    Args:
        weight: Any shape.
        near: Its neighbours, from `neighbours`.
        loss: Scalar loss of a weight of that shape, differentiable; calibration data is its own.
        settings: Optimiser settings.

    Source: Chee et al., DiscQuant, arXiv 2501.06417, section 4 and the authors' code.
    """
    chosen = settings or DiscQuant()
    width = near.up - near.down
    y = torch.where(width > 0, (weight - near.down) / width, 0.5)
    x = y.clone().requires_grad_(True)
    optimiser = torch.optim.AdamW([x], lr=chosen.learning_rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.0, chosen.steps)
    for _ in range(chosen.steps):
        optimiser.zero_grad()
        (slope,) = torch.autograd.grad(loss(near.down + x * width), x)
        x.grad = -(2 * y - 1) + torch.clamp(chosen.rho * slope, -chosen.clamp, chosen.clamp)
        optimiser.step()
        schedule.step()
        with torch.no_grad():
            x.clamp_(0, 1)
    return torch.where(x.detach() >= 0.5, near.up, near.down)
