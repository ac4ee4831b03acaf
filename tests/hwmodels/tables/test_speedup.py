"""The interval of a speed-up: worked out by hand, and its laws."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from hwmodels.estimators.gpu import samples
from hwmodels.estimators.gpu.residual import load_artefact
from hwmodels.formats import catalog
from hwmodels.tables.speedup import (
    FITTED_DEVICES,
    MEASURED,
    MOVES,
    OTHER_PRODUCTS,
    SEEN,
    UNSEEN,
    Following,
    Parts,
    Speedup,
    Times,
    error_parts,
    following_errors,
    half_widths,
    parts_of,
    speedup,
)
from hwmodels.work.kernel import Kernel, KernelCost, PricedKernel
from hwmodels.work.loops import ProductLoops, RowLoops

REACH = 0.2
H100, NEW = "h100-sxm", "some-gpu"


def gemm(m: int, n: int, k: int, numbers: str = "bf16", reach: float = REACH) -> PricedKernel:
    stored = catalog.format(numbers)
    loops = ProductLoops(m=m, n=n, k=k)
    kernel = Kernel(kind="gemm", loops=loops, input_format=stored, weight_format=stored)
    return PricedKernel(kernel=kernel, cost=cost(reach))


def softmax(rows: int) -> PricedKernel:
    kernel = Kernel(kind="rowwise", detail="softmax", loops=RowLoops(rows=rows, cols=64))
    return PricedKernel(kernel=kernel, cost=cost(REACH))


def cost(reach: float) -> KernelCost:
    return KernelCost(
        latency_s=1.0, low_s=math.exp(-reach), high_s=math.exp(reach), energy_j=0.0,
        traffic_bytes=0.0, bound="compute",
    )  # fmt: skip


def reach_of(found: Speedup) -> float:
    """Both ends are as far."""
    assert found.high / found.factor == pytest.approx(found.factor / found.low)
    return math.log(found.high / found.factor)


@pytest.mark.parametrize("parts", [SEEN, UNSEEN, MOVES, OTHER_PRODUCTS])
def test_parts_are_shares_of_one_variance(parts: Parts) -> None:
    shares = [getattr(parts, name) for name in parts.__slots__]
    assert sum(shares) == pytest.approx(1.0)
    assert min(shares) >= 0


@pytest.mark.parametrize("device", [H100, NEW])
def test_equal_latencies_have_a_speedup_of_exactly_one(device: str) -> None:
    times = {gemm(8, 64, 32): 2e-6, softmax(9): 1e-6}
    assert speedup(times, dict(times), device) == Speedup(factor=1.0, low=1.0, high=1.0)


def test_as_many_times_as_long_in_the_same_kernels_is_certain() -> None:
    times = {gemm(8, 64, 32): 2e-6, softmax(9): 1e-6}
    found = speedup({one: 3 * seconds for one, seconds in times.items()}, times, NEW)
    assert (found.low, found.factor, found.high) == pytest.approx((3.0, 3.0, 3.0))


def test_one_product_in_other_numbers_is_as_sure_as_the_formula_says() -> None:
    """Half of bf16's time is one product; in fp8 it takes half as long, a third of the rest."""
    kept, slow, fast = gemm(8, 64, 32), gemm(8, 32, 64), gemm(8, 32, 64, "e4m3_tensor")
    found = speedup({kept: 1e-6, slow: 1e-6}, {kept: 1e-6, fast: 0.5e-6}, NEW)
    assert found.factor == pytest.approx(4 / 3)
    d_kept, d_slow, d_fast = 1 / 2 - 2 / 3, 1 / 2, -1 / 3
    d_bf16 = d_kept + d_slow
    variance = (
        UNSEEN.kind * (d_kept + d_slow + d_fast) ** 2
        + (UNSEEN.numbers + UNSEEN.rows) * (d_bf16**2 + d_fast**2)
        + (UNSEEN.weight + UNSEEN.own) * (d_kept**2 + d_slow**2 + d_fast**2)
        + UNSEEN.sizes * (d_kept**2 + (d_slow + d_fast) ** 2)
    )
    assert reach_of(found) == pytest.approx(REACH * math.sqrt(variance))


def test_products_of_other_rows_share_their_numbers_and_their_weight() -> None:
    few, many = gemm(8, 64, 32), gemm(16, 64, 32)
    found = speedup({few: 1e-6}, {many: 1e-6}, NEW)
    variance = 2 * (UNSEEN.rows + UNSEEN.sizes + UNSEEN.own)
    assert reach_of(found) == pytest.approx(REACH * math.sqrt(variance))


def test_kernels_of_other_kinds_have_nothing_in_common() -> None:
    found = speedup({gemm(8, 64, 32): 1e-6}, {softmax(9): 1e-6}, NEW)
    assert reach_of(found) == pytest.approx(REACH * math.sqrt(2))


