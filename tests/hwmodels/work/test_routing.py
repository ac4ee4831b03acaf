"""Expected experts against drawing them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hwmodels.devices.load import load_device
from hwmodels.runtimes.load import load_runtime
from hwmodels.tables.price import price
from hwmodels.work.loops import TYPICAL_SKEW, ExpertLoops, contraction_loops
from hwmodels.work.routing import hit_experts, rows_per_expert
from hwmodels.work.work import Op, Operand, RegionWork

EXPERTS, HIDDEN, INNER = 64, 1024, 512


def experts(tokens: int, topk: int) -> RegionWork:
    """The up projection of a mixture of experts, as lowered."""
    rows = tokens * topk
    op = Op(
        name="up",
        kind="grouped_gemm",
        sizes={"E": EXPERTS, "M": rows, "K": HIDDEN, "N": INNER, "topk": topk},
        operands=(
            Operand(name="input", value="x", shape=(tokens, HIDDEN), contraction_axes=(1,)),
            Operand(
                name="weight",
                value="w",
                shape=(EXPERTS, HIDDEN, INNER),
                contraction_axes=(1,),
                is_weight=True,
            ),
            Operand(name="output", value="y", shape=(rows, INNER)),
        ),
    )
    return RegionWork(
        name="experts",
        kind="grouped_gemm",
        role="experts_up",
        ops=(op,),
        reads=op.operands[:2],
        writes=op.operands[2:],
    )


@pytest.mark.parametrize(("tokens", "topk"), [(1, 8), (4, 2), (32, 8), (400, 2)])
def test_hit_experts_are_those_of_random_routing(tokens: int, topk: int) -> None:
    rng = np.random.default_rng(0)
    drawn = [
        len({int(e) for _ in range(tokens) for e in rng.choice(EXPERTS, topk, replace=False)})
        for _ in range(200)
    ]
    assert hit_experts(EXPERTS, tokens * topk, topk) == pytest.approx(np.mean(drawn), abs=1)


def test_one_token_hits_its_experts_with_a_row_each() -> None:
    assert hit_experts(128, 8, 8) == 8
    assert rows_per_expert(128, 8, 8) == 1


def test_macs_are_those_of_the_chosen_experts_alone() -> None:
    work = experts(tokens=16, topk=4)
    assert work.macs == 16 * 4 * HIDDEN * INNER


def test_few_tokens_read_few_experts() -> None:
    device, runtime = load_device("h100-sxm"), load_runtime("vllm")
    one = price(experts(tokens=1, topk=2), device, runtime)
    many = price(experts(tokens=512, topk=2), device, runtime)
    whole = EXPERTS * HIDDEN * INNER * 2
    assert one.weight_bytes == many.weight_bytes == whole
    assert one.traffic_bytes < whole / 16
    assert many.traffic_bytes >= whole
    assert many.latency_s > one.latency_s


def test_sizes_of_a_full_layer_are_a_batch_of_gemms() -> None:
    (op,) = experts(tokens=1024, topk=4).ops
    loops = contraction_loops(op.kind, op.sizes, where=op.name)
    assert isinstance(loops, ExpertLoops)
    assert (loops.batch, loops.m, loops.n, loops.k) == (EXPERTS, 64, INNER, HIDDEN)
    assert (loops.experts, loops.rows, loops.choices) == (EXPERTS, 4096, 4)
    assert loops.macs == 4096 * INNER * HIDDEN


def test_sizes_may_say_how_tokens_are_spread() -> None:
    (op,) = experts(tokens=1024, topk=4).ops
    plain = contraction_loops(op.kind, op.sizes, where=op.name)
    told = contraction_loops(op.kind, {**op.sizes, "parts": 8, "skew": 120}, where=op.name)
    assert isinstance(plain, ExpertLoops)
    assert (plain.parts, plain.skew) == (1, TYPICAL_SKEW)
    assert told == replace(plain, parts=8, skew=120)
