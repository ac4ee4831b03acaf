"""Work: loop sizes, operands and multiply-accumulates of single nodes and small graphs."""

from __future__ import annotations

import numpy as np
import pytest

from dse.graph.ir.graph import Graph
from dse.graph.lower.loops import macs_by_node
from dse.graph.lower.work import lower
from dse.graph.onnx.dimension import dimensions
from dse.graph.onnx.shapes import bound_types
from dse.graph.patterns.analysis import Analysis
from dse.predict import Usage, predict
from hwmodels.work.work import Op, Work

ZEROS8 = "{0,0,0,0,0,0,0,0}"
LSTM = """
    g (float[t, b, 3] x, float[1, 20, 3] w, float[1, 20, 5] r) => (y)
    { y = LSTM <hidden_size = 5> (x, w, r) }"""
MACS = {
    "matmul": ("g (float[b, s, 4] x, float[4, 2] w) => (y) { y = MatMul(x, w) }", 5 * 7 * 4 * 2),
    "batched": ("g (float[b, s, 4] x, float[b, 4, 2] w) => (y) { y = MatMul(x, w) }", 5 * 7 * 8),
    "broadcast": ("g (float[b, 1, s, 4] x, float[1, 3, 4, 2] w) => (y) { y = MatMul(x, w) }",
                  5 * 3 * 7 * 4 * 2),
    "vector": ("g (float[b, 4] x, float[4] w) => (y) { y = MatMul(x, w) }", 5 * 4),
    "gemm": ("g (float[4, b] x, float[2, 4] w) => (y) { y = Gemm <transA=1, transB=1> (x, w) }",
             5 * 4 * 2),
    "einsum": ("g (float[b, s, 2, 3] x, float[2, 3, 4] w) => (y) "
               "{ y = Einsum <equation = \"bshd,hdm->bsm\"> (x, w) }", 5 * 7 * 6 * 4),
    "einsum of ellipses": ("g (float[b, s, 3] x, float[b, 3, 4] w) => (y) "
                           "{ y = Einsum <equation = \"...ij,...jk->...ik\"> (x, w) }",
                           5 * 7 * 12),
    "grouped conv": ("g (float[b, 4, s, 9] x, float[6, 2, 3, 3] w) => (y) "
                     "{ y = Conv <group = 2, strides = [1, 2]> (x, w) }", 5 * 6 * 5 * 4 * 2 * 9),
    "conv of one axis": ("g (float[b, 4, s] x, float[6, 4, 3] w) => (y) { y = Conv(x, w) }",
                         5 * 6 * 5 * 4 * 3),
    "transposed conv": ("g (float[b, 4, s, 9] x, float[4, 6, 2, 2] w) => (y) "
                        "{ y = ConvTranspose <strides = [2, 2]> (x, w) }", 5 * 4 * 7 * 9 * 6 * 4),
    "lstm": (LSTM.replace("[t, b, 3]", "[s, b, 3]"), 7 * 5 * (3 + 5) * 20),
}  # fmt: skip


def work_of(g: Graph, **dims: int) -> Work:
    """The work of a graph."""
    return lower(Analysis(g), dims)


def sizes_of(g: Graph) -> dict[str, int]:
    """Sizes for the names that a graph has."""
    return {name: {"b": 5, "s": 7}[name] for name in dimensions(g)}


def only(work: Work) -> Op:
    """The one operation of a work."""
    (op,) = (op for region in work.regions for op in region.ops)
    return op


@pytest.mark.parametrize(
    ("node", "expected"),
    [
        ("Conv <strides = [1, 2], dilations = [3, 1]>", {"sh": 1, "sw": 2, "dh": 3, "dw": 1}),
        ("Conv", {"sh": 1, "sw": 1, "dh": 1, "dw": 1}),
        # Its loops run over its input, place by place.
        ("ConvTranspose <strides = [2, 2]>", {"sh": 1, "sw": 1, "dh": 1, "dw": 1}),
    ],
)
def test_a_convolution_keeps_its_strides_and_dilations(graph, node, expected):
    text = "g (float[1, 4, 9, 9] x, float[4, 4, 2, 2] w) => (y) { y = NODE (x, w) }"
    g = graph(text.replace("NODE", node))
    sizes = only(work_of(g)).sizes
    assert {name: sizes[name] for name in expected} == expected


