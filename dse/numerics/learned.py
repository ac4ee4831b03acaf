"""Learned rounding: which of the two neighbours on the grid, chosen with data.

Methods see a quantizer only through the values just below and just above each weight, so that
they work with every format.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dse.numerics.gptq import fixed_state, gptq, gptq_macs
from dse.numerics.grids.errors import QuantizeError
from dse.numerics.grids.state import QuantizerState
from dse.numerics.neighbours import Neighbours, neighbours
from hwmodels.formats.quantizer import Quantizer


@dataclass(frozen=True, slots=True, kw_only=True)
class DiscQuant:
    """Settings of DiscQuant; the defaults are those of its code."""

    steps: int = 1000
    learning_rate: float = 0.1
    rho: float = 200.0
    """Weight of the data term against the pull to the corners."""
    clamp: float = 1.0
    """Largest magnitude of the data term for one weight."""


LAYERWISE = DiscQuant(steps=200, rho=1.0)
"""For the loss of one layer's output, whose gradients are of order one (`learned_state`)."""


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


def learned_state(
    weight: Tensor, hessian: Tensor, quantizer: Quantizer, *, tensor_scale: float | None = None
) -> QuantizerState:
    """Weights under a quantizer whose rounding is `gptq` or `discquant`, and their scales.

    Both lower the squared error of the layer's own output, so that what one layer takes does not
    depend on the choices of others. (DiscQuant's authors descend on the divergence of the whole
    model; give `discquant` that loss to do so.)

    Args:
        weight: (outputs, depth), or (groups, outputs, depth).
        hessian: (depth, depth) second moment of the inputs, with the groups of the weight.
        quantizer: What to apply along the last axis, without transforms.
        tensor_scale: The second level of a two-level format; that of the weight by default.

    Returns:
        Values shaped as the weight; scales for its rows (groups * outputs, depth).

    Raises:
        QuantizeError: the rounding is not learned, or comes with transforms.
    """
    if not quantizer.is_learned or quantizer.transforms:
        raise QuantizeError(
            f"{quantizer.name}: expected rounding gptq or discquant without transforms"
        )
    state = fixed_state(weight, hessian, quantizer, tensor_scale=tensor_scale)
    if quantizer.rounding == "gptq":
        return replace(state, values=gptq(weight, hessian, quantizer, state=state))
    rows = weight.reshape(-1, weight.shape[-1])
    found = neighbours(rows, quantizer, axes=(1,), state=state)
    near = Neighbours(down=found.down.reshape(weight.shape), up=found.up.reshape(weight.shape))
    unit = (near.up - near.down).square().mean() * hessian.diagonal(dim1=-2, dim2=-1).mean()
    scaled = hessian.to(weight.dtype) / unit.clamp_min(torch.finfo(weight.dtype).tiny)

    def loss(candidate: Tensor) -> Tensor:
        error = candidate - weight
        return ((error @ scaled) * error).sum()

    with torch.enable_grad(), torch.inference_mode(False):
        return replace(state, values=discquant(weight, near, loss, settings=LAYERWISE))


def learned_macs(outputs: int, depth: int, quantizer: Quantizer) -> int:
    """Multiply-accumulates of `learned_state` for one product, the data's own not included."""
    if quantizer.rounding == "gptq":
        return gptq_macs(outputs, depth)
    return 3 * LAYERWISE.steps * outputs * depth**2
