"""Widths of quires: what standards say, what softposit's overflow at, and sums by hand."""

from __future__ import annotations

import itertools
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwmodels.errors import FormatError, UnknownFormatError
from hwmodels.formats import catalog
from hwmodels.formats.accumulator import accumulator, exact_bits
from hwmodels.formats.encodings import ENCODINGS
from hwmodels.formats.numbers import sorted_values

NARROW = ("posit6_1", "posit4_2", "e2m1", "e3m2", "e2m3", "e4m3", "int4", "int8", "fixed8_4")


@pytest.mark.parametrize("bits", [4, 6, 8, 10, 12, 16])
def test_a_posit_of_the_standard_of_2022_takes_sixteen_bits_a_bit(bits: int) -> None:
    encoding = ENCODINGS[f"posit{bits}_2"]
    assert exact_bits(encoding, encoding) == 16 * bits


@pytest.mark.parametrize(("bits", "es"), [(8, 0), (16, 1)])
def test_a_posit_of_the_draft_of_2018_takes_half_its_square(bits: int, es: int) -> None:
    encoding = ENCODINGS[f"posit{bits}_{es}"]
    assert exact_bits(encoding, encoding, carry=bits - 1) == bits**2 // 2


@pytest.mark.parametrize(("bits", "es"), [(8, 0), (16, 1)])
def test_softposits_quire_holds_as_many_products_as_its_carry_says(bits: int, es: int) -> None:
    softposit = pytest.importorskip("softposit", reason="oracle for quires")
    kind = getattr(softposit, f"posit{bits}")
    largest = kind(ENCODINGS[f"posit{bits}_{es}"].max)
    quire = getattr(softposit, f"quire{bits}")()
    carry = bits - 1
    for _ in range(2**carry - 1):
        quire.qma(largest, largest)
    assert float(quire.toPosit()) == float(largest)
    quire.qma(largest, largest)  # one more is beyond the width, and wraps around
    assert float(quire.toPosit()) != float(largest)


@given(st.sampled_from(NARROW), st.sampled_from(NARROW), st.integers(1, 12))
def test_every_product_is_a_multiple_and_the_largest_sum_just_fits(
    one: str, two: str, carry: int
) -> None:
    first, second = (sorted_values(ENCODINGS[name]) for name in (one, two))
    products = [Fraction(a) * Fraction(b) for a, b in itertools.product(first, second)]
    unit = min(abs(product) for product in products if product)
    assert all((product / unit).denominator == 1 for product in products)
    largest = (2**carry - 1) * max(abs(product) for product in products) / unit
    bits = exact_bits(ENCODINGS[one], ENCODINGS[two], carry)
    assert 2 ** (bits - 2) <= largest < 2 ** (bits - 1)


def test_a_name_gives_the_carry() -> None:
    assert accumulator("quire").carry == 31
    assert accumulator("quire:carry7").carry == 7
    with pytest.raises(UnknownFormatError, match="only word of a quire"):
        accumulator("quire:carry0")


@pytest.mark.parametrize("name", ["nf4", "lns8_4"])
def test_numbers_that_are_no_multiples_have_no_quire(name: str) -> None:
    with pytest.raises(FormatError, match="no quire holds"):
        exact_bits(catalog.format(name).element, ENCODINGS["int8"])
