"""The stated gap against all mappings of small nests, each of them priced."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwmodels.devices.spatial import Goal
from hwmodels.devices.vary import DeviceFile
from hwmodels.estimators.array.hierarchy import Axis, Hierarchy, Level
from hwmodels.estimators.array.nest import Floats, Nest
from hwmodels.estimators.array.problem import Figures, Indices, shape_of
from hwmodels.estimators.array.records import Effort
from hwmodels.estimators.array.schedule import Task, schedule
from hwmodels.estimators.array.search import GOALS, priced, search
from hwmodels.estimators.array.traffic import ORDERS, Placed
from hwmodels.estimators.array.unrolling import unrolling_of
from tests.hwmodels.estimators.array.chip import ALL, level, plain

ORDER_ROWS = np.array(list(itertools.product(range(len(ORDERS)), repeat=3)))
ONE_GRID = Effort(tiles=(4, 0, 0), zooms=0, most_looks=2, most_children=1)
"""A search that leaves nearly everything out: its gap is its bound's alone."""


def broadcast(near: Level, *, width: float) -> Hierarchy:
    """Two levels below main memory; the places share out input channels."""
    far = level("far", 120, holds=("input", "weight"), double_buffered=True, width=2.0, read_j=6)
    dram = level("dram", 1e9, width=width, read_j=50, write_j=60)
    return plain((near, far, dram), Axis(name="rows", size=2, unrolls=("C",)))


def weight_stationary(*, hidden: bool, width: float) -> Hierarchy:
    """Registers of one weight a place, and a buffer for sums and operands."""
    register = level("register", 2, holds=("weight",), per=("rows", "columns"), read_j=0.1)
    return Hierarchy(
        name="systolic",
        clock_hz=1e9,
        axes=(
            Axis(name="rows", size=2, unrolls=("C",)),
            Axis(name="columns", size=2, unrolls=("K",)),
        ),
        levels=(
            replace(register, double_buffered=frozenset({"weight"})),
            level("buffer", 90, double_buffered=True, width=3.0, read_j=2.0),
            level("dram", 1e9, width=width, read_j=50.0),
        ),
        movement="systolic",
        stationary="weight",
        load_hidden=hidden,
    )


def summing(*, streamed: bool) -> Hierarchy:
    """Registers that add up, filled while the array waits unless they are streamed."""
    register = level("register", 8, holds=("output",), per=("rows",), width=4.0, read_j=0.2)
    if streamed:
        register = replace(register, streamed=frozenset(register.holds))
    return plain(
        (
            register,
            level("buffer", 64, double_buffered=True, width=3.0, read_j=2.0),
            level("dram", 1e9, width=1.5, read_j=50.0),
        ),
        Axis(name="rows", size=2, unrolls=("K",)),
    )


def roomed(hierarchy: Hierarchy) -> Hierarchy:
    """The same where all but main memory is streamed and waits for room."""
    levels = [
        replace(
            one,
            double_buffered=frozenset(),
            streamed=frozenset(one.holds),
            waits_for_room=frozenset(one.holds),
            write_bytes_per_cycle=one.bytes_per_cycle / 2,
        )
        for one in hierarchy.levels[:-1]
    ]
    return replace(hierarchy, levels=(*levels, hierarchy.levels[-1]))


CHIPS: dict[str, Hierarchy] = {
    "halves": broadcast(level("near", 24, double_buffered=True, width=4.0), width=1.0),
    "waits": broadcast(level("near", 20, width=4.0), width=1.0),
    "words": broadcast(
        replace(level("near", 40, double_buffered=True, width=9.0), word_bytes=4.0), width=0.3
    ),
    "exposed folds": weight_stationary(hidden=False, width=1.0),
    "hidden folds": weight_stationary(hidden=True, width=0.2),
    "sums": summing(streamed=False),
    "streamed sums": summing(streamed=True),
    "room": roomed(broadcast(level("near", 20, width=0.6), width=0.5)),
    "room for sums": roomed(summing(streamed=True)),
    "room beside folds": roomed(weight_stationary(hidden=False, width=0.6)),
}


def all_tiles(placed: Placed) -> Floats:
    """Every whole number of what is unrolled, loop by loop, (n, 8)."""
    steps = [
        tile * np.arange(1, round(size / tile) + 1)
        for size, tile in zip(placed.sizes, placed.unrolling.tile, strict=True)
    ]
    return np.array(list(itertools.product(*steps)))