@pytest.mark.parametrize(("text", "expected"), MACS.values(), ids=MACS)
def test_macs_are_those_counted_by_hand(graph, text, expected):
    g = graph(text)
    assert sum(macs_by_node(g, bound_types(g, sizes_of(g))).values()) == expected


@pytest.mark.parametrize("name", [name for name in MACS if name != "lstm"])
def test_operations_have_the_macs_of_their_nodes(graph, name):
    text, expected = MACS[name]
    g = graph(text)
    assert work_of(g, **sizes_of(g)).macs == expected


def test_a_projection_is_a_gemm_whose_rows_are_all_tokens(graph):
    g = graph(f"g (float[b, s, 4] x) => (y) <float[4, 2] w = {ZEROS8}> {{ y = MatMul(x, w) }}")
    op = only(work_of(g, b=5, s=7))
    assert (op.kind, dict(op.sizes)) == ("gemm", {"M": 35, "K": 4, "N": 2})
    assert [(o.name, o.shape, o.contraction_axes, o.is_weight, o.bits) for o in op.operands] == [
        ("input", (5, 7, 4), (2,), False, 16),
        ("weight", (4, 2), (0,), True, 16),
        ("output", (5, 7, 2), (), False, 16),
    ]


def test_floats_count_the_bits_that_are_deployed(graph):
    g = graph(f"g (float[b, 4] x) => (y) <float[4, 2] w = {ZEROS8}> {{ y = MatMul(x, w) }}")
    work = lower(Analysis(g), {"b": 1}, float_bits=32)
    assert {operand.bits for operand in only(work).operands} == {32}


def test_stored_weights_count_as_stored(graph):
    g = graph("""
        g (float[b, 4] x) => (y)
        <int8[2, 4] w = {1, 2, 3, 4, 5, 6, 7, 8}, float s = {0.1}, int8 z = {0}> {
            d = DequantizeLinear(w, s, z)
            t = Transpose <perm = [1, 0]> (d)
            y = MatMul(x, t)
        }""")
    weight = only(work_of(g, b=3)).operand("weight")
    assert weight is not None
    assert (weight.value, weight.shape, weight.bits) == ("w", (4, 2), 8)
    assert weight.bytes == 8 + 4  # and the scale


def test_parts_of_one_constant_are_weights_of_their_own(graph):
    g = graph("""
        g (float[n, 2] x) => (y) <float[2, 4] w = {1, 2, 3, 4, 5, 6, 7, 8}> {
            a, b = Split <axis = 1> (w)
            p = MatMul(x, a) q = MatMul(x, b)
            y = Add(p, q)
        }""")
    usage = Usage(dims={"n": 3})
    (found,) = predict(g, ["h100-sxm"], (), usage=usage)
    assert found.cost.weight_bytes == 2 * 8


def test_a_tied_table_is_one_weight_and_a_lookup_reads_rows(graph):
    g = graph("""
        g (int64[b, s] tokens) => (y) <float[4, 2] w = {0,0,0,0,0,0,0,0}> {
            e = Gather(w, tokens)
            t = Transpose <perm = [1, 0]> (w)
            y = MatMul(e, t)
        }""")
    work = work_of(g, b=2, s=3)
    lookup, head = work.regions
    assert dict(lookup.ops[0].sizes) == {"vocab": 4, "dim": 2, "tokens": 6}
    assert [operand.shape for operand in lookup.reads] == [(2, 3), (6, 2)]
    table, weight = lookup.ops[0].operand("weight"), head.ops[0].operand("weight")
    assert table is not None
    assert weight is not None
    assert (table.value, table.shape) == (weight.value, (4, 2))
    assert weight.shape == (2, 4)


def test_products_of_a_group_come_before_their_epilogues(graph):
    weights = f"float[4, 2] a = {ZEROS8}, float[4, 2] b = {ZEROS8}, float[2] c = {{0, 0}}"
    g = graph(f"""
        g (float[n, 4] x) => (y) <{weights}> {{
            p = MatMul(x, a) q = Add(p, c) s = Sigmoid(q) g = Mul(q, s)
            r = MatMul(x, b) u = Add(r, c) y = Mul(g, u)
        }}""")
    (region,) = work_of(g, n=3).regions
    assert [op.detail or op.kind for op in region.ops] == [
        "gemm", "gemm", "bias", "silu", "bias", "mul",
    ]  # fmt: skip
    assert [operand.value for operand in region.writes] == ["y"]
    assert [operand.value for operand in region.reads] == ["x", "a", "b", "c"]


