"""Soft actor-critic: what follows from a seed, what fails, what targets do."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from dse.systems.measures.methods import MethodGiven, given_method
from dse.training.control.actor_critic import ActorCritic, Learned, Settings
from dse.training.load import load_method
from dse.training.method import Method

SHORT = Settings(updates=40, random=10, begins=5, batch=16)


def finished(method: Method, seed: int = 0, settings: Settings = SHORT) -> Learned:
    run = ActorCritic(method, seed, settings)
    while not run.done:
        run.advance()
    return run.outcome()


def test_a_run_follows_from_its_seed() -> None:
    fp32 = load_method("fp32")
    assert finished(fp32) == finished(fp32)
    assert finished(fp32) != finished(fp32, seed=1)
    assert finished(fp32) != finished(load_method("rl_fp16"))


def test_a_reward_is_one_of_a_step() -> None:
    found = finished(load_method("fp32"))
    assert -1 <= found.reward <= 0
    assert found.failed_at is None


def test_weights_that_are_no_numbers_end_a_run() -> None:
    infinite = replace(SHORT, rate=1e30)
    found = finished(load_method("fp16_pure"), settings=infinite)
    assert found.failed_at is not None
    assert found.failed_at < SHORT.updates - 1


def test_targets_follow_critics_by_the_methods_own_rounding() -> None:
    """Steps of 5e-6: all of the way in fp32, none to nearest in fp16, most with a compensation."""
    far = {}
    methods: dict[str, MethodGiven] = {
        "fp32": "fp32",
        "nearest": "fp16_pure",
        "kahan": {"base": "fp16_pure", "update": {"mode": "kahan"}},
    }
    for name, given in methods.items():
        run = ActorCritic(given_method(given), 0, replace(SHORT, follow=1e-5))
        critic, target = run._critics[0].model, run._targets[0].model
        with torch.no_grad():
            for one in critic.parameters():
                one.add_(0.5)
        before = [one.detach().clone() for one in target.parameters()]
        for _ in range(40):
            run._follow()
        moved = [
            (one.detach() - other)[other.abs() > 0.0625]  # half a unit of fp16: 1.5e-5 or more
            for one, other in zip(target.parameters(), before, strict=True)
        ]
        far[name] = float(torch.cat(moved).mean())
    assert far["fp32"] == pytest.approx(40 * 5e-6, rel=0.05)
    assert far["kahan"] == pytest.approx(far["fp32"], rel=0.3)
    assert far["nearest"] == 0
