"""The graphs of the zoo: regions, and the work of Llama 3 8B in closed form."""

from __future__ import annotations

import time
from collections import Counter
from importlib.resources import files
from pathlib import Path

import pytest

import dse.zoo
from dse.graph.ir.graph import Graph
from dse.graph.lower.work import lower
from dse.graph.onnx.dimension import dimensions
from dse.graph.onnx.load import load
from dse.graph.patterns.analysis import Analysis
from dse.graph.patterns.correspond import correspond

ROLES = ("qkv", "rotary", "attention", "o", "gate_up", "down")


def zoo_graph(name: str) -> Graph:
    """A graph that ships with the package."""
    return load(Path(str(files(dse.zoo))) / name / "model.onnx")


@pytest.mark.parametrize(("name", "blocks"), [("byte-gpt", 6), ("llama-3-8b", 32)])
def test_every_part_of_a_llama_is_recognised(name, blocks):
    found = Analysis(zoo_graph(name)).regions
    assert Counter(region.role for region in found if region.role != "shape") == {
        **dict.fromkeys(ROLES, blocks), "norm": 2 * blocks + 1, "embedding": 1, "head": 1,
    }  # fmt: skip
    assert {region.block for region in found} == {None, *range(blocks)}


def test_every_part_of_the_residual_network_is_recognised():
    found = Analysis(zoo_graph("fashion-resnet")).regions
    kinds = Counter(region.kind for region in found)
    assert kinds == {"conv2d": kinds["conv2d"], "reduce": 1, "gemm": 1}
    assert [region.name for region in found][-1] == "head"
    assert all(region.sites for region in found if region.kind in ("conv2d", "gemm"))


def test_llama_3_8b_has_its_published_size_and_work():
    graph = zoo_graph("llama-3-8b")
    assert not graph.has_weights
    batch, new, old = 2, 16, 48
    dims = dict(zip(sorted(dimensions(graph)), (batch, old, new), strict=True))
    work = lower(Analysis(graph), dims)
    width, heads, depth, ffn, vocabulary = 4096, 32, 128, 14336, 128256
    layer = 2 * width * width + 2 * width * 8 * depth + 3 * width * ffn
    attention = 2 * heads * (new + old) * depth
    assert work.macs == batch * new * (32 * (layer + attention) + width * vocabulary)
    weights = {
        operand.value: operand.elements
        for region in work.regions
        for op in region.ops
        for operand in op.operands
        if operand.is_weight
    }
    assert sum(weights.values()) == 8_030_261_248  # of the model card
    caches = [o for r in work.regions for op in r.ops for o in op.operands if o.is_cache]
    assert len(caches) == 64
    assert {operand.shape for operand in caches} == {(batch, 8, new + old, depth)}
    assert work.outputs == (graph.outputs[0],)


def test_byte_gpt_stands_for_every_decision_of_llama_3_8b():
    small, large = (
        Analysis(zoo_graph("byte-gpt")).regions,
        Analysis(zoo_graph("llama-3-8b")).regions,
    )
    found = correspond(small, large)
    assert None not in found.values()
    assert found["blocks.31/down"] == "blocks.5/down"
    assert found["head"] == "head"


def test_a_graph_of_thousands_of_nodes_is_lowered_in_seconds():
    start = time.perf_counter()
    graph = zoo_graph("llama-3-8b")
    lower(Analysis(graph), dict.fromkeys(dimensions(graph), 4))
    assert time.perf_counter() - start < 5
