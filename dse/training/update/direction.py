"""Directions of an optimizer's step, from a gradient and its moments, all in float32."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor

from dse.training.method import OptimizerName, Update

GRADIENT_DECAY, NORM_DECAYS = 0.999, (0.7, 0.9)
"""Stable-SPAM's theta, gamma 1 and gamma 2 (arXiv 2502.17055, section 4)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Moments:
    """The running moments of one parameter's gradient, as they are kept."""

    m: Tensor
    """First moment, or momentum."""
    v: Tensor
    """Second moment; `hadam`: its root."""
    steps: int = 0
    """Steps that they have seen."""
    largest: float = 0.0
    """`stable_spam`: running largest magnitude of the gradient."""
    norm: float = 0.0
    """`stable_spam`: running norm of the gradient."""
    squared_norm: float = 0.0
    """`stable_spam`: running square of it."""
    seen: int = 0
    """`stable_spam`: steps of the three, which no reset ends."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Direction:
    """A step of one parameter, before the learning rate."""

    value: Tensor
    moments: Moments
    """As they would be kept exactly."""
    spike: float = 1.0
    """Root mean square of the gradient over the root of its second moment: far above 1 where the
    moment lags behind the gradient (arXiv 2304.13013, section 3.4)."""


Rule = Callable[[Tensor, Moments, Update, float], Direction]
"""(gradient, moments, settings, epsilon) -> direction."""


def sgd(gradient: Tensor, moments: Moments, update: Update, _epsilon: float) -> Direction:
    """Momentum, not dampened."""
    m = update.momentum * moments.m + gradient
    return Direction(
        value=m, moments=Moments(m=m, v=moments.v, steps=moments.steps + 1), spike=0.0
    )


def adamw(gradient: Tensor, moments: Moments, update: Update, epsilon: float) -> Direction:
    """Adam's direction (arXiv 1412.6980); decay of weights is the caller's (arXiv 1711.05101)."""
    first, second = update.betas
    steps = moments.steps + 1
    m = first * moments.m + (1 - first) * gradient
    v = second * moments.v + (1 - second) * gradient.square()
    root = (v / (1 - second**steps)).sqrt()
    return Direction(
        value=m / (1 - first**steps) / (root + epsilon),
        moments=Moments(m=m, v=v, steps=steps),
        spike=_spike(gradient, root, epsilon),
    )


def hadam(gradient: Tensor, moments: Moments, update: Update, epsilon: float) -> Direction:
    """Adam that keeps the root of the second moment, so that squares never underflow.

    Source: Low-Precision Reinforcement Learning, arXiv 2102.13565, section 4.1.
    """
    first, second = update.betas
    steps = moments.steps + 1
    m = first * moments.m + (1 - first) * gradient
    root = torch.hypot(math.sqrt(second) * moments.v, math.sqrt(1 - second) * gradient)
    unbiased = root / math.sqrt(1 - second**steps)
    return Direction(
        value=m / (1 - first**steps) / (unbiased + epsilon),
        moments=Moments(m=m, v=root, steps=steps),
        spike=_spike(gradient, unbiased, epsilon),
    )


def stable_adamw(gradient: Tensor, moments: Moments, update: Update, epsilon: float) -> Direction:
    """AdamW whose rate is divided by the spike where that is above 1.

    Source: StableAdamW, arXiv 2304.13013, section 3.5.
    """
    found = adamw(gradient, moments, update, epsilon)
    return Direction(
        value=found.value / max(1.0, found.spike), moments=found.moments, spike=found.spike
    )


def stable_spam(gradient: Tensor, moments: Moments, update: Update, epsilon: float) -> Direction:
    """Adam on gradients whose spikes are cut and whose norm is smoothed; moments are reset.

    Source: Stable-SPAM, arXiv 2502.17055, algorithm 1.
    """
    seen = moments.seen + 1
    top = float(gradient.abs().amax())
    largest = GRADIENT_DECAY * moments.largest + (1 - GRADIENT_DECAY) * top
    limit = largest / (1 - GRADIENT_DECAY**seen)
    if top > limit:
        gradient = torch.where(gradient.abs() > limit, gradient / top * limit, gradient)
    size = float(gradient.norm())
    first, second = NORM_DECAYS
    norm = first * moments.norm + (1 - first) * size
    squared = second * moments.squared_norm + (1 - second) * size**2
    smooth = (norm / (1 - first**seen)) / (math.sqrt(squared / (1 - second**seen)) + epsilon)
    gradient = gradient / (size + epsilon) * smooth
    if moments.seen and moments.seen % update.reset_every == 0:
        zeros = torch.zeros_like(gradient)
        moments = Moments(m=zeros, v=zeros)
    found = adamw(gradient, moments, update, epsilon)
    kept = Moments(
        m=found.moments.m, v=found.moments.v, steps=found.moments.steps,
        largest=largest, norm=norm, squared_norm=squared, seen=seen,
    )  # fmt: skip
    return Direction(value=found.value, moments=kept, spike=found.spike)


RULES: Mapping[OptimizerName, Rule] = MappingProxyType(
    {
        "sgd": sgd,
        "adamw": adamw,
        "hadam": hadam,
        "stable_adamw": stable_adamw,
        "stable_spam": stable_spam,
    }
)


def _spike(gradient: Tensor, root: Tensor, epsilon: float) -> float:
    """The root mean square of gradient over root of the second moment."""
    floor = max(epsilon, 1e-30)
    return float((gradient / root.clamp(min=floor)).square().mean().sqrt())
