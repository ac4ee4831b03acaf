"""Uneven mappings against even ones, and against counts by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hwmodels.devices.spatial import Loop
from hwmodels.estimators.array.hierarchy import Axis, Hierarchy
from hwmodels.estimators.array.mapping import Mapping, decided
from hwmodels.estimators.array.nest import Nest
from hwmodels.estimators.array.timing import cycles_of
from hwmodels.estimators.array.traffic import Crossing, Placed
from hwmodels.estimators.array.uneven import UnevenMapping, decided_unevenly
from hwmodels.estimators.array.unrolling import unrolling_of
from hwmodels.tensors import TensorName
from tests.hwmodels.estimators.array.chip import level, plain, systolic


def placed_product(hierarchy: Hierarchy, m: int, n: int, k: int) -> Placed:
    nest = Nest(sizes=(1, 1, n, k, 1, m, 1, 1), partial_bytes=2.0)
    return Placed(hierarchy=hierarchy, nest=nest, unrolling=unrolling_of(hierarchy, nest))


def one_by_one(*, width: float = 1e9, word_bytes: float = 0.0) -> Hierarchy:
    far = replace(level("dram", 1e9, width=width, read_j=10.0), word_bytes=word_bytes)
    near = level("near", 1e6, double_buffered=True)
    return plain((near, far), Axis(name="rows", size=1, unrolls=("C",)))


def read_from(placed: Placed, crossings: list[Crossing], name: str) -> dict[TensorName, float]:
    found: dict[TensorName, float] = {}
    for one in crossings:
        if placed.hierarchy.levels[one.level].name == name:
            found[one.tensor] = found.get(one.tensor, 0.0) + float(one.read[0])
    return found


def test_the_same_tiles_cost_the_same_as_an_even_mapping() -> None:
    placed = placed_product(one_by_one(width=3.0), 8, 4, 4)
    even, _ = decided(
        placed,
        Mapping(
            tiles=((1, 1, 2, 4, 1, 8, 1, 1),),
            orders=(("weight", "input", "output"), ("input", "weight", "output")),
        ),
    )
    loops: tuple[tuple[Loop, float], ...] = (("OX", 8.0), ("K", 2.0), ("C", 4.0), ("K", 2.0))
    inside: dict[TensorName, tuple[int, ...]] = {"input": (3,), "weight": (3,), "output": (3,)}
    uneven, _ = decided_unevenly(placed, UnevenMapping(loops=loops, inside=inside))
    assert uneven.energy_j == pytest.approx(even.energy_j)
    assert uneven.level_bytes == pytest.approx(even.level_bytes)
    assert cycles_of(placed, uneven)[0] == pytest.approx(cycles_of(placed, even)[0])


def test_tensors_have_tiles_of_their_own() -> None:
    placed = placed_product(one_by_one(), 8, 4, 4)
    loops: tuple[tuple[Loop, float], ...] = (("OX", 8.0), ("C", 4.0), ("K", 4.0))
    # The input is held as a whole, one weight at a time, the outputs of one column.
    inside: dict[TensorName, tuple[int, ...]] = {"input": (2,), "weight": (0,), "output": (2,)}
    _, crossings = decided_unevenly(placed, UnevenMapping(loops=loops, inside=inside))
    assert read_from(placed, crossings, "dram") == {"input": 32, "weight": 16, "output": 0}
    # One output at a time comes back three times; a column of inputs is read for each output's.
    narrow: dict[TensorName, tuple[int, ...]] = {"input": (1,), "weight": (0,), "output": (0,)}
    _, crossings = decided_unevenly(placed, UnevenMapping(loops=loops, inside=narrow))
    assert read_from(placed, crossings, "dram") == {
        "input": 4 * 32,
        "weight": 16,
        "output": 3 * 32 * 2,
    }


def test_loops_that_do_not_cover_the_nest_are_refused() -> None:
    placed = placed_product(one_by_one(), 8, 4, 4)
    inside: dict[TensorName, tuple[int, ...]] = {"input": (1,), "weight": (1,), "output": (1,)}
    with pytest.raises(ValueError, match="loops cover"):
        decided_unevenly(placed, UnevenMapping(loops=(("OX", 8.0),), inside=inside))
    loops: tuple[tuple[Loop, float], ...] = (("OX", 8.0), ("C", 4.0), ("K", 4.0))
    short: dict[TensorName, tuple[int, ...]] = {**inside, "input": ()}
    with pytest.raises(ValueError, match="input: 1 tiles that grow outwards"):
        decided_unevenly(placed, UnevenMapping(loops=loops, inside=short))


@pytest.mark.parametrize(
    ("width", "cycles"),
    [
        (1.0, 17 + 8 / 4),  # 17 bytes, then the products of the last of four tiles
        (10.0, 8 + 3 / 10 + 2 / 10),  # the first inputs, eight products, the last outputs
    ],
)
def test_only_the_first_and_the_last_tile_show(width: float, cycles: float) -> None:
    placed = placed_product(one_by_one(width=width), 8, 1, 1)
    tiles = ((1.0, 1.0, 1.0, 1.0, 1.0, 2.0, 1.0, 1.0),)
    found, _ = decided(placed, Mapping(tiles=tiles, orders=(("weight", "input", "output"),) * 2))
    assert cycles_of(placed, found)[0][0] == pytest.approx(cycles)


def test_transfers_take_whole_words() -> None:
    tiles = ((1.0, 1.0, 1.0, 1.0, 1.0, 2.0, 1.0, 1.0),)
    energies = []
    for word_bytes in (0.0, 4.0):
        placed = placed_product(one_by_one(word_bytes=word_bytes), 8, 1, 1)
        mapping = Mapping(tiles=tiles, orders=(("weight", "input", "output"),) * 2)
        found, _ = decided(placed, mapping)
        energies.append(float(found.energy_j[0]))
    # Four tiles of two bytes in and out, and one byte of weights, each in a word of four.
    assert energies[1] - energies[0] == pytest.approx(10 * (4 * 2 + 4 * 2 + 3))


def test_a_level_waits_while_a_fold_fills_and_is_waited_for_while_it_streams() -> None:
    base = systolic("weight", 2, 2)
    port = level("dram", 1e9, width=8 / 6)
    sram = level("sram", 16, holds=("input",), double_buffered=True)
    hierarchy = replace(base, levels=(base.levels[0], sram, port))
    placed = placed_product(hierarchy, 8, 2, 4)
    placed = replace(placed, nest=replace(placed.nest, weight_bytes=0.0, output_bytes=0.0,
                                          partial_bytes=0.0))  # fmt: skip
    loops: tuple[tuple[Loop, float], ...] = (("OX", 4.0), ("OX", 2.0), ("C", 2.0))
    inside: dict[TensorName, tuple[int, ...]] = {"input": (1,), "weight": (0,), "output": ()}
    found, _ = decided_unevenly(placed, UnevenMapping(loops=loops, inside=inside))
    # Two folds of 4 + 8 cycles; 4 x 8 bytes in 4 x 6 cycles. Of a fold's two tiles one is used
    # for 4 cycles and the next one comes after 6, the other for 8.
    total, compute = cycles_of(placed, found)
    assert compute[0] == 24
    assert total[0] == pytest.approx(2 * (6 + 8) + 6)  # the first tile comes before


def test_channels_of_one_tap_are_channels_of_as_many_pixels() -> None:
    nest = Nest(sizes=(1, 1, 4, 16, 10, 10, 3, 3), in_size=(12, 12)).flattened()
    tap = np.array([1, 1, 4, 16, 1, 100, 1, 1], dtype=float)
    assert nest.footprint("input", tap) == 100 * 16
    two_taps = np.array([1, 1, 4, 32, 1, 100, 1, 1], dtype=float)
    assert nest.footprint("input", two_taps) == 144 * 16  # they share all pixels but the border's
    whole = np.array(nest.sizes, dtype=float)
    assert nest.footprint("input", whole) == 144 * 16


def test_registers_that_add_up_are_read_and_written_for_every_product() -> None:
    sums = level("sums", 8, holds=("output",), per=("rows",))
    base = one_by_one()
    placed = placed_product(replace(base, levels=(sums, *base.levels)), 2, 1, 16)
    inside: dict[TensorName, tuple[int, ...]] = {
        "input": (2,),
        "weight": (2,),
        "output": (1, 2),
    }
    mapping = UnevenMapping(loops=(("C", 16.0), ("OX", 2.0)), inside=inside)
    _, crossings = decided_unevenly(placed, mapping)
    # 16 products each: 15 sums of two bytes come back; complete ones leave as one byte.
    assert read_from(placed, crossings, "sums")["output"] == 2 * 15 * 2 + 2
    # Without such registers the multipliers sum up.
    without = placed_product(base, 2, 1, 16)
    bare: dict[TensorName, tuple[int, ...]] = {**inside, "output": (2,)}
    _, crossings = decided_unevenly(without, UnevenMapping(loops=mapping.loops, inside=bare))
    assert read_from(without, crossings, "near")["output"] == 2


def test_registers_hold_partial_sums_until_they_are_complete() -> None:
    sums = level("sums", 2, holds=("output",), per=("rows",))
    base = one_by_one()
    placed = placed_product(replace(base, levels=(sums, *base.levels)), 2, 1, 16)
    two_outputs = np.array([[1, 1, 1, 16, 1, 2, 1, 1]], dtype=float)
    assert not placed.fits(0, two_outputs, np.ones((1, 8)))[0]  # two sums of two bytes each
    one_output = np.array([[1, 1, 1, 16, 1, 1, 1, 1]], dtype=float)
    assert placed.fits(0, one_output, np.array([[1, 1, 1, 1, 1, 2, 1, 1]], dtype=float))[0]
