"""Attention that PyTorch does in float32, product by product."""

from __future__ import annotations

import pytest

from hwmodels.devices.load import load_device
from hwmodels.plans.math_attention import math_attention
from hwmodels.runtimes.load import load_runtime
from hwmodels.tables.price import kernel_costs
from hwmodels.work.kernel import Kernel
from hwmodels.work.loops import AttentionLoops, ProductLoops
from hwmodels.work.work import plain_format

HEADS, SIZE, DEPTH = 96, 384, 64
ATTENTION = Kernel(
    kind="attention",
    loops=AttentionLoops(batch=8, heads=12, kv_heads=12, queries=SIZE, keys=SIZE, depth=DEPTH),
    input_format=plain_format(16),
    weight_format=plain_format(16),
    weight_element="bf16",
    input_element="bf16",
)
SCORES = HEADS * SIZE * SIZE


@pytest.mark.parametrize("fused", [False, True])
def test_both_products_run_in_float32(fused: bool) -> None:
    products = [one for one in math_attention(ATTENTION, fused=fused) if one.kind == "gemm"]
    loops = [one.loops for one in products]
    assert loops == [
        ProductLoops(batch=HEADS, m=SIZE, n=SIZE, k=DEPTH),
        ProductLoops(batch=HEADS, m=SIZE, n=DEPTH, k=SIZE),
    ]
    assert sum(one.macs for one in products) == ATTENTION.macs
    assert {(one.weight_element, one.input_element) for one in products} == {("fp32", "fp32")}


def test_eager_mode_passes_over_the_scores_six_times() -> None:
    """Mask 8 bytes a score, softmax 8, is -inf 4+1, any row all 1, where 8, cast 4+2."""
    passes = [
        one
        for one in math_attention(ATTENTION, fused=False)
        if one.kind != "gemm" and one.input_bytes >= SCORES
    ]
    assert sum(one.bytes for one in passes) == SCORES * (8 + 8 + 5 + 1 + 8 + 6)


def test_a_compiler_joins_them_with_the_softmax() -> None:
    assert len(math_attention(ATTENTION, fused=True)) == 7


def test_an_h100_takes_what_was_measured() -> None:
    """426 us with the mask expanded, in one captured graph (`studies/gpu_latency/layouts.py`)."""
    kernels = math_attention(ATTENTION, fused=False)
    costs = kernel_costs(kernels, load_device("h100-sxm"), load_runtime("torch-eager"))
    assert sum(one.latency_s for one in costs) == pytest.approx(426e-6, rel=0.2)
