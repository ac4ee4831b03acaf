"""Rounding to an intermediate format first: innocuous from 2 p + 2 digits on, and not before.

Source of the law: Figueroa, When is double rounding innocuous?, SIGNUM Newsletter 30 (1995).
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from dse.numerics import quantize
from hwmodels.formats.catalog import quantizer

OPERATIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "product": lambda a, b: a * b,
    "sum": lambda a, b: a + b,
    "quotient": lambda a, b: a / b,
    "root": lambda a, b: (a * 2.0 + 0 * b).sqrt(),
}


def pairs(digits: int, exponents: int) -> tuple[Tensor, Tensor]:
    """Every pair of positive numbers of so many digits over some binades, in float64."""
    significands = torch.arange(1 << (digits - 1), 1 << digits, dtype=torch.float64)
    numbers = (significands * 2.0 ** torch.arange(exponents)[:, None]).flatten()
    return numbers.repeat(len(numbers)), numbers.repeat_interleave(len(numbers))


def differences(name: str, digits: int, between: int) -> int:
    """Results of all pairs that an intermediate rounding changes."""
    a, b = pairs(digits, 5)
    exact = OPERATIONS[name](a, b)
    narrow, wide = (quantizer(f"e8m{one - 1}") for one in (digits, between))
    # Float32 has digits to spare for both; a quotient's and a root's own rounding is far below.
    once = quantize(exact.float(), narrow, axes=())
    twice = quantize(quantize(exact.float(), wide, axes=()), narrow, axes=())
    return int((once != twice).sum())


@pytest.mark.parametrize("digits", [3, 4, 5])
@pytest.mark.parametrize("name", OPERATIONS)
def test_twice_as_many_digits_and_two_more_change_nothing(name: str, digits: int) -> None:
    assert differences(name, digits, 2 * digits + 2) == 0


@pytest.mark.parametrize("digits", [4, 5])
@pytest.mark.parametrize("name", ["product", "sum"])
def test_a_few_digits_more_do(name: str, digits: int) -> None:
    assert differences(name, digits, digits + 1) > 0
