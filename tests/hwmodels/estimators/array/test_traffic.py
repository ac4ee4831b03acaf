"""Traffic of mappings against a loop nest that is run step by step."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwmodels.devices.spatial import LOOPS
from hwmodels.estimators.array.hierarchy import Axis, Hierarchy
from hwmodels.estimators.array.mapping import Mapping, decided
from hwmodels.estimators.array.nest import RELEVANT, REUSES, Nest
from hwmodels.estimators.array.traffic import ORDERS, Placed
from hwmodels.estimators.array.unrolling import Unrolling, unrolling_of
from hwmodels.tensors import TENSORS, TensorName
from tests.hwmodels.estimators.array.chip import level, plain

Counts = dict[tuple[str, TensorName, str], float]


def walked(placed: Placed, mapping: Mapping) -> Counts:
    """Elements that cross each level, by running the nest: one instance of each level.

    A tile is fetched whenever it is another one than the level holds; an output tile that comes
    again brings its partial sums back.
    """
    bounds = [tuple(placed.unrolling.tile), *mapping.tiles, tuple(placed.sizes)]
    loops = nested(bounds, mapping)
    found: Counts = {}
    held: dict[tuple[int, TensorName], tuple[int, ...]] = {}
    seen: dict[tuple[int, TensorName], set[tuple[int, ...]]] = {}
    for steps in itertools.product(*(range(count) for _, _, count in loops)):
        place = [0.0] * len(LOOPS)
        for (index, step, _), at in zip(loops, steps, strict=True):
            place[index] += step * at
        for cut, tensor in itertools.product(range(-1, len(mapping.tiles)), TENSORS):
            if placed.upper(tensor, cut) is None:
                continue
            tile = bounds[cut + 1]
            corner = tuple(
                math.floor(place[index] / tile[index])
                for index, loop in enumerate(LOOPS)
                if loop in RELEVANT[tensor]
            )
            if held.get((cut, tensor)) != corner:
                held[cut, tensor] = corner
                before = seen.setdefault((cut, tensor), set())
                elements = float(placed.nest.footprint(tensor, np.array(tile)))
                for key in moved(placed, cut, tensor, again=corner in before):
                    found[key] = found.get(key, 0.0) + elements
                before.add(corner)
    return found


def nested(bounds: list[tuple[float, ...]], mapping: Mapping) -> list[tuple[int, float, int]]:
    """Loops, the outermost first: index, elements a step, steps."""
    found = []
    for segment in reversed(range(len(bounds) - 1)):
        inner, outer = bounds[segment], bounds[segment + 1]
        order = [LOOPS.index("G")]
        for group in reversed(mapping.orders[segment]):
            order += [index for index, loop in enumerate(LOOPS) if loop in REUSES[group]]
        found += [(index, inner[index], round(outer[index] / inner[index])) for index in order]
    return found


def moved(
    placed: Placed, cut: int, tensor: TensorName, *, again: bool
) -> list[tuple[str, TensorName, str]]:
    """Levels on both sides of a cut that one new tile is read or written at."""
    levels = placed.hierarchy.levels
    above = placed.upper(tensor, cut)
    assert above is not None
    sides = [levels[above].name]
    if cut >= 0:
        sides.append(levels[placed.path[tensor][cut]].name)
    up, down = ("written", "read"), ("read", "written")
    ways = ([up] if tensor == "output" else []) + ([down] if tensor != "output" or again else [])
    return [(side, tensor, way[place]) for way in ways for place, side in enumerate(sides)]


def accounted(placed: Placed, mapping: Mapping) -> Counts:
    """The same from the formulas, where every element is a byte."""
    _, crossings = decided(placed, mapping)
    found: Counts = {}
    for one in crossings:
        name = placed.hierarchy.levels[one.level].name
        for way, moved_bytes in (("read", one.read), ("written", one.written)):
            if moved_bytes[0]:
                key = (name, one.tensor, way)
                found[key] = found.get(key, 0.0) + round(float(moved_bytes[0]), 6)
    return found


ONE = Axis(name="rows", size=1, unrolls=("C",))


def three_levels() -> Hierarchy:
    return plain(
        (
            level("near", 1e9),
            level("far", 1e9, holds=("weight", "output")),
            level("dram", 1e12),
        ),
        ONE,
    )


def sizes_of(steps: list[int]) -> list[int]:
    """Steps of B, K, C and OX in the order of `LOOPS`; the others have one."""
    images, outs, ins, places = steps
    return [1, images, outs, ins, 1, places, 1, 1]


STEPS = st.lists(st.integers(1, 2), min_size=4, max_size=4)


@settings(max_examples=60, deadline=None)
@given(
    inner=STEPS,
    middle=STEPS,
    outer=STEPS,
    orders=st.lists(st.sampled_from(ORDERS), min_size=3, max_size=3),
)
def test_traffic_is_that_of_the_loops_run_one_by_one(
    inner: list[int], middle: list[int], outer: list[int], orders: list[tuple[TensorName, ...]]
) -> None:
    small = sizes_of(inner)
    larger = [a * b for a, b in zip(small, sizes_of(middle), strict=True)]
    sizes = tuple(a * b for a, b in zip(larger, sizes_of(outer), strict=True))
    nest = Nest(sizes=sizes, partial_bytes=1.0)
    hierarchy = three_levels()
    placed = Placed(
        hierarchy=hierarchy, nest=nest, unrolling=Unrolling(factors=((1,) * len(LOOPS),))
    )
    mapping = Mapping(
        tiles=(tuple(map(float, small)), tuple(map(float, larger))), orders=tuple(orders)
    )
    assert accounted(placed, mapping) == walked(placed, mapping)


def test_a_column_shares_its_input_and_each_place_has_its_weight() -> None:
    # 4 x 8 places: inputs of 4 channels go to all 8 columns, one weight register a place.
    hierarchy = plain(
        (
            level("register", 1, holds=("weight",), per=("rows", "columns")),
            level("sram", 1e9, holds=("input", "output")),
            level("dram", 1e12),
        ),
        Axis(name="rows", size=4, unrolls=("C",)),
        Axis(name="columns", size=8, unrolls=("K",)),
    )
    nest = Nest(sizes=(1, 1, 16, 8, 1, 10, 1, 1), partial_bytes=1.0)
    placed = Placed(hierarchy=hierarchy, nest=nest, unrolling=unrolling_of(hierarchy, nest))
    tile = (1.0, 1.0, 8.0, 4.0, 1.0, 1.0, 1.0, 1.0)
    whole = tuple(placed.sizes)
    stationary: tuple[TensorName, ...] = ("weight", "input", "output")
    mapping = Mapping(tiles=(tile, whole), orders=(stationary, stationary, stationary))
    found = accounted(placed, mapping)
    assert found["register", "weight", "written"] == 16 * 8  # each weight once, rows innermost
    assert found["register", "weight", "read"] == 16 * 8  # and to the multipliers, as often
    assert found["sram", "input", "read"] == 10 * 8 * 2  # once for each of the two column tiles
    # Four rows add up on the way: a result of each column, over two visits.
    assert found["sram", "output", "written"] == 10 * 16 * 2
    assert found["dram", "weight", "read"] == 16 * 8
    assert found["dram", "output", "written"] == 10 * 16


def test_windows_that_overlap_are_read_again_between_tiles() -> None:
    # 3x3 taps, stride 1, 8 x 8 places of a 10 x 10 input without padding; tiles of 4 rows read
    # 6 rows each: 2 x 6 x 10 pixels instead of 100.
    hierarchy = plain((level("sram", 1e9), level("dram", 1e12)), ONE)
    nest = Nest(sizes=(1, 1, 1, 1, 8, 8, 3, 3), in_size=(10, 10), partial_bytes=1.0)
    placed = Placed(hierarchy=hierarchy, nest=nest, unrolling=unrolling_of(hierarchy, nest))
    mapping = Mapping(tiles=((1, 1, 1, 1, 4, 8, 3, 3),), orders=(ORDERS[0], ORDERS[0]))
    assert accounted(placed, mapping)["dram", "input", "read"] == 2 * 6 * 10
    whole = Mapping(tiles=((1, 1, 1, 1, 8, 8, 3, 3),), orders=(ORDERS[0], ORDERS[0]))
    assert accounted(placed, whole)["dram", "input", "read"] == 100


@pytest.mark.parametrize("tensor", ["input", "output"])
def test_what_stays_on_chip_does_not_cross_main_memory(tensor: TensorName) -> None:
    hierarchy = plain((level("sram", 1e9), level("dram", 1e12)), ONE)
    nest = Nest(sizes=(1, 1, 4, 4, 1, 4, 1, 1), partial_bytes=1.0)
    placed = Placed(
        hierarchy=hierarchy,
        nest=nest,
        unrolling=unrolling_of(hierarchy, nest),
        resident=frozenset({tensor}),
    )
    mapping = Mapping(tiles=(tuple(placed.sizes),), orders=(ORDERS[0], ORDERS[0]))
    found = accounted(placed, mapping)
    assert {name for name, one, _ in found if one == tensor} == {"sram"}
    assert found["dram", "weight", "read"] == 16
