from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dse.report.quantities.unit import loss_text, percent, si


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.0412, "s", "41.2 ms"),
        (1.5e-6, "s", "1.50 µs"),
        (0.9996, "s", "1.00 s"),
        (4.51e9, "B", "4.51 GB"),
        (0.5, "B", "0.500 B"),
        (0.0, "J", "0 J"),
        (None, "s", "–"),
        (math.nan, "s", "–"),
    ],
)
def test_three_digits_with_a_prefix(value: float | None, unit: str, text: str) -> None:
    assert si(value, unit) == text


@given(st.floats(1e-11, 1e14))
def test_the_prefix_keeps_the_value_to_half_a_digit(value: float) -> None:
    number, prefixed = si(value, "s").split()
    power = {"p": -12, "n": -9, "µ": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12}
    read = float(number) * 10.0 ** power[prefixed.removesuffix("s")]
    assert read == pytest.approx(value, rel=5.1e-3)


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (0.01234, 0.00112, "0.0123 ± 0.0011"),
        (0.01234, 0.00312, "0.012 ± 0.003"),
        (0.01234, 0.0, "0.0123"),
        (0.0, 0.0, "0"),
        (None, 0.0, "–"),
    ],
)
def test_decimals_follow_the_error(value: float | None, error: float, text: str) -> None:
    assert loss_text(value, error) == text


def test_almost_all_is_not_all() -> None:
    assert percent(0.9999) == "99 %"
    assert percent(1.0) == "100 %"
