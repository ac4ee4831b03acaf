"""Multiply-accumulate circuits: gates by hand, published units, and what formats do to them."""

from __future__ import annotations

import pytest

from hwmodels.circuits import gates
from hwmodels.circuits.design import mac_design
from hwmodels.circuits.gates import Gates
from hwmodels.circuits.mac import (
    MacDesign,
    mac_area_um2,
    mac_energy_j,
    mac_gates,
    relative_throughput,
)
from hwmodels.circuits.technology import ALADDIN, HOROWITZ, area_um2, energy_j, technology
from hwmodels.errors import CircuitError
from hwmodels.fit.circuits import ALADDIN_UNITS, HOROWITZ_UNITS, fitted, flip_flop_j
from hwmodels.formats.accumulator import Accumulator, accumulator
from hwmodels.formats.catalog import ENCODINGS, FORMATS, format

INT8 = mac_design(format("int8"))


def serial(element: str, accumulated: str) -> MacDesign:
    return MacDesign(
        weight=ENCODINGS[element],
        input=ENCODINGS[element],
        accumulator=accumulator(accumulated),
        lanes=1,
        registers=False,
    )


def energy(name: str, other: str | None = None, acc: str | None = None, **options) -> float:
    accumulated = None if acc is None else accumulator(acc)
    second = None if other is None else format(other)
    design = mac_design(format(name), second, accumulated=accumulated, **options)
    return mac_energy_j(design, 45)


def test_an_array_multiplier_has_the_textbooks_cells():
    expected = 64 * gates.AND + 48 * gates.FULL_ADDER + 8 * gates.HALF_ADDER
    assert gates.multiplier(8, 8) == Gates(adding=expected)
    assert gates.multiplier(8, 3) == gates.multiplier(3, 8)
    assert gates.multiplier(5, 1) == Gates(adding=5 * gates.AND)


def test_an_integer_mac_is_a_multiplier_an_adder_and_a_register():
    found = mac_gates(serial("int8", "int20"))
    assert found.area == gates.multiplier(8, 8) + gates.adder(20) + gates.register(20)
    assert found.active == found.area


def test_lanes_share_one_accumulator_and_add_in_a_tree():
    base = serial("int8", "int20")
    design = MacDesign(
        weight=base.weight,
        input=base.input,
        accumulator=base.accumulator,
        lanes=4,
        registers=False,
    )
    tree = gates.adder(16) * 2 + gates.adder(17)
    shared = tree + gates.adder(20) + gates.register(20)
    expected = gates.multiplier(8, 8) + shared * 0.25
    assert mac_gates(design).area.total == pytest.approx(expected.total)


def test_products_of_fp4_are_added_as_eight_bit_integers():
    """e2m1: significands of 2 bits, 2 places each: 4 + 4 bits hold every product."""
    tree = mac_gates(mac_design(format("e2m1"))).area.adding
    lane = gates.multiplier(2, 2) + gates.adder(3)
    adders = sum((gates.adder(8 + level).adding * 16 / 2 ** (level + 1)) for level in range(4))
    accumulation = 2 * gates.adder(8).adding + gates.adder(27).adding
    assert tree == pytest.approx(lane.adding + (adders + accumulation) / 16)


def test_constants_are_those_of_the_fit():
    (area, steering), (joule, moving) = fitted(HOROWITZ_UNITS).values()
    assert area == pytest.approx(HOROWITZ.area_adding_um2, rel=1e-3)
    assert steering == pytest.approx(HOROWITZ.area_steering_um2, rel=1e-3)
    assert joule * 1e-12 == pytest.approx(HOROWITZ.energy_adding_j, rel=1e-3)
    assert moving * 1e-12 == pytest.approx(HOROWITZ.energy_steering_j, rel=1e-3)
    assert flip_flop_j(45) == pytest.approx(HOROWITZ.energy_storing_j, rel=1e-3)
    again = fitted(ALADDIN_UNITS)
    assert again["area"][0] == pytest.approx(ALADDIN.area_adding_um2, rel=1e-3)
    assert again["energy"][0] * 1e-12 == pytest.approx(ALADDIN.energy_adding_j, rel=1e-3)


