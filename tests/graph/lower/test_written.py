"""Patterns keep the nodes that they were written as; eager mode runs these."""

from __future__ import annotations

import pytest

from dse.graph.ir.graph import Graph
from dse.graph.lower.work import lower
from dse.graph.patterns.analysis import Analysis
from hwmodels.devices.load import load_device
from hwmodels.plans.region import plan_region
from hwmodels.runtimes.load import load_runtime
from hwmodels.work.work import Op

WRITTEN = """
    g (float[2, 3, 8, 4] q, float[2, 3, 8, 4] k, float[2, 3, 8, 4] v) => (y)
    <float s = {0.5}> {
        t = Transpose <perm = [0, 1, 3, 2]> (k)
        a = MatMul(q, t)
        b = Mul(a, s)
        p = Softmax(b)
        y = MatMul(p, v)
    }"""
EXPORTED = """
    g (float[2, 3, 8, 4] q, float[2, 3, 8, 4] k, float[2, 3, 8, 4] v) => (y)
    <float s = {0.7}> {
        t = Transpose <perm = [0, 1, 3, 2]> (k)
        qs = Mul(q, s)
        ts = Mul(t, s)
        a = MatMul(qs, ts)
        p = Softmax(a)
        y = MatMul(p, v)
    }"""
GELU = """
    g (float[2, 2] z) => (y) <float[2, 2] w = {1, 2, 3, 4}, float c = {0.5}, float n = {3.0}> {
        x = MatMul(z, w)
        half = Mul(x, c)
        cube = Pow(x, n)
        scaled = Mul(cube, c)
        inner = Add(x, scaled)
        root = Mul(inner, c)
        t = Tanh(root)
        plus = Add(t, n)
        y = Mul(half, plus)
    }"""


def the_op(g: Graph) -> Op:
    """The last operation of a graph."""
    return lower(Analysis(g), {}).regions[-1].ops[-1]


def kernels(g: Graph, runtime: str) -> list[str]:
    """What a runtime launches on an H100."""
    device = load_device("h100-sxm")
    return [
        kernel.detail or kernel.kind
        for region in lower(Analysis(g), {}).regions
        for kernel in plan_region(region, device, load_runtime(runtime)).kernels
    ]


def test_attention_keeps_the_nodes_that_its_author_wrote(graph):
    op = the_op(graph(WRITTEN))
    assert op.kind == "attention"
    assert [part.kind for part in op.decomposition] == [
        "copy",
        "bmm",
        "elementwise",
        "softmax",
        "bmm",
    ]


def test_attention_scaled_on_both_sides_is_how_exporters_write_one_kernel(graph):
    assert the_op(graph(EXPORTED)).decomposition == ()


def test_a_written_out_activation_keeps_its_nodes_where_exporters_have_an_operator(graph):
    recent = '<ir_version: 9, opset_import: ["" : 20]>' + GELU
    assert len(the_op(graph(recent)).decomposition) == 8
    assert the_op(graph(GELU)).decomposition == ()


def test_only_eager_mode_runs_attention_as_written(graph):
    eager = kernels(graph(WRITTEN), "torch-eager")
    assert eager == ["transpose", "gemm", "mul", "softmax", "gemm"]
    assert kernels(graph(WRITTEN), "torch-compile") == ["attention"]
    assert kernels(graph(EXPORTED), "torch-eager") == ["attention"]


MASKED = """
    g (float[2, 3, 8, 4] q, float[2, 3, 8, 4] k, float[2, 3, 8, 4] v) => (y)
    <float s = {0.5}, float z = {0.0}, float low = {-10000.0}, int64[4] shape = {2, 1, 8, 8},
     bool[1, 1, MASK] keep = {VALUES}> {
        whole = Expand(keep, shape)
        mask = Where(whole, z, low)
        t = Transpose <perm = [0, 1, 3, 2]> (k)
        a = MatMul(q, t)
        b = Mul(a, s)
        c = Add(b, mask)
        p = Softmax(c)
        y = MatMul(p, v)
    }"""


@pytest.mark.parametrize(("axes", "detail"), [("8, 1", "expanded_mask"), ("1, 8", "")])
def test_a_mask_that_is_expanded_along_the_keys_is_seen(graph, axes, detail):
    text = MASKED.replace("MASK", axes).replace("VALUES", ", ".join("1" * 8))
    assert the_op(graph(text)).detail == detail


def test_torch_falls_back_to_float32_where_a_mask_is_expanded_along_the_keys(graph):
    """Eager and compiled; other runtimes keep their fused kernel."""
    text = MASKED.replace("MASK", "8, 1").replace("VALUES", ", ".join("1" * 8))
    for runtime, most in (("torch-eager", 18), ("torch-compile", 7)):
        launched = kernels(graph(text), runtime)
        assert len(launched) == most
        assert launched.count("gemm") == 2
        assert launched.count("softmax") == 1
    assert kernels(graph(text), "vllm") == ["attention"]


PART = """
    <ir_version: 9, opset_import: ["" : 20]>
    g (float[2, 2] x) => (y) <float[2, 4] w = {1, 2, 3, 4, 5, 6, 7, 8}> {
        h = MatMul(x, w)
        a, b = Split <axis = 1, num_outputs = 2> (h)
        c = Relu(a)
        y = Mul(c, b)
    }"""


def test_a_part_of_a_product_is_marked_where_it_is_read(graph):
    op = the_op(graph(PART))
    parts = {one.value: one.is_part for one in op.operands if one.name != "output"}
    assert parts == {"c": False, "b": True}
