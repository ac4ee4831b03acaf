"""Pendulums against their equation of motion, and actors against torch's distributions."""

from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import Normal, TanhTransform, TransformedDistribution

from dse.training.control.networks import LOGARITHMS, Actor
from dse.training.control.pendulum import SPEED, Pendulums


def test_without_torque_a_pendulum_keeps_its_energy_but_for_the_steps() -> None:
    """Energy speed^2 / 2 + 1.5 g cos(angle), by the symplectic step of the source."""
    pendulums = Pendulums(angle=torch.tensor([2.0]), speed=torch.tensor([0.0]))

    def energy() -> float:
        return float(pendulums.speed**2 / 2 + 15 * pendulums.angle.cos())

    before, turns = energy(), []
    for _ in range(200):
        pendulums.advance(torch.zeros(1, 1))
        turns.append(energy())
    assert max(abs(one - before) for one in turns) < 1.5
    assert float(pendulums.speed.abs()) < SPEED


def test_rewards_are_those_of_the_source_over_their_largest() -> None:
    hanging = Pendulums(angle=torch.tensor([math.pi, 0.0]), speed=torch.tensor([8.0, 0.0]))
    reward = hanging.advance(torch.tensor([[5.0], [0.0]]))  # torque is cut to its largest
    assert reward.tolist() == pytest.approx([-1.0, 0.0], abs=1e-6)
    upright = Pendulums(angle=torch.tensor([2 * math.pi + 0.1]), speed=torch.tensor([1.0]))
    expected = -(0.1**2 + 0.1) / (math.pi**2 + 0.1 * 64 + 0.001 * 4)
    assert upright.advance(torch.zeros(1, 1)).item() == pytest.approx(expected, rel=1e-4)


def test_an_actors_density_is_that_of_a_squashed_normal() -> None:
    torch.manual_seed(0)
    actor, seen, noise = Actor(3, 1), torch.randn(16, 3), torch.randn(16, 1)
    action, density = actor(seen, noise)
    mean, logarithm = actor.body(seen).chunk(2, dim=-1)
    normal = Normal(mean, logarithm.clamp(*LOGARITHMS).exp())
    squashed = TransformedDistribution(normal, [TanhTransform(cache_size=1)])
    torch.testing.assert_close(density, squashed.log_prob(action)[:, 0], rtol=1e-4, atol=1e-4)
    still, _ = actor(seen)
    torch.testing.assert_close(still, mean.tanh())
