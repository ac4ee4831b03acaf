"""The re-fit finds an additive truth, and does not run away from its prior."""

import numpy as np
import pytest

from dse.explore.surrogate import Surrogate


def _truth(rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    return tuple(np.concatenate([[0.0], rng.random(3) ** 4]) for _ in range(6))


def test_refit_predicts_unseen_points_of_an_additive_truth_better_than_the_prior() -> None:
    rng = np.random.default_rng(0)
    truth = Surrogate(losses=_truth(rng))
    prior = Surrogate(
        losses=tuple(entries * rng.uniform(0.4, 2.5, size=4) for entries in truth.losses)
    )
    points = rng.integers(0, 4, size=(60, 6))
    unseen = rng.integers(0, 4, size=(200, 6))
    fitted = prior.refitted(points, truth.predict(points))
    exact = truth.predict(unseen)
    error = np.abs(fitted.predict(unseen) - exact).mean()
    assert error < 0.3 * np.abs(prior.predict(unseen) - exact).mean()


def test_without_usable_measurements_the_prior_stays() -> None:
    prior = Surrogate(losses=(np.array([0.0, 1.0]),))
    assert prior.refitted(np.array([[1]]), [np.inf]) is prior


def test_contributions_are_never_negative() -> None:
    prior = Surrogate(losses=(np.array([0.1, 1.0]), np.array([0.1, 1.0])))
    fitted = prior.refitted(np.array([[0, 0], [1, 0], [0, 1]]), [5.0, 0.2, 0.3])
    assert min(float(entries.min()) for entries in fitted.losses) >= 0.0
    assert fitted.predict(np.array([[0, 0]]))[0] == pytest.approx(
        sum(float(entries[0]) for entries in fitted.losses)
    )
