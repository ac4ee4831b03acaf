"""Errors by group, against figures worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from hwmodels.adapt.deviation import Comparison

MEASURED = np.array([10.0, 10.0, 100.0, 80.0])
PREDICTED = np.array([11.0, 8.0, 50.0, 80.0])
COMPARED = Comparison(
    measured=MEASURED,
    predicted=PREDICTED,
    low=np.array([9.0, 7.0, 40.0, 80.0]),
    high=np.array([12.0, 9.0, 99.0, 90.0]),
    labels={
        "operator": ("gemm", "gemm", "attention", "gemm"),
        "format": ("bf16", "fp8", "bf16", "bf16"),
    },
)


def test_errors_are_those_of_their_definitions() -> None:
    """Relative errors are +0.1, -0.2, -0.5 and 0; absolute ones 1, 2, 50 and 0."""
    errors = COMPARED.errors()
    assert errors.rows == 4
    assert errors.mape == pytest.approx(0.2)
    assert errors.median == pytest.approx(0.15)
    assert errors.bias == pytest.approx(-0.15)
    assert errors.within_10_percent == 0.5
    assert errors.in_interval == 0.5
    assert errors.total == pytest.approx(149 / 200 - 1)
    assert (errors.share_of_time, errors.share_of_error) == (1.0, 1.0)


def test_groups_share_time_and_error_and_the_worst_comes_first() -> None:
    groups = COMPARED.by("operator")
    assert list(groups) == [("attention",), ("gemm",)]
    assert groups["attention",].share_of_error == pytest.approx(50 / 53)
    assert groups["gemm",].share_of_time == pytest.approx(0.5)
    assert sum(one.rows for one in groups.values()) == 4
    assert next(iter(COMPARED.by("operator", "format"))) == ("attention", "bf16")


def test_exact_predictions_have_no_error() -> None:
    exact = Comparison(
        measured=MEASURED, predicted=MEASURED, low=MEASURED, high=MEASURED, labels={}
    )
    assert (exact.errors().share_of_error, exact.errors().in_interval) == (0.0, 1.0)
