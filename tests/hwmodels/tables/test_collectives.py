"""Collectives: limits of the equations, and tables of other hands."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hwmodels.devices.load import load_device
from hwmodels.errors import WorkError
from hwmodels.runtimes.load import load_runtime
from hwmodels.tables.collectives import collective_costs, peer_all_reduce_s, ring_s
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


def test_figures_that_were_not_measured_widen_the_interval() -> None:
    device, runtime = load_device("h100-sxm"), load_runtime("vllm")
    bare = replace(device, links=(replace(device.links[0], start_s=None, step_s=None),))
    known, guessed = (
        collective_costs([kernel("all_reduce", 4, MIB)], one, runtime)[0] for one in (device, bare)
    )
    assert guessed.high_s / guessed.low_s > 2 * known.high_s / known.low_s


def test_a_device_without_links_cannot_take_part() -> None:
    device = load_device("groq-lpu")
    with pytest.raises(WorkError, match=r"no `links`.*tensor_parallel"):
        collective_costs([kernel("all_reduce", 2, MIB)], device, load_runtime("free"))
