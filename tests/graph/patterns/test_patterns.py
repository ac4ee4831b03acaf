"""Structures that exporters write in many ways: attention, norms, gates, rotation."""

from __future__ import annotations

import pytest

from dse.graph.patterns.analysis import Analysis
from dse.graph.patterns.attention import attentions, source
from dse.graph.patterns.flow import flow_of
from dse.graph.patterns.norm import norms
from dse.graph.patterns.pointwise import pointwise

HEAD = "g (float[b, 4, s, 8] q, float[b, 4, t, 8] k, float[b, 4, t, 8] v"
ATTENTIONS = {
    "scaled scores, mask, dropout": HEAD + """, float[s, t] mask) => (y) <float root = {2.8}> {
        kt = Transpose <perm = [0, 1, 3, 2]> (k)
        a = MatMul(q, kt)
        scaled = Div(a, root)
        masked = Add(scaled, mask)
        p = Softmax <axis = -1> (masked)
        d = Dropout(p)
        y = MatMul(d, v)
    }""",
    "boolean mask and rows of NaN": HEAD + """, bool[s, t] keep) => (y)
    <float low = {-1e9}, float zero = {0}> {
        kt = Transpose <perm = [0, 1, 3, 2]> (k)
        a = MatMul(q, kt)
        masked = Where(keep, a, low)
        p = Softmax <axis = -1> (masked)
        bad = IsNaN(p)
        clean = Where(bad, zero, p)
        y = MatMul(clean, v)
    }""",
    "softmax written out": HEAD + """) => (y) <int64[1] last = {-1}> {
        kt = Transpose <perm = [0, 1, 3, 2]> (k)
        a = MatMul(q, kt)
        top = ReduceMax <axes = [-1]> (a)
        shifted = Sub(a, top)
        e = Exp(shifted)
        total = ReduceSum(e, last)
        p = Div(e, total)
        y = MatMul(p, v)
    }""",
    "einsum": HEAD + """) => (y) {
        a = Einsum <equation = "bhsd,bhtd->bhst"> (q, k)
        p = Softmax <axis = -1> (a)
        y = Einsum <equation = "bhst,bhtd->bhsd"> (p, v)
    }""",
    "capped scores in float16": HEAD + """) => (y) <float cap = {50}> {
        kt = Transpose <perm = [0, 1, 3, 2]> (k)
        a = MatMul(q, kt)
        b = Div(a, cap)
        c = Tanh(b)
        d = Mul(c, cap)
        half = Cast <to = 10> (d)
        p = Softmax <axis = -1> (half)
        wide = Cast <to = 1> (p)
        y = MatMul(wide, v)
    }""",
}  # fmt: skip


@pytest.mark.parametrize("text", ATTENTIONS.values(), ids=ATTENTIONS)
def test_attention_is_one_region_however_it_is_written(graph, text):
    found = [region for region in Analysis(graph(text)).regions if region.kind != "other"]
    assert [(region.name, region.kind) for region in found] == [
        ("blocks.0/attention", "attention")
    ]


def test_repeated_heads_belong_to_the_attention(graph):
    flow = flow_of(
        graph("""
        g (float[b, 4, s, 8] q, float[b, 2, t, 8] k, float[b, 4, t, 8] v, int64[5] five,
           int64[4] four) => (y) {
            two = Constant <value_ints = [2]> ()
            wide = Unsqueeze(k, two)
            copies = Expand(wide, five)
            heads = Reshape(copies, four)
            kt = Transpose <perm = [0, 1, 3, 2]> (heads)
            a = MatMul(q, kt)
            p = Softmax <axis = -1> (a)
            y = MatMul(p, v)
        }""")
    )
    (attention,) = attentions(flow)
    assert source(flow, attention, attention.k) == "k"
    assert {"Unsqueeze_1", "Expand_2", "Reshape_3", "Transpose_4"} <= attention.nodes


def test_products_without_a_softmax_are_no_attention(graph):
    g = graph("g (float[b, s, 8] q, float[b, 8, t] k, float[b, t, 8] v) => (y) "
              "{ a = MatMul(q, k) r = Relu(a) y = MatMul(r, v) }")  # fmt: skip
    assert [region.kind for region in Analysis(g).regions] == ["bmm", "bmm"]


RMS = "g (float[n, 4] x) => (y) <float two = {2}, float eps = {1e-5}, float one = {1}, " \
      "float half = {-0.5}, float[4] w = {1, 1, 1, 1}, float[4] c = {0, 0, 0, 0}> "  # fmt: skip