def test_nine_published_units_are_met():
    for name, unit in HOROWITZ_UNITS.items():
        assert energy_j(unit.gates, 45) == pytest.approx(unit.energy_pj * 1e-12, rel=0.3), name
        if unit.area_um2 is not None:
            assert 1 / 1.55 < area_um2(unit.gates, 45) / unit.area_um2 < 1.55, name


@pytest.mark.parametrize(
    ("circuit", "area", "picojoules"),
    [(gates.multiplier(8, 8), 397, 0.79), (gates.multiplier(16, 16), 1588, 3.17),
     (gates.multiplier(8, 8) + gates.adder(16), 536, 0.90)],
)  # fmt: skip
def test_widths_scale_as_aladdin_has_them(circuit, area, picojoules):
    assert area_um2(circuit, 40, ALADDIN) == pytest.approx(area, rel=0.15)
    assert energy_j(circuit, 40, ALADDIN) == pytest.approx(picojoules * 1e-12, rel=0.15)
    eight = gates.multiplier(8, 8)
    for made in (HOROWITZ, ALADDIN):  # ratios do not depend on the source of the constants
        assert area_um2(circuit, 45, made) / area_um2(eight, 45, made) == pytest.approx(
            area / 397, rel=0.15
        )
        assert energy_j(circuit, 45, made) / energy_j(eight, 45, made) == pytest.approx(
            picojoules / 0.79, rel=0.15
        )


def test_a_smaller_node_takes_less():
    assert mac_area_um2(INT8, 7) == pytest.approx(mac_area_um2(INT8, 45) / 17)
    assert mac_energy_j(INT8, 7) < mac_energy_j(INT8, 45) / 5
    with pytest.raises(CircuitError, match="node 5 nm"):
        mac_energy_j(INT8, 5)


def test_narrower_accumulators_take_less():
    integers = [energy("int8", acc=f"int{bits}") for bits in (32, 24, 20, 16)]
    assert integers == sorted(integers, reverse=True)
    floats = [energy("e4m3", acc=acc) for acc in ("fp32", "e8m13", "fp16", "e5m6")]
    assert floats == sorted(floats, reverse=True)
    assert energy("e4m3", acc="fp16:zero") < energy("e4m3", acc="fp16")
    assert energy("e4m3", acc="fp16:stochastic") > energy("e4m3", acc="fp16:zero")
    plain, bounded = (mac_design(format("int8"), accumulated=accumulator(name))
                      for name in ("int16", "int16:saturate"))  # fmt: skip
    assert mac_area_um2(bounded, 45) > mac_area_um2(plain, 45)


def test_a_scale_a_block_costs_less_the_longer_the_block():
    by_group = [energy(f"int4@g{group}/e4m3") for group in (16, 32, 64, 128)]
    assert by_group == sorted(by_group, reverse=True)
    assert energy("int4@g32/e8m0") < energy("int4@g32/e4m3") < energy("int4@g32/fp32")
    assert energy("e4m3_tensor") == energy("e4m3")  # scales of tensors meet results


def test_formats_stand_in_the_order_of_their_digits():
    for narrower, wider in [("int4", "int8"), ("int8", "int16"), ("mxfp4", "mxfp6"),
                            ("mxfp6", "mxfp8"), ("e4m3", "bf16"), ("bf16", "fp16"),
                            ("fp16", "fp32"), ("posit8_1", "posit16_1"), ("mxint8", "mxfp8"),
                            ("takum8", "posit8_2")]:  # fmt: skip
        assert energy(narrower) < energy(wider), (narrower, wider)
    assert energy("e4m3") < energy("posit8_1")  # a regime has to be decoded
    assert energy("uint8") > energy("int8")  # zero points are subtracted
    assert energy("int4_g128", "bf16") < energy("bf16")


def test_every_format_of_the_catalogue_has_a_circuit_or_says_why_not():
    for name, entry in FORMATS.items():
        if entry.offset is not None or entry.super_scale is not None:
            with pytest.raises(CircuitError, match="offsets and scales of scales"):
                mac_design(entry)
            continue
        design = mac_design(entry)
        assert 0.01 < relative_throughput(INT8, design) < 60, name
        assert mac_energy_j(design, 16) > 0


