"""What one GPU of a tensor-parallel group has to do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest

from hwmodels.devices.load import load_device
from hwmodels.errors import WorkError
from hwmodels.formats.catalog import scheme
from hwmodels.runtimes.load import load_runtime
from hwmodels.tables.network import Choices, CostTable, PhaseWork
from hwmodels.work.sharding import shard
from hwmodels.work.work import Work

LAYERS, WIDTH, TOKENS = 2, 4096, 16
"""Llama-3-8B's width: 64 query heads of 64 here, 16 key and value heads."""


@pytest.fixture
def work(llama: Callable[..., Work]) -> Work:
    return llama(layers=LAYERS, tokens=TOKENS, width=WIDTH)


def constant_bytes(work: Work, *, cache: bool = False) -> int:
    """Bytes of weights, or of caches, each stored once."""
    operands = [o for region in work.regions for op in region.ops for o in op.operands]
    stored = {o.value: o.bytes for o in operands if (o.is_cache if cache else o.is_weight)}
    return sum(stored.values())


def sizes(work: Work, region: str) -> list[dict[str, int]]:
    found = next(one for one in work.regions if one.name == region)
    return [dict(op.sizes) for op in found.ops if op.kind in ("gemm", "attention")]


def test_one_gpu_is_the_whole_network(work: Work) -> None:
    assert shard(work, 1) is work


def test_projections_are_split_as_megatron_does(work: Work) -> None:
    quarter = shard(work, 4)
    kv = WIDTH // 4
    assert [s["N"] for s in sizes(quarter, "b0/qkv")] == [WIDTH // 4, kv // 4, kv // 4]
    assert [s["K"] for s in sizes(quarter, "b0/o")] == [WIDTH // 4]
    assert [s["N"] for s in sizes(quarter, "b0/o")] == [WIDTH]
    (heads,) = sizes(quarter, "b0/attention")
    assert (heads["H"], heads["HK"]) == (WIDTH // 64 // 4, WIDTH // 256 // 4)


def test_a_block_is_summed_twice_and_the_head_gathered(work: Work) -> None:
    found = Counter(r.role for r in shard(work, 2).regions if r.kind == "collective")
    assert found["all_reduce"] == 2 * LAYERS
    assert found["all_gather"] == 1


def test_macs_and_weights_are_divided(work: Work) -> None:
    for ways in (2, 4, 8):
        mine = shard(work, ways)
        assert mine.macs * ways == work.macs
        norms = (2 * LAYERS + 1) * WIDTH * 2
        whole = constant_bytes(work) - norms
        assert constant_bytes(mine) - norms == pytest.approx(whole / ways, abs=2 * WIDTH)


def test_key_heads_are_copied_where_there_are_fewer_than_gpus(llama: Callable[..., Work]) -> None:
    decode = llama(layers=1, tokens=1, context=512, width=WIDTH)
    heads = WIDTH // 256
    whole = constant_bytes(decode, cache=True)
    assert constant_bytes(shard(decode, heads), cache=True) * heads == whole
    assert constant_bytes(shard(decode, 2 * heads), cache=True) * heads == whole


def test_gpus_that_do_not_divide_the_heads_are_refused(work: Work) -> None:
    with pytest.raises(WorkError, match=r"tensor_parallel 3 does not divide 64 heads"):
        shard(work, 3)


def test_a_network_without_blocks_is_refused(cnn: Work) -> None:
    with pytest.raises(WorkError, match=r"nothing to split.*conv"):
        shard(cnn, 2)


def test_alignment_is_checked_on_what_is_left(llama: Callable[..., Work]) -> None:
    chosen = scheme("w4a16")
    assert chosen.weight is not None
    device, runtime = load_device("h100-sxm"), load_runtime("vllm")
    decode = llama(layers=1, tokens=1, context=64, width=1024)
    choice: Choices = {"b0/o": ({"weight": chosen.weight},)}
    status = []
    for ways in (1, 16):
        phase = PhaseWork(name="call", share=1.0, work=shard(decode, ways))
        cost = CostTable.build((phase,), choice, device, runtime).total({})
        status.append(dict(cost.parts)["b0/o"].status)
    # 1024 / 16 = 64 inputs: no multiple of Marlin's 128.
    assert status == ["weight_only", "emulated"]


def test_more_gpus_are_faster_until_communication_rules(llama: Callable[..., Work]) -> None:
    device, runtime = load_device("h100-sxm"), load_runtime("vllm")
    decode = llama(layers=2, tokens=1, context=512, width=8192)
    latency = []
    for ways in (1, 2, 8):
        phase = PhaseWork(name="call", share=1.0, work=shard(decode, ways))
        cost = CostTable.build((phase,), {}, device, runtime).total({})
        reduces = [part for name, part in cost.parts if name.endswith("/all_reduce")]
        assert all(part.bound == "communication" for part in reduces)
        latency.append(cost.latency_s)
    assert latency[0] > latency[1] > latency[2]
    assert latency[2] > latency[0] / 8
