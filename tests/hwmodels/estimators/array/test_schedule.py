"""Cycles of arrays against closed forms, and the search against all mappings."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwmodels.devices.load import load_device
from hwmodels.devices.spatial import LOOPS, Goal, Loop, RunLengths
from hwmodels.devices.vary import DeviceFile
from hwmodels.errors import WorkError
from hwmodels.estimators.array.estimator import ArrayEstimator
from hwmodels.estimators.array.hierarchy import Axis, Hierarchy, Level
from hwmodels.estimators.array.mapping import Mapping, decided
from hwmodels.estimators.array.nest import Floats, Nest
from hwmodels.estimators.array.records import Effort
from hwmodels.estimators.array.schedule import Task, schedule
from hwmodels.estimators.array.timing import cycles_of
from hwmodels.estimators.array.traffic import ORDERS, Order, Placed
from hwmodels.estimators.array.uneven import UnevenMapping, decided_unevenly
from hwmodels.estimators.array.unrolling import unrolling_of
from hwmodels.formats import catalog
from hwmodels.runtimes.load import load_runtime
from hwmodels.tensors import TensorName
from hwmodels.work.kernel import Kernel
from hwmodels.work.loops import AttentionLoops
from tests.hwmodels.estimators.array.chip import ALL, level, plain, systolic

few = settings(max_examples=25, deadline=None)
steps = st.integers(1, 300)
ROOM: tuple[TensorName, ...] = ("output", "weight", "input")
"""All that is streamed waits for room."""


def waiting_for_room(level: Level) -> Level:
    """A level of an eighth of the bandwidth, with second halves where there is room."""
    every = frozenset(level.holds)
    return replace(
        level,
        double_buffered=frozenset(),
        streamed=every,
        waits_for_room=every,
        bytes_per_cycle=level.bytes_per_cycle / 8,
        write_bytes_per_cycle=None if level.name == "dram" else level.bytes_per_cycle / 16,
    )


def product(m: int, n: int, k: int) -> Nest:
    return Nest(sizes=(1, 1, n, k, 1, m, 1, 1))


@few
@given(m=steps, n=steps, k=steps, rows=st.sampled_from([8, 16, 32]))
def test_a_systolic_array_takes_the_cycles_of_the_closed_form(
    m: int, n: int, k: int, rows: int
) -> None:
    columns = 16
    folds = {
        "weight": (k, n, m, 2 * rows),
        "input": (k, m, n, 2 * rows),
        "output": (m, n, k, rows),
    }
    for stationary, (on_rows, on_columns, streamed, filling) in folds.items():
        hierarchy = systolic(stationary, rows, columns)  # type: ignore[arg-type]
        found = schedule(hierarchy, Task(nest=product(m, n, k)), "latency").cost
        tiles = math.ceil(on_rows / rows) * math.ceil(on_columns / columns)
        assert found.compute_cycles == tiles * (filling + columns + streamed - 2)
        assert found.macs == m * n * k


def test_folds_that_hide_their_loads_fill_the_array_once() -> None:
    hierarchy = systolic("weight", 16, 16, hidden=True)
    long = schedule(hierarchy, Task(nest=product(100, 32, 32)), "latency").cost
    assert long.compute_cycles == 4 * 100 + 16 + 30
    # One row streams for one cycle: the next 16 rows of weights are waited for 15.
    short = schedule(hierarchy, Task(nest=product(1, 32, 32)), "latency").cost
    assert short.compute_cycles == 4 * 1 + 3 * 15 + 16 + 30


def test_a_convolution_fills_a_systolic_array_as_its_product() -> None:
    # 3 channels x 9 taps on 16 rows: two folds, not nine.
    nest = Nest(sizes=(1, 2, 16, 3, 8, 8, 3, 3), in_size=(8, 8))
    found = schedule(systolic("weight", 16, 16), Task(nest=nest), "latency").cost
    assert found.compute_cycles == 2 * (32 + 16 + 128 - 2)


def small() -> Hierarchy:
    return plain(
        (
            level("near", 24, double_buffered=True, width=4.0),
            level("far", 96, holds=("input", "weight"), double_buffered=True, width=2.0, read_j=6),
            level("dram", 1e9, width=1.0, read_j=50, write_j=60),
        ),
        Axis(name="rows", size=2, unrolls=("C",)),
    )


def all_tiles(placed: Placed) -> Floats:
    """Every tile of powers of two of what is unrolled."""
    steps = [
        [tile * 2**power for power in range(int(math.log2(size / tile)) + 1)]
        for size, tile in zip(placed.sizes, placed.unrolling.tile, strict=True)
    ]
    return np.array(list(itertools.product(*steps)))


def every_mapping(placed: Placed) -> float:
    """The least energy x cycles of all mappings, each looked at; steps are powers of two."""
    near, far = all_tiles(placed), all_tiles(placed)
    best = math.inf
    for outer, inner in itertools.product(far, near):
        if (inner > outer).any():
            continue
        counts = [placed.sizes / outer, placed.sizes / inner]
        if not placed.fits(1, outer[None, :], counts[0][None, :])[0]:
            continue
        if not placed.fits(0, inner[None, :], counts[1][None, :])[0]:
            continue
        for orders in itertools.product(ORDERS, repeat=3):
            mapping = Mapping(tiles=(tuple(inner), tuple(outer)), orders=orders)
            found, _ = decided(placed, mapping)
            best = min(best, float(found.energy_j[0] * cycles_of(placed, found)[0][0]))
    return best


@pytest.mark.parametrize("sizes", [(4, 2, 2), (2, 4, 2), (2, 2, 4)])
def test_the_search_finds_the_best_of_all_mappings_or_says_its_gap(
    sizes: tuple[int, int, int],
) -> None:
    m, n, k = sizes
    nest = replace(product(m, n, k), partial_bytes=2.0)
    hierarchy = small()
    placed = Placed(hierarchy=hierarchy, nest=nest, unrolling=unrolling_of(hierarchy, nest))
    best = every_mapping(placed)
    found = schedule(hierarchy, Task(nest=nest)).cost
    goal = found.energy_j * found.cycles
    assert best * (1 - 1e-9) <= goal <= best * (1 + found.gap) * (1 + 1e-9)
    assert goal <= best * 1.001  # so small a grid is looked at as a whole


@few
@given(
    sizes=st.tuples(*[st.integers(1, size) for size in (2, 3, 40, 40, 12, 12, 3, 3)]),
    windows=st.booleans(),
    name=st.sampled_from(["eyeriss", "gemmini", "tpu-v1"]),
    word=st.sampled_from([0.0, 16.0]),
    streamed=st.sampled_from([None, (), ALL, ROOM]),
)
def test_the_cost_of_the_mapping_found_is_that_of_the_definition(
    sizes: tuple[int, ...],
    windows: bool,
    name: str,
    word: float,
    streamed: tuple[TensorName, ...] | None,
) -> None:
    hierarchy = Hierarchy.of(load_device(name))
    levels = tuple(replace(level, word_bytes=word) for level in hierarchy.levels)
    if streamed is ROOM:
        levels = tuple(waiting_for_room(level) for level in levels)
    elif streamed is not None:
        levels = tuple(replace(level, streamed=frozenset(streamed)) for level in levels)
    hierarchy = replace(hierarchy, levels=levels)
    places = (sizes[4] + sizes[6] - 1, sizes[5] + sizes[7] - 1) if windows else (0, 0)
    nest = Nest(sizes=sizes, in_size=places, input_bytes=0.5, partial_bytes=2.0)
    found = schedule(hierarchy, Task(nest=nest, idle_j=1e-12))
    partial, crossings = decided(found.placed, found.mapping)
    cycles, compute = cycles_of(found.placed, partial)
    assert found.cost.cycles == pytest.approx(float(cycles[0]))
    assert found.cost.compute_cycles == pytest.approx(float(compute[0]))
    assert found.cost.energy_j == pytest.approx(float(partial.energy_j[0]))
    moved = {(one.level, one.tensor): 0.0 for one in found.cost.traffic}
    for one in crossings:
        key = hierarchy.levels[one.level].name, one.tensor
        if one.read[0] or one.written[0]:
            moved[key] += float(one.read[0] + one.written[0])
    for traffic in found.cost.traffic:
        total = traffic.read_bytes + traffic.write_bytes
        assert total == pytest.approx(moved[traffic.level, traffic.tensor])


def test_the_order_at_the_multipliers_keeps_one_tensor_in_place() -> None:
    nest = product(8, 4, 4)
    hierarchy = plain((level("near", 1e6), level("dram", 1e9)), Axis(
        name="rows", size=1, unrolls=("C",)
    ))  # fmt: skip
    placed = Placed(hierarchy=hierarchy, nest=nest, unrolling=unrolling_of(hierarchy, nest))
    whole = tuple(placed.sizes)
    rows_innermost: Order = ("weight", "input", "output")
    orders = (rows_innermost, ORDERS[0])
    _, crossings = decided(placed, Mapping(tiles=(whole,), orders=orders))
    read = {
        (one.tensor, hierarchy.levels[one.level].name): float(one.read[0]) for one in crossings
    }
    assert read["weight", "near"] == 16  # once each: the eight rows pass by
    assert read["input", "near"] == 8 * 4 * 4  # for every product


def test_stalls_are_those_of_the_slowest_level() -> None:
    # 64 x 64 weights at 4 bytes a cycle: 1024 cycles, and 64 rows of a 16 x 16 array 16 x 64.
    hierarchy = systolic("weight", 16, 16, hidden=True)
    slow = replace(
        hierarchy,
        levels=(*hierarchy.levels[:-1], replace(hierarchy.levels[-1], bytes_per_cycle=1.0)),
    )
    found = schedule(slow, Task(nest=product(8, 64, 64)), "latency").cost
    moved = 8 * 64 + 64 * 64 + 8 * 64
    assert found.compute_cycles < moved <= found.moving_cycles
    assert found.moving_cycles < found.cycles < 2 * moved  # the first and last tiles show


def test_a_level_that_is_filled_while_the_array_waits_costs_its_fills() -> None:
    nest = product(16, 16, 16)
    axis = Axis(name="rows", size=1, unrolls=("C",))
    goals = []
    for double_buffered in (True, False):
        hierarchy = plain(
            (
                level("near", 1e6, width=8.0, double_buffered=double_buffered),
                level("dram", 1e9, width=1e9),
            ),
            axis,
        )
        goals.append(schedule(hierarchy, Task(nest=nest), "latency").cost)
    hidden, waiting = goals
    # 3 x 256 elements of one byte cross the level's border, 8 bytes a cycle.
    assert waiting.cycles - waiting.compute_cycles == pytest.approx(3 * 256 / 8, abs=1)
    assert hidden.stall_cycles == pytest.approx(0, abs=1e-3)


def test_a_level_too_small_for_one_tile_is_named() -> None:
    hierarchy = plain(
        (level("near", 2), level("dram", 1e9)), Axis(name="rows", size=4, unrolls=("C",))
    )
    with pytest.raises(WorkError, match=r"plain: memories: near of 2 B cannot hold one tile"):
        schedule(hierarchy, Task(nest=product(8, 8, 8)))


def test_any_loop_of_an_axis_may_fill_it_first() -> None:
    # 11 kernel rows leave one of 12 places idle; 12 input channels leave none.
    hierarchy = plain(
        (level("near", 1e6), level("dram", 1e9)), Axis(name="rows", size=12, unrolls=("FY", "C"))
    )
    nest = Nest(sizes=(1, 1, 1, 24, 4, 4, 11, 1), in_size=(14, 4))
    taken = unrolling_of(hierarchy, nest)
    assert dict(zip(LOOPS, taken.factors[0], strict=True))["C"] == 12
    assert taken.cycles(nest) == 2 * 4 * 4 * 11


def test_a_finer_grid_finds_tiles_that_a_coarse_one_lacks() -> None:
    hierarchy = replace(Hierarchy.of(load_device("eyeriss")), goal="edp")
    nest = Nest(
        sizes=(1, 3, 512, 256, 28, 28, 3, 3), in_size=(28, 28),
        input_bytes=2, weight_bytes=2, output_bytes=2, partial_bytes=2, register_bytes=2,
    )  # fmt: skip
    goals = [
        found.energy_j * found.cycles
        for effort in (Effort(), Effort(tiles=(64, 64, 64), zooms=0))
        for found in [schedule(hierarchy, Task(nest=nest, mac_j=1e-12), effort=effort).cost]
    ]
    assert goals[0] < 0.95 * goals[1]


def test_grids_of_more_tiles_start_from_the_mapping_of_the_coarse_ones() -> None:
    """One grid alone, as fine as the last one, ends in another valley of this product."""
    device = DeviceFile("gemmini").varied(
        {
            "units.mac_array.array.axes.rows.size": 64,
            "units.mac_array.array.axes.columns.size": 64,
            "units.mac_array.array.stationary": "output",
            "units.mac_array.count": 4,
            "memories.scratchpad.capacity": "2048 KiB",
            "memories.accumulator.capacity": "16 KiB",
            "memories.dram.bandwidth": "4 GB/s",
        }
    )
    hierarchy = Hierarchy.of(device)
    nest = Nest(sizes=(1, 1, 28672, 4096, 1, 2048, 1, 1))
    goals = [
        found.energy_j * found.cycles
        for effort in (Effort(), Effort(tiles=(64, 64, 64)), Effort(tiles=(1024, 1024, 1024)))
        for found in [schedule(hierarchy, Task(nest=nest, mac_j=1e-12), effort=effort).cost]
    ]
    assert goals[0] <= goals[1]
    assert goals[0] < 0.7 * goals[2]


@pytest.mark.parametrize(
    ("queries", "keys", "causal"), [(1, 512, False), (64, 64, False), (64, 64, True)]
)
def test_the_scores_of_attention_stay_on_chip(queries: int, keys: int, causal: bool) -> None:
    # Four heads of queries share each of two heads of keys: those are read once, also where a
    # mask leaves each query 32.5 of 64 in the mean.
    device = load_device("tpu-v1")
    stored = catalog.format("int8")
    kernel = Kernel(
        kind="attention",
        loops=AttentionLoops(
            batch=1, heads=8, kv_heads=2, queries=queries, keys=keys, depth=64, causal=causal
        ),
        input_format=stored,
        weight_format=stored,
        output_format=stored,
        weight_element="int8",
        input_element="int8",
        accumulator="int32",
        input_bytes=8 * queries * 64,
        weight_bytes=2 * 2 * keys * 64,
        write_bytes=8 * queries * 64,
    )
    (cost,) = ArrayEstimator().estimate([kernel], device, load_runtime("free"))
    assert cost.spatial is not None
    in_main = {
        one.tensor: one.read_bytes + one.write_bytes
        for one in cost.spatial.traffic
        if one.level == "dram"
    }
    assert in_main == {"weight": pytest.approx(kernel.weight_bytes)}
    assert cost.spatial.macs == pytest.approx(kernel.macs, rel=0.02)


def test_main_memory_stores_activations_coded_and_all_else_is_plain() -> None:
    code = RunLengths(run_bits=5, elements=3, word_bits=64)
    dram = replace(level("dram", 1e9, read_j=100.0), run_lengths=code)
    axes = Axis(name="rows", size=4, unrolls=("K",))
    hierarchy = plain((level("near", 1e6), dram), axes)
    nest = Nest(sizes=(1, 1, 8, 8, 1, 64, 1, 1), input_bytes=2, output_bytes=2)
    mixed = replace(nest, input_zeros=0.6, output_zeros=0.9)
    plainly, coded = (
        {
            (one.level, one.tensor): one.read_bytes + one.write_bytes
            for one in schedule(hierarchy, Task(nest=one_nest)).cost.traffic
        }
        for one_nest in (nest, mixed)
    )
    assert coded["dram", "input"] == pytest.approx(plainly["dram", "input"] * code.share(0.6, 16))
    assert coded["dram", "output"] == pytest.approx(
        plainly["dram", "output"] * code.share(0.9, 16)
    )
    same = [key for key in plainly if key[0] == "near" or key[1] == "weight"]
    assert [coded[key] for key in same] == [plainly[key] for key in same]


def test_a_mapper_makes_least_what_the_device_says() -> None:
    device = load_device("eyeriss")
    nest = product(512, 256, 256)
    goals: tuple[Goal, ...] = ("latency", "energy")
    found = {}
    for goal in goals:
        hierarchy = replace(Hierarchy.of(device), goal=goal)
        found[goal] = schedule(hierarchy, Task(nest=nest)).cost
    assert found["energy"].energy_j < found["latency"].energy_j
    assert found["latency"].cycles < found["energy"].cycles
    assert Hierarchy.of(device).goal == "energy"


def test_a_tile_that_the_array_waits_for_comes_as_fast_as_the_slower_level_delivers() -> None:
    """Registers that take everything at once wait for main memory, which gives a byte a cycle."""
    nest = product(16, 16, 16)
    axis = Axis(name="rows", size=1, unrolls=("C",))
    found = [
        schedule(plain((near, level("dram", 1e9, width=1.0)), axis), Task(nest=nest), "latency")
        for near in (level("near", 1e6), level("near", 1e6, double_buffered=True))
    ]
    waiting, hidden = (one.cost.cycles for one in found)
    assert waiting == pytest.approx(16**3 + 3 * 256)
    assert 16**3 < hidden < waiting


def test_what_is_streamed_waits_for_no_tile_and_has_no_second_half() -> None:
    """Three matrices of 256 bytes fit once; halves of less would be loaded again."""
    nest = replace(product(16, 16, 16), partial_bytes=1.0)
    axis = Axis(name="rows", size=1, unrolls=("C",))
    doubled = level("near", 3 * 256, double_buffered=True)
    streamed = replace(level("near", 3 * 256), streamed=frozenset(ALL))
    for near, moved in ((streamed, 3 * 256), (replace(doubled, streamed=streamed.streamed), None)):
        hierarchy = plain((near, level("dram", 1e9, width=0.25)), axis)
        found = schedule(hierarchy, Task(nest=nest), "latency").cost
        assert found.cycles == pytest.approx(max(16**3, found.moving_cycles))
        in_main = sum(
            one.read_bytes + one.write_bytes for one in found.traffic if one.level == "dram"
        )
        assert in_main >= 3 * 256
        if moved:
            assert in_main == moved


def roomy(capacity: float, *, width: float = 1.0, further_in: Level | None = None) -> Hierarchy:
    """A memory of weights that waits for room, before a main memory of so many bytes a cycle."""
    weights: frozenset[TensorName] = frozenset({"weight"})
    near = replace(
        level("near", capacity, holds=("weight",)), streamed=weights, waits_for_room=weights
    )
    inside = () if further_in is None else (further_in,)
    main = level("dram", 1e9, width=1e9)
    slow = replace(level("slow", 1e9, holds=("weight",), width=width), streamed=weights)
    return plain((*inside, near, slow, main), Axis(name="rows", size=1, unrolls=("C",)))


@pytest.mark.parametrize(
    ("capacity", "waited"),
    [
        (32, 0.0),  # the next sixteen weights come beside these
        (31, 3 * (32 - 16)),  # in the last of ten passes, of sixteen cycles, come eight of them
    ],
)
def test_a_tile_that_does_not_fit_twice_comes_as_the_last_pass_leaves_room(
    capacity: float, waited: float
) -> None:
    nest = product(10, 4, 16)
    hierarchy = roomy(capacity, width=0.5)
    placed = Placed(hierarchy=hierarchy, nest=nest, unrolling=unrolling_of(hierarchy, nest))
    weights = (1.0, 1.0, 1.0, 16.0, 1.0, 1.0, 1.0, 1.0)
    whole = tuple(placed.sizes)
    orders: tuple[Order, ...] = (("output", "weight", "input"), ("weight", "output", "input"))
    found, _ = decided(placed, Mapping(tiles=(weights, whole), orders=(*orders, ORDERS[0])))
    assert float(found.exposed[0]) == pytest.approx(waited)
    loops: tuple[tuple[Loop, float], ...] = (("C", 16.0), ("OX", 10.0), ("K", 4.0))
    inside: dict[TensorName, tuple[int, ...]] = {"input": (), "weight": (1, 3), "output": ()}
    uneven, _ = decided_unevenly(placed, UnevenMapping(loops=loops, inside=inside))
    assert float(uneven.exposed[0]) == pytest.approx(waited)


def test_passes_of_loops_inside_count_too_and_a_tile_that_is_held_further_in_leaves_its_room() -> (
    None
):
    """Ten rows pass by inside of the tile, or outside of it; or registers hold all of it."""
    nest = product(10, 4, 16)
    register = level("register", 16, holds=("weight",))
    tile, row = (
        (1.0, 1.0, 1.0, 16.0, 1.0, 10.0, 1.0, 1.0),
        (1.0, 1.0, 1.0, 16.0, 1.0, 1.0, 1.0, 1.0),
    )
    waited = []
    for further_in, tiles in ((None, (tile,)), (register, (row, tile))):
        hierarchy = roomy(16, width=0.5, further_in=further_in)
        placed = Placed(hierarchy=hierarchy, nest=nest, unrolling=unrolling_of(hierarchy, nest))
        rows_outside: Order = ("output", "weight", "input")
        mapping = Mapping(
            tiles=(*tiles, tuple(placed.sizes)),
            orders=(*(rows_outside,) * len(tiles), *ORDERS[:2]),
        )
        waited.append(float(decided(placed, mapping)[0].exposed[0]))
    assert waited == pytest.approx([3 * (32 - 16), 0.0], abs=1e-6)


def test_a_port_for_writes_moves_beside_that_for_reads() -> None:
    """Inputs and weights come in and are read, outputs are written and leave."""
    nest = replace(product(16, 16, 16), partial_bytes=1.0)
    axis = Axis(name="rows", size=1, unrolls=("C",))
    every = frozenset(ALL)
    near = replace(level("near", 1e6, width=0.05), streamed=every)
    one, two = (
        schedule(
            plain((replace(near, write_bytes_per_cycle=own), level("dram", 1e9)), axis),
            Task(nest=nest),
            "latency",
        ).cost
        for own in (None, 0.1)
    )
    at = {(t.tensor): (t.read_bytes, t.write_bytes) for t in two.traffic if t.level == "near"}
    read, written = (sum(one[way] for one in at.values()) for way in (0, 1))
    assert two.moving_cycles == pytest.approx(max(read / 0.05, written / 0.1))
    assert one.moving_cycles >= (read + written) / 0.05 * (1 - 1e-9)