NORMS = {
    "rmsnorm by reciprocal": ("rmsnorm", RMS + """{
        s = Pow(x, two) m = ReduceMean <axes = [-1]> (s) e = Add(m, eps) r = Sqrt(e)
        i = Reciprocal(r) h = Mul(x, i) y = Mul(h, w) }"""),
    "rmsnorm by division": ("rmsnorm", RMS + """{
        s = Mul(x, x) m = ReduceMean <axes = [-1]> (s) e = Add(m, eps) r = Sqrt(e)
        h = Div(x, r) y = Mul(w, h) }"""),
    "rmsnorm by one over": ("rmsnorm", RMS + """{
        s = Pow(x, two) m = ReduceMean <axes = [-1]> (s) e = Add(m, eps) r = Sqrt(e)
        i = Div(one, r) h = Mul(x, i) y = Mul(h, w) }"""),
    "rmsnorm by a power": ("rmsnorm", RMS + """{
        s = Pow(x, two) m = ReduceMean <axes = [-1]> (s) e = Add(m, eps) i = Pow(e, half)
        h = Mul(x, i) y = Mul(h, w) }"""),
    "rmsnorm in float32": ("rmsnorm", RMS.replace("float[n, 4] x", "float16[n, 4] x16")
        .replace("float[4] w", "float16[4] w") + """{
        x = Cast <to = 1> (x16)
        s = Pow(x, two) m = ReduceMean <axes = [-1]> (s) e = Add(m, eps) r = Sqrt(e)
        i = Reciprocal(r) h = Mul(x, i) h16 = Cast <to = 10> (h) y = Mul(w, h16) }"""),
    "layer norm": ("layernorm", RMS + """{
        a = ReduceMean <axes = [-1]> (x) d = Sub(x, a)
        s = Pow(d, two) m = ReduceMean <axes = [-1]> (s) e = Add(m, eps) r = Sqrt(e)
        h = Div(d, r) g = Mul(h, w) y = Add(g, c) }"""),
    "layer norm without gain": ("layernorm", RMS + """{
        a = ReduceMean <axes = [-1]> (x) d = Sub(x, a)
        s = Mul(d, d) m = ReduceMean <axes = [-1]> (s) e = Add(m, eps) r = Sqrt(e)
        y = Div(d, r) }"""),
    "one operator": ("layernorm", RMS + "{ y = LayerNormalization(x, w, c) }"),
}  # fmt: skip


@pytest.mark.parametrize(("kind", "text"), NORMS.values(), ids=NORMS)
def test_a_norm_is_one_region_however_it_is_written(graph, kind, text):
    g = graph(text)
    (norm,) = norms(flow_of(g))
    assert norm.kind == kind
    assert norm.output == "y"
    assert len(norm.nodes) == len(g.nodes)


def test_the_variance_alone_is_no_norm(graph):
    text = RMS + "{ s = Pow(x, two) m = ReduceMean <axes = [-1]> (s) e = Add(m, eps) y = Sqrt(e) }"
    assert norms(flow_of(graph(text))) == ()


UNARY = "g (float[n, 4] x) => (y) <float one = {1}, float half = {0.5}, float c = {0.044715}, " \
        "float k = {0.8}, float three = {3}, float root = {1.4}, float q = {1.702}> "  # fmt: skip
ACTIVATIONS = {
    "silu": (["silu"], UNARY + "{ s = Sigmoid(x) y = Mul(x, s) }"),
    "quick gelu": (["silu"], UNARY + "{ z = Mul(x, q) s = Sigmoid(z) y = Mul(x, s) }"),
    "gelu by erf": (["gelu"], UNARY + """{
        d = Div(x, root) e = Erf(d) a = Add(e, one) m = Mul(x, a) y = Mul(m, half) }"""),
    "gelu by tanh": (["gelu"], UNARY + """{
        h = Mul(x, half) p = Pow(x, three) u = Mul(p, c) a = Add(x, u) z = Mul(a, k) t = Tanh(z)
        o = Add(t, one) y = Mul(h, o) }"""),
    "tanh alone": (["tanh"], UNARY + "{ y = Tanh(x) }"),
    "relu after a number": (["mul", "relu"], UNARY + "{ z = Mul(x, half) y = Relu(z) }"),
}  # fmt: skip


@pytest.mark.parametrize(("details", "text"), ACTIVATIONS.values(), ids=ACTIVATIONS)
def test_a_written_out_activation_is_one_operation(graph, details, text):
    flow = flow_of(graph(text))
    assert [group.detail for group in pointwise(flow, flow.nodes)] == details


