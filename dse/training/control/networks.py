"""Networks of an actor and its critics."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from dse.training.functions import normal_log_density, softplus

WIDTH = 64
LOGARITHMS = (-5.0, 2.0)
"""Least and largest logarithm of a deviation (pytorch_sac)."""


def _perceptron(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inputs, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH), nn.ReLU(),
        nn.Linear(WIDTH, outputs),
    )  # fmt: skip


class Actor(nn.Module):
    """A normal distribution of actions, squashed by a hyperbolic tangent."""

    def __init__(self, observed: int, actions: int) -> None:
        super().__init__()
        self.body = _perceptron(observed, 2 * actions)

    def forward(self, observed: Tensor, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """An action in [-1, 1] and the logarithm of its density.

        The squash's part of it is 2 (log 2 - x - softplus(-2 x)) (arXiv 1812.05905, appendix C).

        Args:
            observed: (samples, observed).
            noise: (samples, actions), normal; None: the mean's action.
        """
        mean, logarithm = self.body(observed).chunk(2, dim=-1)
        deviation = torch.exp(logarithm.clamp(*LOGARITHMS))
        x = mean if noise is None else mean + deviation * noise.to(mean.dtype)
        density = normal_log_density(x, mean, deviation)
        squash = 2 * (math.log(2) - x - softplus(-2 * x))
        return torch.tanh(x), (density - squash).sum(-1)


class Critic(nn.Module):
    """The value of an action."""

    def __init__(self, observed: int, actions: int) -> None:
        super().__init__()
        self.body = _perceptron(observed + actions, 1)

    def forward(self, observed: Tensor, action: Tensor) -> Tensor:
        """(samples)."""
        value: Tensor = self.body(torch.cat([observed.to(action.dtype), action], dim=-1))
        return value[:, 0]