def test_copies_of_a_value_share_its_name(graph):
    g = graph("""
        g (float[b, s, 4] x) => (y) <float[4, 2] w = {0,0,0,0,0,0,0,0}, int64[2] flat = {-1, 4}> {
            a = Relu(x)
            v = Reshape(a, flat)
            c = Cast <to = 1> (v)
            y = MatMul(c, w)
        }""")
    first, second = work_of(g, b=2, s=3).regions
    assert [operand.value for operand in first.writes] == ["a"]
    assert (second.reads[0].value, second.reads[0].shape) == ("a", (6, 4))


def test_caches_are_operands_of_their_own_and_no_results(graph):
    g = graph("""
        g (float[b, 4, s, 8] q, float[b, 4, s, 8] k, float[b, 4, s, 8] v,
           float[b, 4, p, 8] past_k, float[b, 4, p, 8] past_v) => (y, new_k, new_v) {
            new_k = Concat <axis = 2> (past_k, k)
            new_v = Concat <axis = 2> (past_v, v)
            kt = Transpose <perm = [0, 1, 3, 2]> (new_k)
            a = MatMul(q, kt)
            w = Softmax <axis = -1> (a)
            y = MatMul(w, new_v)
        }""")
    work = work_of(g, b=2, s=1, p=9)
    op = only(work)
    assert dict(op.sizes) == {"B": 2, "H": 4, "HK": 4, "S": 1, "L": 10, "D": 8, "causal": 0}
    caches = [(o.name, o.value, o.shape, o.is_cache) for o in op.operands[1:3]]
    assert caches == [("k", "new_k", (2, 4, 10, 8), True), ("v", "new_v", (2, 4, 10, 8), True)]
    assert work.outputs == ("y",)


@pytest.mark.parametrize(
    ("mask", "causal"),
    [
        ("constant", True),
        ("r = Range(zero, n, one) c = Unsqueeze(r, axis) m = LessOrEqual(r, c)", True),
        ("f = ConstantOfShape(nn) t = Trilu <upper = 0> (f) m = Cast <to = 9> (t)", True),
        ("m = Greater(padding, zero)", False),
    ],
    ids=["constant triangle", "positions compared", "triangle kept", "padding"],
)
def test_a_mask_that_orders_positions_is_causal(graph, mask, causal):
    triangle = ", ".join(map(str, np.tril(np.ones((3, 3), int)).ravel()))
    constants = "int64 zero = {0}, int64 one = {1}, int64 n = {3}, int64[1] axis = {1}, " \
                "int64[2] nn = {3, 3}, float low = {-1e9}"  # fmt: skip
    if mask == "constant":
        mask, constants = "", constants + f", bool[3, 3] m = {{{triangle}}}"
    g = graph(f"""
        g (float[b, 2, 3, 4] q, float[b, 2, 4, 3] k, float[b, 2, 3, 4] v, int64[1, 3] padding)
        => (y) <{constants}> {{
            {mask}
            a = MatMul(q, k) s = Where(m, a, low) p = Softmax <axis = -1> (s) y = MatMul(p, v)
        }}""")
    assert only(work_of(g, b=1)).sizes["causal"] == int(causal)


def test_a_recurrent_layer_is_two_products(graph):
    g = graph("""
        g (float[t, b, 3] x) => (y) <int64[3] of_x = {1, 20, 3}, int64[3] of_h = {1, 20, 5}> {
            w = ConstantOfShape(of_x)
            r = ConstantOfShape(of_h)
            y = LSTM <hidden_size = 5> (x, w, r)
        }""")
    work = work_of(g, t=2, b=3)
    sizes = [dict(op.sizes) for op in work.regions[0].ops]
    assert sizes == [{"M": 6, "K": 3, "N": 20}, {"M": 6, "K": 5, "N": 20}]


def test_row_wise_operations_have_rows_and_columns(graph):
    g = graph("""
        g (float[b, 4, 6] x) => (y) <float[6] w = {1, 1, 1, 1, 1, 1}> {
            n = LayerNormalization <axis = -1> (x, w)
            s = Softmax <axis = -1> (n)
            y = ReduceMean <axes = [2]> (s)
        }""")
    ops = [op for region in work_of(g, b=2).regions for op in region.ops]
    assert [(op.kind, dict(op.sizes)) for op in ops] == [
        ("layernorm", {"rows": 8, "cols": 6}),
        ("softmax", {"rows": 8, "cols": 6}),
        ("reduce", {"rows": 8, "cols": 6}),
    ]
