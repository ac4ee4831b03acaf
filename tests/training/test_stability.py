"""Stability: the closed form beside a search, spikes, intervals."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.special import logsumexp

from dse.training.stability import (
    interval_of_mean,
    interval_of_share,
    seeds_needed,
    sharpness,
    spikes,
)


@pytest.mark.parametrize("epsilon", [1e-3, 5e-4])
def test_the_corner_of_the_box_is_what_l_bfgs_b_finds(epsilon: float) -> None:
    """The search of arXiv 2405.18710 over 100 vectors of logits."""
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(100, 50, generator=generator, dtype=torch.float64)
    labels = torch.randint(50, (100,), generator=generator)
    ours = sharpness(logits, labels, epsilon=epsilon).numpy()
    for row, (x, label) in enumerate(zip(logits.numpy(), labels.tolist(), strict=True)):

        def loss(z: np.ndarray, x: np.ndarray = x, label: int = label) -> tuple[float, np.ndarray]:
            y = x + z
            total = logsumexp(y)
            gradient = np.exp(y - total)
            gradient[label] -= 1
            return -(total - y[label]), -gradient

        room = epsilon * (np.abs(x) + 1)
        bounds = list(zip(-room, room, strict=True))
        found = minimize(loss, np.zeros_like(x), jac=True, bounds=bounds, method="L-BFGS-B",
                         options={"ftol": 1e-15, "gtol": 1e-12})  # fmt: skip
        before = -loss(np.zeros_like(x))[0]
        theirs = 100 * (-found.fun - before) / (1 + before)
        assert ours[row] == pytest.approx(theirs, rel=1e-4)
        assert ours[row] >= theirs * (1 - 1e-9)


def test_a_spike_stands_far_above_what_was_before() -> None:
    generator = np.random.default_rng(0)
    series = 2 + 0.01 * generator.standard_normal(200)
    assert spikes(series.tolist()) == []
    series[150] = 3
    assert spikes(series.tolist()) == [150]
    assert spikes([1.0] * 50) == []


def test_an_interval_of_two_values_is_wide_and_of_one_is_none() -> None:
    assert interval_of_mean([1.0]) is None
    found = interval_of_mean([1.0, 2.0, 3.0, 4.0])
    assert found is not None
    assert (found.low, found.mean, found.high) == pytest.approx((0.4457, 2.5, 4.5543), abs=1e-4)
    assert not found.holds_zero


def test_no_divergence_in_a_few_seeds_is_not_none_at_all() -> None:
    found = interval_of_share(0, 5)
    assert (found.mean, found.low) == (0, 0)
    assert found.high == pytest.approx(0.434, abs=1e-3)


def test_the_seeds_that_a_gap_would_take_follow_from_the_spread_of_pairs() -> None:
    pairs = [0.01, -0.01, 0.02, 0.0]
    few, many = seeds_needed(pairs, 0.02), seeds_needed(pairs, 0.002)
    assert few is not None
    assert many is not None
    assert few < 10
    assert many > 100
    assert seeds_needed([0.1], 0.1) is None


def test_a_spike_is_no_part_of_what_it_is_measured_by() -> None:
    """Seven deviations above twenty steps; with itself among them it would be four."""
    assert spikes([0.0, 1.0] * 10 + [4.1]) == [20]
    assert spikes([0.0, 1.0] * 10 + [3.9]) == []
