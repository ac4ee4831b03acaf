"""Scaling between nodes: published factors, ranges that are errors outside."""

from __future__ import annotations

import math

import pytest

from hwmodels.circuits.dram import DRAM, dram_energy, dram_energy_per_bit_j
from hwmodels.circuits.node import (
    logic_area_factor,
    logic_energy_factor,
    sram_area_factor,
    sram_energy_factor,
    supply_v,
)
from hwmodels.errors import CircuitError


@pytest.mark.parametrize(
    ("coarse", "fine", "published"),
    [(180, 130, 0.34), (130, 90, 0.44), (90, 65, 0.53), (65, 45, 0.66), (45, 32, 0.46),
     (32, 20, 0.46), (20, 16, 0.89), (16, 14, 0.91), (14, 10, 0.59), (10, 7, 0.58)],
)  # fmt: skip
def test_areas_of_logic_are_stillmakers_and_baas_to_their_two_digits(coarse, fine, published):
    assert logic_area_factor(coarse, fine) == pytest.approx(published, rel=0.04)
    assert logic_area_factor(fine, coarse) == pytest.approx(1 / logic_area_factor(coarse, fine))


def test_energy_is_the_polynomial_of_the_supply():
    at_45 = 1.018 * 0.9**2 - 0.3107 * 0.9 + 0.1539
    at_7 = 0.1776 * 0.7**2 - 0.09097 * 0.7 + 0.02447
    assert logic_energy_factor(45, 7) == pytest.approx(at_7 / at_45)
    low = 0.1776 * 0.5**2 - 0.09097 * 0.5 + 0.02447
    assert logic_energy_factor(7, 7, to_v=0.5) == pytest.approx(low / at_7)


def test_between_nodes_a_power_law_holds():
    between = math.sqrt(logic_area_factor(45, 32))
    assert logic_area_factor(45, math.sqrt(45 * 32)) == pytest.approx(between)


def test_sram_hardly_shrinks_below_5_nm_and_logic_is_not_known_there():
    assert sram_area_factor(7, 5) == pytest.approx(0.021 / 0.027)
    assert sram_area_factor(5, 3) == 1.0
    assert sram_energy_factor(7, 5) == pytest.approx(math.sqrt(0.021 / 0.027))
    with pytest.raises(CircuitError, match="node 5 nm: areas of logic are known from 180 to 7 nm"):
        logic_area_factor(7, 5)


@pytest.mark.parametrize("node", [2, 250])
def test_a_node_outside_of_the_range_is_an_error(node):
    for asked in (logic_area_factor, logic_energy_factor, sram_area_factor, sram_energy_factor):
        with pytest.raises(CircuitError, match=f"node {node} nm"):
            asked(45, node)
    with pytest.raises(CircuitError, match="supply voltages"):
        supply_v(node)


def test_every_kind_of_dram_lies_within_its_own_range_and_has_a_source():
    for kind in DRAM:
        found = dram_energy(kind)
        assert found.low_j <= found.per_bit_j <= found.high_j
        assert found.source
    assert dram_energy_per_bit_j("HBM2E") == pytest.approx(6e-12)


def test_an_unknown_dram_is_told_the_nearest():
    with pytest.raises(CircuitError, match="did you mean 'gddr6x'"):
        dram_energy("gddr6xx")
