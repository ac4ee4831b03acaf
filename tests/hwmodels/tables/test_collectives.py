"""Collectives: limits of the equations, and tables of other hands."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hwmodels.devices.device import Link
from hwmodels.devices.load import load_device
from hwmodels.errors import WorkError
from hwmodels.runtimes.load import load_runtime
from hwmodels.tables.collectives import (
    HOSTS,
    SPREAD,
    collective_costs,
    latencies,
    peer_all_reduce_s,
    ring_s,
)
from hwmodels.work.kernel import Kernel
from hwmodels.work.loops import CollectiveLoops

MIB = 2**20
# Rows of aiconfigurator's nccl_perf tables at 095f58a (half, microseconds): device, collective,
# GPUs, message in bytes, time.
NCCL = (
    ("h100-sxm", "all_reduce", 2, 4096, 6.5),
    ("h100-sxm", "all_reduce", 8, 4096, 16.0),
    ("h100-sxm", "all_reduce", 8, 16 * MIB, 121.9),
    ("h100-sxm", "all_gather", 8, 128 * MIB, 392.8),
    ("a100-sxm-80gb", "all_reduce", 4, 16 * MIB, 183.5),
    ("b200-sxm", "all_reduce", 8, 128 * MIB, 398.4),
    ("b200-sxm", "reduce_scatter", 4, 32768, 12.3),
    ("l40s", "all_reduce", 2, 2 * MIB, 120.7),
    ("l40s", "all_reduce", 8, 128 * MIB, 162481.0),
)
# The same of custom_allreduce_perf (bfloat16, TensorRT-LLM).
PEER = (
    ("h100-sxm", 2, 16384, 2.8),
    ("h100-sxm", 8, MIB, 26.0),
    ("h100-sxm", 4, 8 * MIB, 63.8),
    ("b200-sxm", 8, 131072, 6.3),
    ("b200-sxm", 2, MIB, 6.4),
)


def kernel(detail: str, ways: int, message: int) -> Kernel:
    return Kernel(
        kind="collective", detail=detail, loops=CollectiveLoops(ways=ways), input_bytes=message
    )


@pytest.mark.parametrize(("device", "collective", "ways", "message", "measured_us"), NCCL)
def test_rings_take_what_nccl_was_measured_at(
    device: str, collective: str, ways: int, message: int, measured_us: float
) -> None:
    (link,) = load_device(device).links
    assert ring_s(collective, message, ways, link) * 1e6 == pytest.approx(measured_us, rel=0.35)


@pytest.mark.parametrize(("device", "ways", "message", "measured_us"), PEER)
def test_peer_kernels_take_what_they_were_measured_at(
    device: str, ways: int, message: int, measured_us: float
) -> None:
    (link,) = load_device(device).links
    assert peer_all_reduce_s(message, ways, link) * 1e6 == pytest.approx(measured_us, rel=0.25)


def test_a_ring_is_never_faster_than_its_link() -> None:
    (link,) = load_device("h100-sxm").links
    for message in (1024, MIB, 1024 * MIB):
        moved = 2 * 7 / 8 * message
        assert ring_s("all_reduce", message, 8, link) > moved / 450e9


def test_peer_memory_helps_small_messages_and_only_where_the_runtime_has_it() -> None:
    device = load_device("h100-sxm")
    small, large = (kernel("all_reduce", 8, size) for size in (4096, 512 * MIB))
    ours = collective_costs([small, large], device, load_runtime("vllm"))
    ring = collective_costs([small, large], device, load_runtime("torch-eager"))
    assert ours[0].latency_s < ring[0].latency_s / 2
    assert ours[1].latency_s <= ring[1].latency_s
    assert {cost.bound for cost in ours} == {"communication"}


def test_gpus_that_share_a_host_get_slower_with_their_number() -> None:
    (link,) = load_device("l40s").links
    two, four = (ring_s("all_reduce", 64 * MIB, ways, link) for ways in (2, 4))
    assert four > 4 * two


def test_the_worst_host_is_the_one_that_was_measured() -> None:
    (link,) = load_device("l40s").links
    assert link.contention is not None
    assert max(HOSTS) == link.contention.value


def test_of_a_host_that_nobody_measured_the_interval_goes_from_none_to_the_worst() -> None:
    """Eight GPUs of a host: 4^0.5 slower than alone, and 4^2.1 at worst."""
    runtime, large = load_runtime("vllm"), kernel("all_reduce", 8, 1024 * MIB)
    (cost,) = collective_costs([large], load_device("rtx-4090"), runtime)
    (pair,) = collective_costs(
        [kernel("all_reduce", 2, 1024 * MIB)], load_device("rtx-4090"), runtime
    )
    low, high = SPREAD["unseen"]
    assert cost.latency_s / (cost.low_s / low) == pytest.approx(4**0.5, rel=0.01)
    assert (cost.high_s / high) / cost.latency_s == pytest.approx(4**1.6, rel=0.01)
    assert pair.high_s / pair.low_s == pytest.approx(high / low)


def test_a_link_without_figures_has_those_of_its_generation() -> None:
    """H100 and L40S: 4.75 and 0.794 us, 4.2 and 0.92 us."""
    (h200,), (l4,) = (load_device(name).links for name in ("h200-sxm", "l4"))
    for link, start_us, step_us, expected in (
        (h200, 4.75, 0.794, "generation"),
        (l4, 4.2, 0.92, "unseen"),
    ):
        start, step, standing = latencies(link)
        assert start == pytest.approx(start_us * 1e-6)
        assert step == pytest.approx(step_us * 1e-6)
        assert standing == expected


def test_a_link_of_no_known_kind_has_the_means_of_the_nvlinks() -> None:
    """(9.26 x 4.75 x 7.05)^(1/3) = 6.77 us, (0.861 x 0.794 x 1.359)^(1/3) = 0.976 us."""
    (known,) = load_device("tpu-v5p").links
    strange = Link(name="ici", bandwidth_bytes_per_s=known.bandwidth_bytes_per_s)
    start, step, standing = latencies(strange)
    assert start == pytest.approx(6.77e-6, rel=1e-3)
    assert step == pytest.approx(0.976e-6, rel=1e-3)
    assert standing == "unseen"


def test_messages_beyond_a_runtime_s_limit_are_nccl_s() -> None:
    """TensorRT-LLM: 16 MB between two GPUs, 8 MB among more."""
    device, runtime = load_device("h100-sxm"), load_runtime("tensorrt-llm")
    (link,) = device.links
    for ways, limit in ((2, 16_000_000), (8, 8_000_000)):
        within, beyond = collective_costs(
            [kernel("all_reduce", ways, limit), kernel("all_reduce", ways, limit + 1)],
            device,
            runtime,
        )
        assert within.latency_s == pytest.approx(peer_all_reduce_s(limit, ways, link))
        assert beyond.latency_s == pytest.approx(ring_s("all_reduce", limit + 1, ways, link))


def test_limits_are_those_of_the_architecture_and_of_so_many_gpus() -> None:
    runtime = load_runtime("vllm")
    hopper, ada = (load_device(name).architecture for name in ("h100-sxm", "l40s"))
    limits = [runtime.peer_limit_bytes(hopper, ways) // MIB for ways in (2, 3, 4, 6, 8, 16)]
    assert limits == [64, 32, 32, 64, 64, 0]
    assert runtime.peer_limit_bytes(ada, 4) == 8 * MIB
    assert load_runtime("torch-eager").peer_limit_bytes(hopper, 2) == 0


def test_figures_that_were_not_measured_widen_the_interval() -> None:
    """Own latencies, those of the generation, those of other links."""
    device, runtime = load_device("h100-sxm"), load_runtime("vllm")
    bare = replace(device.links[0], start_s=None, step_s=None)
    links = (device.links[0], bare, replace(bare, name="infinity-fabric"))
    costs = [
        collective_costs(
            [kernel("all_reduce", 4, MIB)], replace(device, links=(link,)), runtime
        )[0]
        for link in links
    ]  # fmt: skip
    known, sibling, guessed = (cost.high_s / cost.low_s for cost in costs)
    assert known < sibling < guessed


def test_a_device_without_links_cannot_take_part() -> None:
    device = load_device("groq-lpu")
    with pytest.raises(WorkError, match=r"no `links`.*tensor_parallel"):
        collective_costs([kernel("all_reduce", 2, MIB)], device, load_runtime("free"))