def test_gate_times_up_is_not_part_of_the_activation(graph):
    flow = flow_of(
        graph("""
        g (float[n, 4] gate, float[n, 4] up) => (y) {
            s = Sigmoid(gate) a = Mul(gate, s) y = Mul(a, up)
        }""")
    )
    assert [group.detail for group in pointwise(flow, flow.nodes)] == ["silu", "mul"]


WEIGHTS = "float[4, 4] w1 = {0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0}, " \
          "float[4, 4] w2 = {0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0}, " \
          "float[4, 4] w3 = {0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0}"  # fmt: skip
ROLES = {
    "gate and up": (["gate_up", "down"], """{
        a = MatMul(x, w1) b = MatMul(x, w2) s = Sigmoid(a) g = Mul(a, s) h = Mul(g, b)
        o = MatMul(h, w3) y = Add(o, x) }"""),
    "silu between two products is not a gate": (["fc1", "fc2"], """{
        a = MatMul(x, w1) s = Sigmoid(a) h = Mul(a, s) o = MatMul(h, w2) y = Add(o, x) }"""),
    "fused gate and up": (["gate_up", "down"], """{
        a = MatMul(x, w1) l, r = Split <axis = -1> (a) s = Gelu2(l) h = Mul(s, r)
        t = Concat <axis = -1> (h, h) o = MatMul(h, w4) y = Add(o, x) }"""),
    "three products and a head": (["fc1", "fc2", "head"], """{
        a = MatMul(x, w1) b = Relu(a) c = MatMul(b, w2) d = Relu(c) y = MatMul(d, w3) }"""),
    "two products of one input that are not multiplied": (["linear", "linear", "head"], """{
        a = MatMul(x, w1) b = MatMul(x, w2) c = Add(a, b) y = MatMul(c, w3) }"""),
}  # fmt: skip


@pytest.mark.parametrize(("roles", "body"), ROLES.values(), ids=ROLES)
def test_projections_are_known_by_where_they_lead(graph, roles, body):
    body = body.replace("Gelu2", "Sigmoid").replace("t = Concat <axis = -1> (h, h) ", "")
    weights = WEIGHTS + ", float[2, 4] w4 = {0,0,0,0,0,0,0,0}"
    found = Analysis(graph(f"g (float[n, 4] x) => (y) <{weights}> {body}")).regions
    assert [region.role for region in found] == roles


def test_projections_of_attention_group_by_their_input(graph):
    weights = ", ".join(f"float[4, 4] {n} = {{{','.join('0' * 16)}}}" for n in ("a", "b", "c"))
    found = Analysis(
        graph(f"""
        g (float[n, s, 4] x, float[n, t, 4] memory) => (y) <{weights}> {{
            q = MatMul(x, a)
            k = MatMul(memory, b)
            v = MatMul(memory, c)
            kt = Transpose <perm = [0, 2, 1]> (k)
            e = MatMul(q, kt)
            p = Softmax <axis = -1> (e)
            y = MatMul(p, v)
        }}""")
    ).regions
    assert [(region.role, len(region.sites)) for region in found] == [
        ("q", 3), ("kv", 6), ("attention", 6),
    ]  # fmt: skip


def test_an_epilogue_never_makes_regions_wait_for_each_other(graph):
    """Squeeze and excitation: the product reads the convolution and what the gate makes of it."""
    kernel = "float[2, 2, 1, 1] k = {1, 0, 0, 1}"
    found = Analysis(
        graph(f"""
        g (float[n, 2, h, w] x) => (y) <{kernel}> {{
            a = Conv(x, k)
            b = Relu(a)
            m = GlobalAveragePool(b)
            c = Conv(m, k)
            s = Sigmoid(c)
            g = Mul(b, s)
            y = Conv(g, k)
        }}""")
    ).regions
    assert [region.kind for region in found] == [
        "conv2d",
        "pool",
        "conv2d",
        "elementwise",
        "conv2d",
    ]
    assert found[3].nodes == ("Mul_5",)


def test_batch_norm_folds_into_the_convolution_before_it_only(graph):
    kernel = "float[2, 2, 1, 1] k = {1, 0, 0, 1}, float[2] w = {1, 1}"
    found = Analysis(
        graph(f"""
        g (float[n, 2, h, w] x) => (y) <{kernel}> {{
            a = Conv(x, k)
            b = BatchNormalization(a, w, w, w, w)
            c = MaxPool <kernel_shape = [2, 2]> (b)
            y = BatchNormalization(c, w, w, w, w)
        }}""")
    ).regions
    assert [(region.kind, len(region.nodes)) for region in found] == [
        ("conv2d", 2), ("pool", 1), ("elementwise", 1),
    ]  # fmt: skip
