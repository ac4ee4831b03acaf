"""Sites: which operands, with which role, summed over which axes."""

from __future__ import annotations

import pytest

from dse.errors import GraphError
from dse.graph.patterns.analysis import Analysis

ATTENTION = """
    g (float[b, 4, s, 8] q, float[b, 4, t, 8] k, float[b, 4, t, 8] v) => (y) {
        kt = Transpose <perm = [0, 1, 3, 2]> (k)
        scores = MatMul(q, kt)
        p = Softmax <axis = -1> (scores)
        y = MatMul(p, v)
    }"""


def axes(graph) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Role and contraction axes by site."""
    return {site.key: (site.role, site.contraction_axes) for site in Analysis(graph).sites}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("g (float[n, s, 4] x) => (y) <float[4, 2] w = {0,0,0,0,0,0,0,0}> { y = MatMul(x, w) }",
         {"MatMul_0/in0": ("activation", (2,)), "MatMul_0/in1": ("weight", (0,)),
          "MatMul_0/out0": ("output", ())}),
        ("""g (float[n, 4] x) => (y) <float[2, 4] w = {0,0,0,0,0,0,0,0}, float[2] c = {0,0}>
            { y = Gemm <transB = 1> (x, w, c) }""",
         {"Gemm_0/in0": ("activation", (1,)), "Gemm_0/in1": ("weight", (1,)),
          "Gemm_0/in2": ("bias", ()), "Gemm_0/out0": ("output", ())}),
        ("g (float[4, n] x) => (y) <float[4, 2] w = {0,0,0,0,0,0,0,0}> "
         "{ y = Gemm <transA = 1> (x, w) }",
         {"Gemm_0/in0": ("activation", (0,)), "Gemm_0/in1": ("weight", (0,)),
          "Gemm_0/out0": ("output", ())}),
        ("""g (float[n, 2, h, w] x) => (y) <float[1, 2, 1, 1] k = {1, 1}, float[1] c = {0}>
            { y = Conv(x, k, c) }""",
         {"Conv_0/in0": ("activation", (1,)), "Conv_0/in1": ("weight", (1, 2, 3)),
          "Conv_0/in2": ("bias", ()), "Conv_0/out0": ("output", ())}),
        ("g (float[n, 2, h, w] x) => (y) <float[2, 1, 1, 1] k = {1, 1}> "
         "{ y = ConvTranspose(x, k) }",
         {"ConvTranspose_0/in0": ("activation", (1,)),
          "ConvTranspose_0/in1": ("weight", (0, 2, 3)), "ConvTranspose_0/out0": ("output", ())}),
        ("""g (float[n, s, 2, 3] x) => (y) <float[2, 3, 1] w = {0,0,0,0,0,0}>
            { y = Einsum <equation = "nshd,hdm->nsm"> (x, w) }""",
         {"Einsum_0/in0": ("activation", (2, 3)), "Einsum_0/in1": ("weight", (0, 1)),
          "Einsum_0/out0": ("output", ())}),
        (ATTENTION,
         {"MatMul_1/in0": ("q", (3,)), "MatMul_1/in1": ("k_cache", (2,)),
          "MatMul_1/out0": ("output", ()), "MatMul_3/in0": ("probabilities", (3,)),
          "MatMul_3/in1": ("v_cache", (2,)), "MatMul_3/out0": ("output", ())}),
        ("""<ir_version: 11, opset_import: ["" : 23]>
            g (float[b, s, 32] q, float[b, t, 16] k, float[b, t, 16] v) => (y)
            { y = Attention <q_num_heads = 4, kv_num_heads = 2> (q, k, v) }""",
         {"Attention_0/in0": ("q", (2,)), "Attention_0/in1": ("k_cache", (2,)),
          "Attention_0/in2": ("v_cache", (1,)), "Attention_0/out0": ("output", ())}),
    ],
    ids=["matmul", "gemm transB", "gemm transA", "conv", "conv transpose", "einsum", "attention",
         "fused attention"],
)  # fmt: skip
def test_contracting_nodes_have_their_operands_as_sites(graph, text, expected):
    assert axes(graph(text)) == expected


def test_a_weight_behind_identity_transpose_and_cast_is_a_weight(graph):
    g = graph("""
        g (float[n, 4] x) => (y) <float16[2, 4] w = {0, 0, 0, 0, 0, 0, 0, 0}> {
            a = Identity(w)
            b = Transpose <perm = [1, 0]> (a)
            c = Cast <to = 1> (b)
            y = MatMul(x, c)
        }""")
    (site,) = (site for site in Analysis(g).sites if site.role == "weight")
    assert (site.key, site.value, site.contraction_axes) == ("MatMul_3/in1", "c", (0,))


def test_weights_of_a_quantised_model_are_weights(graph):
    g = graph("""
        g (float[n, 4] x) => (y)
        <int8[4, 2] w = {1, 2, 3, 4, 5, 6, 7, 8}, float s = {0.1}, int8 z = {0}> {
            q = QuantizeLinear(x, s, z)
            d = DequantizeLinear(q, s, z)
            v = DequantizeLinear(w, s, z)
            y = MatMul(d, v)
        }""")
    assert axes(g)["MatMul_3/in1"] == ("weight", (0,))
    assert axes(g)["MatMul_3/in0"] == ("activation", (1,))


def test_other_sites_are_the_float_operands_of_the_rest(graph):
    g = graph("""
        g (float[n, 4] x, int64[1] i) => (y)
        <float[4, 4] w = {1,0,0,0,0,1,0,0,0,0,1,0,0,0,0,1}, float[4] c = {0, 0, 0, 0}> {
            a = MatMul(x, w)
            y = Add(a, c)
        }""")
    found = [(site.key, site.role, site.contraction_axes) for site in Analysis(g).other_sites]
    assert found == [
        ("Add_1/in0", "activation", ()),
        ("Add_1/in1", "weight", ()),
        ("Add_1/out0", "output", ()),
    ]


def test_an_operand_of_unknown_rank_is_an_error(graph):
    g = graph("""
        <ir_version: 8, opset_import: ["" : 17, "com.example" : 1]>
        g (float[n, 4] x) => (y) <float[4, 2] w = {0,0,0,0,0,0,0,0}> {
            a = com.example.Mystery(x)
            b = Add(a, x)
            y = MatMul(b, w)
        }""")
    with pytest.raises(
        GraphError, match=r"node MatMul_2 \(MatMul\): the shape of input 0 \('b'\)"
    ):
        _ = Analysis(g).sites
