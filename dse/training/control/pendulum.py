"""Pendulums that a torque swings up: the smallest task of continuous control, many at a time.

Equations and constants are those of Gymnasium's Pendulum-v1; rewards are divided by their largest
magnitude, so that they lie in [-1, 0].
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

TORQUE, SPEED = 2.0, 8.0
"""Largest torque and angular velocity."""
GRAVITY, STEP = 10.0, 0.05
LENGTH = 200
"""Steps of an episode."""
WORST = math.pi**2 + 0.1 * SPEED**2 + 0.001 * TORQUE**2


@dataclass(slots=True, kw_only=True)
class Pendulums:
    """Pendulums of unit mass and length, in float32."""

    angle: Tensor
    """(pendulums), 0 is upright."""
    speed: Tensor
    """(pendulums)."""

    @classmethod
    def begun(cls, count: int, generator: torch.Generator) -> Pendulums:
        """Pendulums anywhere, at small speeds."""
        spread = 2 * torch.rand(2, count, generator=generator) - 1
        return cls(angle=math.pi * spread[0], speed=spread[1].clone())

    def observed(self) -> Tensor:
        """(pendulums, 3): cosine and sine of the angle, the speed over its largest."""
        return torch.stack([self.angle.cos(), self.angle.sin(), self.speed / SPEED], dim=1)

    def advance(self, action: Tensor) -> Tensor:
        """Takes a step; rewards in [-1, 0], (pendulums).

        Args:
            action: (pendulums, 1), shares of the largest torque, cut to [-1, 1].
        """
        torque = TORQUE * action[:, 0].clamp(-1, 1)
        off = torch.remainder(self.angle + math.pi, 2 * math.pi) - math.pi
        cost = off**2 + 0.1 * self.speed**2 + 0.001 * torque**2
        faster = self.speed + (1.5 * GRAVITY * self.angle.sin() + 3 * torque) * STEP
        self.speed = faster.clamp(-SPEED, SPEED)
        self.angle = self.angle + self.speed * STEP
        return -cost / WORST