def test_throughput_of_equal_area_is_the_ratio_of_areas():
    design = mac_design(format("fp16"))
    expected = mac_area_um2(INT8, 45) / mac_area_um2(design, 45)
    assert relative_throughput(design, INT8) == pytest.approx(expected)


def test_a_quire_is_an_integer_of_the_width_that_its_products_ask_for():
    quire = serial("posit8_2", "quire")
    assert quire.summed.stored_bits == 128
    wide = mac_gates(quire).area
    narrow = mac_gates(serial("posit8_2", "quire:carry7")).area
    more = gates.adder(24) + gates.register(24) + gates.shifter(24, 96)
    assert (wide.adding, wide.storing) == pytest.approx(
        (narrow.adding + more.adding, narrow.storing + more.storing)
    )
    assert wide.steering == pytest.approx(narrow.steering + more.steering)
    ints = mac_gates(serial("int8", "quire:carry17"))
    assert ints == mac_gates(serial("int8", "int32"))


@pytest.mark.parametrize("lanes", [1, 16])
def test_a_quire_takes_more_with_every_exponent_bit(lanes: int):
    designs = [
        mac_design(format(f"posit8_{es}"), accumulated=accumulator("quire"), lanes=lanes)
        for es in (0, 1, 2, 3)
    ]
    assert [one.summed.stored_bits for one in designs] == [56, 80, 128, 224]
    energies = [mac_energy_j(one, 45) for one in designs]
    areas = [mac_area_um2(one, 45) for one in designs]
    assert energies == sorted(energies)
    assert areas == sorted(areas)
    float32 = mac_design(format("posit8_2"), accumulated=accumulator("fp32"), lanes=lanes)
    assert mac_energy_j(designs[2], 45) > mac_energy_j(float32, 45)


def test_designs_that_cannot_be_are_refused_by_name():
    with pytest.raises(CircuitError, match="accumulator is int32; give a float"):
        mac_design(format("mxfp8"), accumulated=accumulator("int32"))
    with pytest.raises(CircuitError, match="no quire holds"):
        mac_gates(mac_design(format("nf4"), accumulated=accumulator("quire")))
    with pytest.raises(CircuitError, match="at least one lane"):
        mac_design(format("int8"), lanes=0)
    blocks = mac_design(format("nvfp4")).scale
    with pytest.raises(CircuitError, match="different blocks"):
        MacDesign(weight=ENCODINGS["e2m1"], input=ENCODINGS["e2m1"], scale=blocks, lanes=32)
    with pytest.raises(CircuitError, match="did you mean 'horowitz'"):
        technology("horowitzz")
    assert technology("aladdin") is ALADDIN


def test_an_accumulator_that_aligns_to_few_bits_has_a_narrower_tree():
    wide = Accumulator(name="wide", kind="float", encoding="e8m13")
    narrow = Accumulator(name="narrow", kind="float", encoding="e8m13", alignment_bits=10)
    assert mac_energy_j(mac_design(format("e4m3"), accumulated=narrow), 45) < mac_energy_j(
        mac_design(format("e4m3"), accumulated=wide), 45
    )


def test_integers_under_integer_scales_stay_integers():
    """VS-Quant's scales of vectors are integers, so that no float is formed before the output."""
    vectors, floats = format("int4@g16/uint4+fp32"), format("int4@g16/e4m3+fp32")
    assert mac_design(vectors).accumulator.name == "int32"
    assert mac_design(floats).accumulator.name == "fp32"
    plain = mac_energy_j(mac_design(format("int4")), 45)
    whole = mac_energy_j(mac_design(vectors), 45)
    as_float = mac_energy_j(mac_design(vectors, accumulated=accumulator("fp32")), 45)
    assert plain < whole < as_float
    with pytest.raises(CircuitError, match="block scales make the sum a float"):
        mac_design(floats, accumulated=accumulator("int32"))
