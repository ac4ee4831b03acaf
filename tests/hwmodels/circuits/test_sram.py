"""SRAM and register files: CACTI's figures, the laws below its nodes, ranges."""

from __future__ import annotations

import math

import pytest

from hwmodels.circuits.registers import register_file
from hwmodels.circuits.sram import (
    QUANTITIES,
    left_out_error,
    sram,
    sram_access_energy_j,
    sram_area_mm2,
    sram_leakage_w,
)
from hwmodels.errors import CircuitError

# CACTI 7, itrs-hp: (node, bytes, bits): read nJ, write nJ, leakage mW, area mm2, access ns.
CACTI: dict[tuple[int, int, int], tuple[float | None, ...]] = {
    (22, 8192, 64): (0.00172714, 0.00193171, 2.92516, 0.0071326, 0.137481),
    (22, 1048576, 64): (0.021091, 0.018291, 308.775, 0.914262, 1.09197),
    (45, 1048576, 64): (0.07719, 0.06392, 1197.96, 3.56541, None),
    (22, 33554432, 512): (0.73756, 0.78304, None, None, None),
}


@pytest.mark.parametrize("point", CACTI)
def test_figures_are_those_of_cacti_within_the_fit(point):
    node, capacity, width = point
    read, write, leakage, area, access = CACTI[point]
    assert read is not None
    assert write is not None
    found = sram(capacity, width, node)
    assert found.read_j == pytest.approx(read * 1e-9, rel=0.2)
    assert found.write_j == pytest.approx(write * 1e-9, rel=0.15)
    if area is not None and leakage is not None:
        assert found.leakage_w == pytest.approx(leakage * 1e-3, rel=0.06)
        assert found.area_mm2 == pytest.approx(area, rel=0.15)
    if access is not None:
        assert found.access_s == pytest.approx(access * 1e-9, rel=0.12)


def test_the_error_on_capacities_left_out_is_stated():
    medians = {name: left_out_error(name)[0] for name in QUANTITIES}
    assert max(medians.values()) < 0.07
    assert left_out_error("read_j")[1] == pytest.approx(0.22, abs=0.02)


def test_larger_memories_take_more_of_everything():
    for name in QUANTITIES:
        values = [getattr(sram(2**k * 1024, 64, 22), name) for k in range(0, 16)]
        assert values == sorted(values), name


def test_between_nodes_a_power_law_holds():
    middle = sram_access_energy_j(65536, 64, math.sqrt(22 * 32))
    ends = [sram_access_energy_j(65536, 64, node) for node in (22, 32)]
    assert middle == pytest.approx(math.sqrt(ends[0] * ends[1]))


def test_below_22_nm_area_follows_the_cell_and_energy_its_wire():
    cell = 0.081 ** (math.log(28 / 22) / math.log(28 / 20)) * 0.127 ** (
        math.log(22 / 20) / math.log(28 / 20)
    )
    assert sram_area_mm2(65536, 64, 7) / sram_area_mm2(65536, 64, 22) == pytest.approx(
        0.027 / cell
    )
    supply = 0.7 / 0.9
    expected = math.sqrt(0.027 / cell) * supply**2
    ratio = sram_access_energy_j(65536, 64, 7) / sram_access_energy_j(65536, 64, 22)
    assert ratio == pytest.approx(expected)
    assert sram(65536, 64, 7).access_s == sram(65536, 64, 22).access_s


def test_wide_words_are_banks_side_by_side_and_narrow_ones_cost_32_bits():
    wide, bank = sram(2 * 65536, 1024, 22), sram(65536, 512, 22)
    assert wide.read_j == pytest.approx(2 * bank.read_j)
    assert wide.area_mm2 == pytest.approx(2 * bank.area_mm2)
    assert wide.access_s == bank.access_s
    assert wide.read_j_per_byte == pytest.approx(bank.read_j_per_byte)
    assert wide.write_j_per_byte == pytest.approx(wide.write_j / 128)
    narrow = sram(65536, 8, 22)
    assert narrow.read_j == sram(65536, 32, 22).read_j
    assert sram_leakage_w(65536, 8, 22) == narrow.leakage_w


def test_writing_is_not_reading():
    assert sram_access_energy_j(8192, 256, 22, write=True) > sram_access_energy_j(8192, 256, 22)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [((512, 64, 22), "registers"), ((1 << 26, 64, 22), "banks"), ((8192, 0, 22), "one bit"),
     ((8192, 64, 130), "90 to 3 nm"), ((8192, 64, 2), "90 to 3 nm")],
)  # fmt: skip
def test_outside_of_the_fit_is_an_error(arguments, said):
    with pytest.raises(CircuitError, match=said):
        sram(*arguments)
    with pytest.raises(CircuitError, match="cell 'lstp'"):
        sram(8192, 64, 22, cell="lstp")  # type: ignore[arg-type]


def test_a_register_file_reads_through_a_tree_and_clocks_one_word():
    one, many = register_file(2, 16, 45), register_file(512, 16, 45)
    assert one.read_j == 0.0
    assert many.read_j == pytest.approx(16 * 8 * 2.333 * 0.8652e-15)  # 256 words: 8 levels
    assert many.write_j == one.write_j == pytest.approx(16 * 5.667 * 1.247e-15)
    assert many.area_um2 == pytest.approx(16 * (256 * 5.667 + 255 * 2.333) * 0.798)
    with pytest.raises(CircuitError, match="SRAM"):
        register_file(8192, 16, 45)
    with pytest.raises(CircuitError, match="a word or more"):
        register_file(1, 16, 45)
