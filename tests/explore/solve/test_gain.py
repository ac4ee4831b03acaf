"""Gains are counted where users choose: by the logarithm of losses."""

from __future__ import annotations

import numpy as np
import pytest

from dse.explore.solve.gain import gains, visible
from dse.explore.study.proposer import one_front

FRONT = np.array([[1.0, 1.0], [0.6, 2.0], [0.06, 3.0], [1e-6, 4.0]])
"""Losses and costs."""


def test_halving_a_small_loss_is_worth_about_as_much_as_halving_a_large_one() -> None:
    between = np.array([[0.3, 2.0], [0.03, 3.0]])
    large, small = gains(between, FRONT, one_front)
    assert large > 0
    assert small == pytest.approx(large, rel=0.25)
    linear = gains(between, FRONT, one_front, losses=0)
    assert linear[1] < linear[0] / 5


def test_what_nobody_sees_is_worth_next_to_nothing() -> None:
    halved = gains(np.array([[0.3, 2.0], [5e-7, 4.0]]), FRONT, one_front)
    assert halved[1] < halved[0] / 100


def test_a_unit_of_losses_changes_no_order() -> None:
    rng = np.random.default_rng(0)
    candidates = np.column_stack([10 ** rng.uniform(-4, 0, 50), rng.uniform(1, 4, 50)])
    scale = np.array([1000.0, 1.0])
    plain = gains(candidates, FRONT, one_front)
    assert gains(candidates * scale, FRONT * scale, one_front) == pytest.approx(plain)


def test_losses_below_full_precision_stay_in_order() -> None:
    values = np.array([[-0.2, 1.0], [-0.1, 1.0], [0.0, 1.0], [0.1, 1.0]])
    assert (np.diff(visible(values, np.array([0.1]))[:, 0]) > 0).all()
    assert visible(values, np.array([-0.1])) == pytest.approx(values)
