"""Graphs of ONNX Runtime's own operators: regions, sites and work."""

from __future__ import annotations

from collections.abc import Callable

from dse.graph.ir.graph import Graph
from dse.graph.patterns.analysis import Analysis

Make = Callable[[str], Graph]


def constant(kind: str, count: int) -> str:
    """A declaration with that many zeros for its values."""
    return f"{kind} = {{{', '.join(['0'] * count)}}}"


HEADER = '<ir_version: 8, opset_import: ["": 17, "com.microsoft": 1]>\n'
BLOCK = HEADER + """
g (float[2, 6, 32] x, float[2, 6, 32] r) => (float[2, 6, 32] y)
<WEIGHTS, float[2, 6, 32] a, float[2, 6, 32] n, float[2, 6, 32] m> {
    [norm] n, u, t, m = com.microsoft.SkipLayerNormalization (x, r, s)
    [q] pq = MatMul (n, wq)
    [k] pk = MatMul (n, wk)
    [v] pv = MatMul (n, wv)
    ATTENTION
    [o] d = MatMul (a, wo)
    y = Add (d, m)
}
"""  # fmt: skip


def block(kv_width: int, attention: str) -> str:
    """A norm, the projections, an attention of that many key channels and the output's."""
    sizes = {"wq": "[32, 32]", "wk": f"[32, {kv_width}]", "wv": f"[32, {kv_width}]"}
    sizes |= {"wo": "[32, 32]", "s": "[32]"}
    counts = {"wk": 32 * kv_width, "wv": 32 * kv_width, "s": 32}
    weights = (constant(f"float{sizes[n]} {n}", counts.get(n, 1024)) for n in sizes)
    return BLOCK.replace("WEIGHTS", ", ".join(weights)).replace("ATTENTION", attention)


MULTI_HEAD = block(32, "[att] a = com.microsoft.MultiHeadAttention <num_heads = 4> (pq, pk, pv)")
GROUPED = block(
    16,
    "c = Constant <value = int32[2] {5, 5}> ()\nl = Constant <value = int32[1] {6}> ()\n"
    "[att] a, pk2, pv2 = com.microsoft.GroupQueryAttention <num_heads = 4, kv_num_heads = 2> "
    "(pq, pk, pv, , , c, l)",
)


def _check_block(graph: Graph) -> None:
    found = {region.role: region for region in Analysis(graph).regions}
    assert {"norm", "qkv", "attention", "o"} <= found.keys()
    assert found["qkv"].nodes == ("q", "k", "v")
    roles = {site.operand: site.role for site in found["attention"].sites}
    assert roles | {"in0": "q", "in1": "k_cache", "in2": "v_cache"} == roles


def test_multi_head_attention_stands_between_its_projections(graph: Make) -> None:
    _check_block(graph(MULTI_HEAD))


def test_grouped_attention_stands_between_its_projections(graph: Make) -> None:
    _check_block(graph(GROUPED))
