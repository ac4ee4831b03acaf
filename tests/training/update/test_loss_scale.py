"""The factor of the loss."""

from __future__ import annotations

from dse.training.method import LossScale
from dse.training.update.loss_scale import Factor


def factor(kind: str, **fields: object) -> Factor:
    return Factor.of(LossScale(kind=kind, **fields))  # type: ignore[arg-type]


def test_there_is_none_unless_asked_for() -> None:
    found = factor("none")
    assert found.value == 1
    assert found.after(finite=True, saturated=0)


def test_a_dynamic_factor_halves_at_an_overflow_and_doubles_after_a_time() -> None:
    found = factor("dynamic", initial=1024, interval=3)
    assert not found.after(finite=False, saturated=0)
    assert found.value == 512
    assert all(found.after(finite=True, saturated=0) for _ in range(3))
    assert found.value == 1024


def test_a_static_factor_stays_and_takes_every_step() -> None:
    found = factor("static", initial=64)
    assert found.after(finite=False, saturated=0)
    assert found.value == 64


def test_auto_mu_halves_where_gradients_reach_the_end_of_their_format() -> None:
    found = factor("auto_mu", initial=8, interval=2)
    assert found.after(finite=True, saturated=1e-4)
    assert found.value == 4
    assert found.after(finite=True, saturated=1e-6)
    assert found.after(finite=True, saturated=0)
    assert found.value == 8


def test_auto_mu_takes_no_step_whose_gradients_are_no_numbers() -> None:
    found = factor("auto_mu", initial=8)
    assert not found.after(finite=False, saturated=0)
    assert found.value == 4
    assert found.after(finite=True, saturated=1e-4)
