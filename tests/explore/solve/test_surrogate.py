"""The re-fit finds an additive truth, and does not run away from its prior."""

import numpy as np
import pytest
from scipy.optimize import nnls

from dse.explore.solve.surrogate import PRIOR_WEIGHT, Surrogate


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


@pytest.mark.parametrize("count", [3, 60])
def test_refit_is_what_scipy_finds(count: int) -> None:
    rng = np.random.default_rng(count)
    prior = rng.gamma(0.5, 1.0, size=(8, 4)) + 0.01
    points = rng.integers(0, 4, size=(count, 8))
    measured = prior[np.arange(8), points].sum(axis=1) * rng.lognormal(0.0, 0.6, size=count)
    found = np.concatenate(Surrogate(losses=tuple(prior)).refitted(points, measured).losses)
    chosen = np.zeros((count, 8, 4))
    chosen[np.arange(count)[:, None], np.arange(8), points] = 1.0
    rows = chosen.reshape(count, -1) * prior.ravel() / measured[:, None]
    system = np.vstack([rows, PRIOR_WEIGHT * np.eye(32)])
    expected, _ = nnls(system, np.r_[np.ones(count), PRIOR_WEIGHT * np.ones(32)])
    np.testing.assert_allclose(found, expected * prior.ravel(), atol=1e-9)
    assert (expected == 0).any() == (count == 60)
