"""Scores become losses by one factor, and count by their errors."""

from __future__ import annotations

import math

import numpy as np
import pytest

from dse.explore.problem.link import (
    Degradation,
    Link,
    degradation,
    linked,
    losses_of_scores,
    relative_error,
    weighed,
)


def test_perplexities_lose_nats_and_accuracies_shares() -> None:
    lost = degradation("score.wikitext.word_perplexity", (11.0, 0.11), (10.0, 0.1),
                       higher_is_better=False)  # fmt: skip
    assert lost.value == pytest.approx(math.log(1.1))
    assert lost.stderr == pytest.approx(math.hypot(0.01, 0.01))
    fewer = degradation("score.arc.acc", (0.6, None), (0.7, 0.01), higher_is_better=True)
    assert fewer.value == pytest.approx(0.1)
    assert fewer.stderr is None


def test_the_factor_of_proportional_scores_is_exact_whatever_the_noise_between_them() -> None:
    losses = [0.01, 0.02, 0.04]
    link = linked(losses, [Degradation(value=3 * loss, stderr=1e-4) for loss in losses])
    assert isinstance(link, Link)
    assert link.factor == pytest.approx(1 / 3)
    assert link.scatter == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(
    ("lost", "says"),
    [
        ([Degradation(value=0.1, stderr=0.01)], "1 assignments have it, expected at least 2"),
        ([Degradation(value=0.1, stderr=None)] * 2, "expected at least 3"),
        ([Degradation(value=0.001, stderr=0.01)] * 5, "nothing beyond its noise"),
        ([Degradation(value=-0.1, stderr=0.01)] * 5, "nothing beyond its noise"),
    ],
)
def test_noise_links_nothing(lost: list[Degradation], says: str) -> None:
    found = linked([0.01] * len(lost), lost)
    assert isinstance(found, str)
    assert says in found


def test_an_exact_score_decides_and_a_noisy_one_moves_nothing() -> None:
    loss, error = weighed(0.01, 0.002, [(0.02, 1e-9)])
    assert loss == pytest.approx(0.02, rel=1e-4)
    assert error < 1e-5
    loss, error = weighed(0.01, 0.002, [(0.5, 1.0)])
    assert loss == pytest.approx(0.01, rel=1e-3)
    assert error == pytest.approx(0.002, rel=1e-3)
    assert weighed(0.01, 0.002, [(-1.0, 0.001)])[0] == 0


def test_weighing_is_the_least_squares_estimate() -> None:
    rng = np.random.default_rng(0)
    truth, spread, noise = 1.0, 0.3, 0.2
    found = [
        weighed(truth + spread * a, spread, [(truth + noise * b, noise)])[0]
        for a, b in rng.standard_normal((2000, 2))
    ]
    expected = 1 / math.sqrt(1 / spread**2 + 1 / noise**2)
    assert np.std(found) == pytest.approx(expected, rel=0.05)


def test_only_linked_scores_say_something() -> None:
    lost = {"a": {"x": Degradation(value=0.1, stderr=0.0)}, "b": {}}
    links = {"x": Link(factor=0.5, scatter=0.0)}
    found = losses_of_scores({"a": 0.06, "b": 0.01}, 0.2, lost, links)
    assert found.keys() == {"a"}
    assert found["a"][0] == pytest.approx(0.05, rel=1e-3)


def test_errors_of_predictions_are_robust_shares() -> None:
    measured = np.array([1.0, 2.0, 3.0, 4.0, np.inf, 0.0])
    assert relative_error(measured * 1.5, measured) == pytest.approx(1.4826 * 0.5)
    assert relative_error(measured, measured) == pytest.approx(0.1)
