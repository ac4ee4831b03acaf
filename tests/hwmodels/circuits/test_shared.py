"""Multipliers that several widths share."""

from __future__ import annotations

import pytest

from hwmodels.circuits import gates
from hwmodels.circuits.shared import SharedMac, shared_energy_j, shared_mode
from hwmodels.errors import CircuitError
from hwmodels.formats.accumulator import accumulator
from hwmodels.formats.catalog import ENCODINGS


@pytest.mark.parametrize(
    ("element", "products"),
    [("mxint8_element", 1), ("e4m3", 4), ("e5m2", 4), ("e3m2", 4), ("e2m3", 4), ("e2m1", 8)],
)
def test_products_a_cycle_are_those_of_the_published_array(element, products):
    """arXiv 2511.06313: 64, 256 and 512 GOPS."""
    assert shared_mode(SharedMac(), ENCODINGS[element]).products == products


def test_a_wide_product_is_its_pieces_and_their_sums():
    design = SharedMac(accumulator=accumulator("int32"))
    found = shared_mode(design, ENCODINGS["int8"]).active
    joined = gates.adder(6) * 12 + gates.adder(12) * 3
    pieces = gates.multiplier(2, 2) * 16
    rest = gates.adder(32) + gates.adder(8) * 2
    assert found.adding == pytest.approx((pieces + joined + rest).adding)
    assert found.storing == gates.register(16 + 32).storing


def test_narrow_products_share_the_accumulation():
    energies = [shared_energy_j(SharedMac(), ENCODINGS[name], 45)
                for name in ("e2m1", "e2m3", "e4m3", "int8")]  # fmt: skip
    assert energies == sorted(energies)


def test_what_does_not_fit_is_refused_by_name():
    with pytest.raises(CircuitError, match="int16 x int16 takes 64 pieces"):
        shared_mode(SharedMac(), ENCODINGS["int16"])
    with pytest.raises(CircuitError, match="posit8_1 is neither"):
        shared_mode(SharedMac(), ENCODINGS["posit8_1"])