def test_a_measured_device_has_shares_of_its_own() -> None:
    pair = {gemm(8, 64, 32): 1e-6}, {gemm(8, 64, 32, "e4m3_tensor"): 1e-6}
    apart = 2 * (1 - SEEN.kind - SEEN.sizes)
    assert reach_of(speedup(*pair, H100)) == pytest.approx(REACH * math.sqrt(apart))
    unseen = 2 * (1 - UNSEEN.kind - UNSEEN.sizes)
    assert reach_of(speedup(*pair, NEW)) == pytest.approx(REACH * math.sqrt(unseen))


def test_shares_are_those_of_the_tables_that_are_open() -> None:
    assert parts_of("gemm", "b200-sxm") == SEEN
    assert parts_of("attention", "b200-sxm") == UNSEEN
    assert parts_of("attention", H100) == OTHER_PRODUCTS
    assert parts_of("pointwise", H100) == MOVES
    assert parts_of("collective", H100) == UNSEEN


def random_times(generator: np.random.Generator) -> Times:
    pool = [gemm(m, n, 64, numbers) for m in (1, 8) for n in (64, 128)
            for numbers in ("bf16", "e4m3_tensor")]  # fmt: skip
    pool += [softmax(rows) for rows in (8, 64)]
    chosen = generator.choice(len(pool), size=4, replace=False)
    return {pool[index]: float(generator.uniform(1, 9)) for index in chosen}


def test_half_widths_are_distances_below_those_of_the_two_latencies() -> None:
    generator = np.random.default_rng(0)
    times = [random_times(generator) for _ in range(20)]
    half = half_widths(times, NEW)
    assert np.array_equal(half, half.T)
    assert not np.diag(half).any()
    assert (half[:, None, :] <= half[:, :, None] + half[None, :, :] + 1e-12).all()
    alone = np.linalg.norm(error_parts(times, NEW), axis=1)
    assert (alone <= REACH + 1e-12).all()
    assert (half <= alone[:, None] + alone[None, :] + 1e-12).all()


def test_the_more_of_the_time_differs_the_wider_it_is() -> None:
    kept, slow, fast = gemm(8, 64, 32), gemm(8, 32, 64), gemm(8, 32, 64, "e4m3_tensor")
    reaches = [
        reach_of(speedup({kept: 1.0, slow: part}, {kept: 1.0, fast: part}, NEW))
        for part in (0.01, 0.1, 1.0, 10.0)
    ]
    assert reaches == sorted(reaches)
    assert reaches[0] < 0.1 * reaches[-1]


def test_twice_the_doubt_of_every_kernel_is_twice_the_doubt_of_the_ratio() -> None:
    once, twice = (
        reach_of(
            speedup({gemm(8, 64, 32, reach=r): 1.0}, {gemm(8, 64, 32, "int8", reach=r): 1.0}, NEW)
        )
        for r in (REACH, 2 * REACH)
    )
    assert twice == pytest.approx(2 * once)


def test_what_takes_no_time_is_infinitely_faster() -> None:
    some = {gemm(8, 64, 32): 1e-6}
    assert speedup(some, {}, NEW).factor == math.inf
    assert speedup({}, {}, NEW) == Speedup(factor=1.0, low=1.0, high=1.0)


def test_an_interval_around_one_is_a_tie_from_either_side() -> None:
    found = Speedup.of(1.1, 0.2)
    assert found.is_tied
    assert found.inverse.is_tied
    assert not replace(found, low=1.01).is_tied
    back = found.inverse
    assert (back.low, back.factor, back.high) == pytest.approx(
        (1 / found.high, 1 / 1.1, 1 / found.low)
    )


def test_measured_devices_are_those_that_the_estimator_was_fitted_to() -> None:
    assert set(MEASURED) == set(load_artefact().learned.sources)
    assert FITTED_DEVICES == samples.FITTED_DEVICES


def test_a_number_that_follows_one_call_errs_as_far_as_it_follows() -> None:
    prefill, step = {gemm(512, 64, 32): 3e-6}, {gemm(8, 64, 32): 1e-6, softmax(9): 1e-6}
    whole = np.linalg.norm(error_parts([step], NEW)[0])
    for reach in (1.0, 0.5, 2.0):
        follows = Following.of([prefill, step], [0.0, reach])
        (errors,) = following_errors([follows], NEW)
        assert np.linalg.norm(errors) == pytest.approx(reach * whole)


def test_a_number_that_follows_both_calls_mixes_their_kernels_by_elasticity() -> None:
    """A call counts by its elasticity, not by its seconds."""
    prefill, step = {gemm(512, 64, 32): 3.0}, {softmax(9): 1e-6}
    both = Following.of([prefill, step], [0.25, 0.75])
    assert both.times == pytest.approx({gemm(512, 64, 32): 0.25, softmax(9): 0.75})
    assert both.elasticity == 1.0


@pytest.mark.parametrize("chance", [-0.2, math.nan, math.inf, -math.inf])
def test_what_only_a_simulation_s_chance_says_is_no_elasticity(chance: float) -> None:
    step = {softmax(9): 1e-6}
    assert Following.of([{gemm(8, 64, 32): 1.0}, step], [chance, 0.5]) == Following.of(
        [{}, step], [0.0, 0.5]
    )
