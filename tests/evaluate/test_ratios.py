"""Likelihood ratios between two distributions a position."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import entropy

from dse.evaluate.ratios import STEP, batch_ratios, summarise_ratios

P = torch.tensor([[[0.5, 0.25, 0.25], [0.2, 0.2, 0.6]]]).log()
Q = torch.tensor([[[0.25, 0.5, 0.25], [0.2, 0.6, 0.2]]]).log()


def test_two_positions_are_what_a_hand_computes() -> None:
    found = summarise_ratios([batch_ratios(P, Q, None)])
    assert found.acceptance == pytest.approx((0.75 + 0.6) / 2)
    divergences = [entropy(q, p) for p, q in zip(P[0].exp(), Q[0].exp(), strict=True)]
    assert found.mean_log == pytest.approx(-np.mean(divergences))
    # E[(p/q)^2] is 1 + 1/8 + 1/4 and 0.2 + 1/15 + 1.8.
    assert found.effective == pytest.approx(2 / (1.375 + 0.2 + 0.2 / 3 + 1.8))
    assert found.low_log == pytest.approx(-math.log(3), abs=STEP)
    assert found.high_log == pytest.approx(math.log(3), abs=STEP)


def test_drawn_tokens_are_accepted_as_often_as_said() -> None:
    generator = torch.Generator().manual_seed(0)
    log_p = torch.log_softmax(torch.randn(4, 50, 32, generator=generator), dim=-1)
    log_q = torch.log_softmax(log_p + torch.randn(log_p.shape, generator=generator), dim=-1)
    found = summarise_ratios([batch_ratios(log_p, log_q, None)])
    drawn = torch.multinomial(log_q.exp().reshape(-1, 32), 2000, True, generator=generator)
    ratio = (log_p - log_q).reshape(-1, 32).gather(1, drawn)
    kept = torch.rand(ratio.shape, generator=generator) < ratio.exp()
    assert found.acceptance == pytest.approx(kept.float().mean().item(), abs=5e-3)
    assert found.high_log == pytest.approx(torch.quantile(ratio.flatten(), 0.99).item(), abs=0.02)
    assert found.mean_log == pytest.approx(ratio.mean().item(), abs=0.01)
    assert 1 / found.effective == pytest.approx(ratio.mul(2).exp().mean().item(), rel=0.05)


def test_a_network_accepts_all_of_its_own() -> None:
    found = summarise_ratios([batch_ratios(P, P, None)])
    assert (found.acceptance, found.effective) == pytest.approx((1.0, 1.0))
    assert (found.mean_log, found.low_log, found.high_log) == pytest.approx((0, 0, 0), abs=1e-6)


def test_positions_that_do_not_count_change_nothing() -> None:
    first = summarise_ratios([batch_ratios(P[:, :1], Q[:, :1], None)])
    masked = summarise_ratios([batch_ratios(P, Q, torch.tensor([[True, False]]))])
    assert masked.acceptance == first.acceptance
    assert masked.low_log == first.low_log
    assert masked.effective == pytest.approx(first.effective)


def test_no_weight_makes_up_for_a_class_that_is_never_drawn() -> None:
    never = torch.tensor([[[0.5, 0.5, 0.0], [0.2, 0.6, 0.2]]]).log()
    found = summarise_ratios([batch_ratios(P, never, None)])
    assert found.effective == 0
    assert math.isfinite(found.mean_log)
    assert found.acceptance == pytest.approx((0.75 + 0.6) / 2)


def test_a_class_that_the_reference_forbids_is_at_the_end_of_the_tail() -> None:
    forbids = torch.tensor([[[0.5, 0.5, 0.0], [0.2, 0.6, 0.2]]]).log()
    found = summarise_ratios([batch_ratios(forbids, Q, None)])
    assert found.mean_log == -math.inf
    assert found.low_log < -30