def least_of_all(placed: Placed, figures: Figures, goal: Goal) -> float:
    """The least goal of all mappings of two tiles, each priced."""
    tiles = all_tiles(placed)
    inner, outer = (tiles[index] for index in np.indices((len(tiles),) * 2).reshape(2, -1))
    nested = (inner <= outer).all(axis=1)
    inner, outer = inner[nested], outer[nested]
    counts = [np.ceil(placed.sizes / outer)]
    counts.append(counts[0] * np.ceil(outer / inner))
    fit = placed.fits(1, outer, counts[0]) & placed.fits(0, inner, counts[1])
    inner, outer = inner[fit], outer[fit]
    best = math.inf
    for orders in ORDER_ROWS:
        found = _goals(placed, figures, goal, np.stack([inner, outer], axis=1), orders)
        best = min(best, float(found.min(initial=math.inf)))
    return best


def _goals(placed: Placed, figures: Figures, goal: Goal, tiles: Floats, order: Indices) -> Floats:
    count = len(tiles)
    alike = figures.taken(np.zeros(count, dtype=np.int64))
    orders = np.repeat(order[None, :], count, axis=0)
    read, written, cycles = priced(shape_of(placed), alike, tiles, orders)
    joules = alike.base_j + (read.sum(axis=2) * alike.read_j).sum(axis=1)
    joules += (written.sum(axis=2) * alike.write_j).sum(axis=1) + alike.idle_j * cycles[:, 0]
    by_goal = {"energy": joules, "latency": cycles[:, 0], "edp": joules * cycles[:, 0]}
    return by_goal[goal]


small = st.integers(1, 4)


@settings(max_examples=25, deadline=None)
@given(
    chip=st.sampled_from(sorted(CHIPS)),
    sizes=st.tuples(small, small, small, st.sampled_from([1, 1, 2, 3])),
    windows=st.booleans(),
    goal=st.sampled_from(sorted(GOALS)),
    idle_j=st.sampled_from([0.0, 5.0]),
)
def test_no_mapping_is_better_than_the_stated_gap_allows(
    chip: str, sizes: tuple[int, int, int, int], windows: bool, goal: Goal, idle_j: float
) -> None:
    hierarchy = CHIPS[chip]
    outs, ins, places, taps = sizes
    extent = (1, places + taps - 1) if windows else (0, 0)
    nest = Nest(sizes=(1, 1, outs, 2 * ins, 1, places, 1, taps), in_size=extent, partial_bytes=2.0)
    if hierarchy.movement == "systolic":
        nest = nest.flattened()
    placed = Placed(hierarchy=hierarchy, nest=nest, unrolling=unrolling_of(hierarchy, nest))
    figures = Figures.of([hierarchy], [3.0 * nest.macs], [idle_j])
    least = least_of_all(placed, figures, goal)
    for effort in (Effort(), ONE_GRID):
        found = search(shape_of(placed), figures, goal, effort)
        if math.isinf(least):
            assert np.isinf(found.goals[0])
            continue
        if np.isinf(found.goals[0]):
            continue
        assert found.least[0] <= least * (1 + 2e-6)  # ties go by a millionth of the other goal
        assert found.goals[0] >= least * (1 - 1e-9)


def test_what_an_order_does_not_keep_in_place_passes_in_the_bound_too() -> None:
    """Weights stay, so that sums pass the accumulator for each product, which takes longest.

    A bound that keeps each tensor in place for itself says a tenth.
    """
    device = DeviceFile("gemmini").varied(
        {
            "units.mac_array.array.axes.rows.size": 16,
            "units.mac_array.array.axes.columns.size": 64,
            "units.mac_array.count": 4,
        }
    )
    nest = Nest(sizes=(1, 1, 64, 147, 1, 12544, 1, 1), partial_bytes=4.0)
    found = schedule(Hierarchy.of(device), Task(nest=nest, mac_j=1e-13)).cost
    assert found.moving_cycles > 5 * found.compute_cycles
    assert found.gap < 0.02


@pytest.mark.parametrize("goal", ["energy", "edp"])
def test_the_gap_is_to_tiles_between_those_of_the_grid_too(goal: Goal) -> None:
    """A search on four tiles a level says how far off it may be: a finer one is not further."""
    hierarchy = CHIPS["halves"]
    big = tuple(replace(one, capacity_bytes=40 * one.capacity_bytes) for one in hierarchy.levels)
    hierarchy = replace(hierarchy, levels=big)
    nest = Nest(sizes=(1, 1, 48, 60, 14, 14, 3, 3), in_size=(16, 16), partial_bytes=2.0)
    task = Task(nest=nest, mac_j=1.0)
    coarse, fine = (
        schedule(hierarchy, task, goal, effort).cost for effort in (ONE_GRID, Effort())
    )
    values = [one.energy_j * (one.cycles if goal == "edp" else 1.0) for one in (coarse, fine)]
    assert values[1] < 0.99 * values[0]
    assert values[0] <= values[1] * (1 + coarse.gap) * (1 + 1e-6)


def test_chips_of_these_tests_hold_all_tensors_in_main_memory() -> None:
    assert all(chip.levels[-1].holds == ALL for chip in CHIPS.values())
