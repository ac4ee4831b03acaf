"""Low-rank branches beside linear layers."""

from __future__ import annotations

import pytest

from dse.graph.lower.work import lower
from dse.graph.patterns.analysis import Analysis


def weight(name: str, rows: int, cols: int) -> str:
    """A constant matrix."""
    return f"float[{rows},{cols}] {name} = {{{','.join('0' * (rows * cols))}}}"


HIDDEN, INNER, RANK = 4, 6, 2
WEIGHTS = ", ".join([
    weight("g", HIDDEN, INNER), weight("u", HIDDEN, INNER), weight("d", INNER, HIDDEN),
    weight("a", HIDDEN, RANK), weight("b", RANK, INNER), weight("c", INNER, RANK),
    weight("e", RANK, HIDDEN), weight("wide", HIDDEN, INNER), weight("back", INNER, INNER),
    "float half = {0.5}",
])  # fmt: skip


def text(body: str) -> str:
    """A network of t tokens as ONNX text."""
    return f"g (float[t, {HIDDEN}] x) => (y) <{WEIGHTS}> {{ {body} }}"


GATED = """
    gate = MatMul(x, g)
    act = Sigmoid(gate)
    plain = MatMul(x, u)
    few = MatMul(x, a)
    many = MatMul(few, b)
    scaled = Mul(many, half)
    up = Add(plain, scaled)
    inner = Mul(act, up)
    out = MatMul(inner, d)
    few2 = MatMul(inner, c)
    many2 = MatMul(few2, e)
    down = Add(many2, out)
    y = Add(x, down)"""


def test_gate_and_up_are_told_apart_where_each_is_its_own_region(graph):
    found = Analysis(graph(text(GATED)), apart=True).regions
    products = {region.role: region.nodes for region in found if region.kind == "gemm"}
    assert set(products) == {"gate", "up", "down", "lora_a", "lora_b"}
    written = {
        role: next(one for one in found if one.role == role).sites[0].value
        for role in ("gate", "up")
    }
    assert written == {"gate": "x", "up": "x"}
    weights = {one.role: [s.value for s in one.sites if s.role == "weight"] for one in found}
    assert weights["gate"] == ["g"]
    assert weights["up"] == ["u"]


def test_gate_and_up_stay_one_region_beside_their_branches(graph):
    found = Analysis(graph(text(GATED))).regions
    names = {region.role: set(region.nodes) for region in found if region.kind == "gemm"}
    assert set(names) == {"gate_up", "down", "lora_a", "lora_b"}
    assert [region.role for region in found].count("lora_a") == 2
    gate_up = next(region for region in found if region.role == "gate_up")
    assert len([site for site in gate_up.sites if site.role == "weight"]) == 2


def test_a_branch_has_the_work_of_its_rank(graph):
    g = graph(text(GATED))
    macs: dict[str, int] = {}
    for region in lower(Analysis(g), {"t": 5}).regions:
        macs[region.role] = macs.get(region.role, 0) + region.macs
    assert macs["lora_a"] == 5 * (HIDDEN * RANK + INNER * RANK)
    assert macs["lora_b"] == 5 * (RANK * INNER + RANK * HIDDEN)
    assert macs["gate_up"] == 5 * HIDDEN * 2 * INNER


@pytest.mark.parametrize(
    "body",
    [
        "p = MatMul(x, g) n = MatMul(x, wide) w = MatMul(n, back) y = Add(p, w)",
        "p = MatMul(x, g) n = MatMul(x, a) r = Relu(n) w = MatMul(r, b) y = Add(p, w)",
        "n = MatMul(x, a) y = MatMul(n, b)",
    ],
    ids=["full rank", "activation between", "nothing adapted"],
)
def test_other_products_in_a_row_are_no_branch(graph, body):
    roles = {region.role for region in Analysis(graph(text(body))).regions}
    assert not roles & {"lora_a", "lora_b"}


def test_queries_keys_and_values_stay_one_region_beside_a_branch(graph):
    square = ", ".join(weight(name, HIDDEN, HIDDEN) for name in ("wq", "wk", "wv"))
    found = Analysis(
        graph(f"""
        g (float[n, s, {HIDDEN}] x) => (y)
        <{square}, {weight("a", HIDDEN, RANK)}, {weight("b", RANK, HIDDEN)}> {{
            plain = MatMul(x, wq)
            few = MatMul(x, a)
            many = MatMul(few, b)
            q = Add(plain, many)
            k = MatMul(x, wk)
            v = MatMul(x, wv)
            kt = Transpose <perm = [0, 2, 1]> (k)
            scores = MatMul(q, kt)
            p = Softmax <axis = -1> (scores)
            y = MatMul(p, v)
        }}""")
    ).regions
    roles = [region.role for region in found if region.kind == "gemm"]
    assert sorted(roles) == ["lora_a", "lora_b", "qkv"]
    assert {region.block for region in found} == {0}
