"""Mixtures of experts: their regions, roles and sizes, however the experts are written."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from dse.graph.ir.graph import Graph
from dse.graph.lower.work import lower
from dse.graph.onnx.load import load
from dse.graph.onnx.shapes import bound_types
from dse.graph.patterns.analysis import Analysis
from hwmodels.work.work import RegionWork

EXPERTS, TOPK, HIDDEN, INNER = 3, 2, 4, 6


def zeros(count: int) -> str:
    """A constant's elements."""
    return "{" + ",".join("0" * count) + "}"


def weight(name: str, *shape: int) -> str:
    """A float constant."""
    count = 1
    for size in shape:
        count *= size
    return f"float[{','.join(map(str, shape))}] {name} = {zeros(count)}"


ROUTER = """
    scores = MatMul(x, r)
    share = Softmax <axis = -1> (scores)
    best, index = TopK <axis = -1> (share, two)"""
COMMON = ["int64[1] two = {2}", weight("r", HIDDEN, EXPERTS)]
STACKS = [
    weight("up", EXPERTS, HIDDEN, 2 * INNER),
    weight("down", EXPERTS, INNER, HIDDEN),
    "int64[2] halves = {6, 6}",
]
ACTIVE = """
    gate, plain = Split <axis = -1> (both, halves)
    soft = Sigmoid(gate)
    act = Mul(gate, soft)
    inner = Mul(act, plain)"""
MATMULS = f"""
    zero = Sub(share, share)
    kept = ScatterElements <axis = 1> (zero, index, best)
    both = MatMul(x, up) {ACTIVE}
    out = MatMul(inner, down)
    turned = Transpose <perm = [1, 0]> (kept)
    factor = Unsqueeze(turned, last)
    weighted = Mul(out, factor)
    y = ReduceSum <keepdims = 0> (weighted, first)"""
EINSUMS = f"""
    zero = Sub(share, share)
    kept = ScatterElements <axis = 1> (zero, index, best)
    both = Einsum <equation = "tk,ekn->ten"> (x, up) {ACTIVE}
    out = Einsum <equation = "ten,enk->tek"> (inner, down)
    factor = Unsqueeze(kept, last)
    weighted = Mul(out, factor)
    y = ReduceSum <keepdims = 0> (weighted, middle)"""
SCALED = f"""
    zero = Sub(share, share)
    kept = ScatterElements <axis = 1> (zero, index, best)
    turned = Transpose <perm = [1, 0]> (kept)
    column = Reshape(turned, upright)
    repeated = Tile(x, times)
    scaled = Mul(repeated, column)
    apart = Reshape(scaled, stacks)
    both = MatMul(apart, up) {ACTIVE}
    out = MatMul(inner, down)
    y = ReduceSum <keepdims = 0> (out, first)"""
GATHERED = f"""
    three = Unsqueeze(x, middle)
    twice = Expand(three, repeats)
    flat = Reshape(twice, rows)
    numbers = Reshape(index, all)
    matrices = Gather <axis = 0> (up, numbers)
    row = Unsqueeze(flat, middle)
    product = MatMul(row, matrices)
    both = Squeeze(product, middle) {ACTIVE}
    matrices2 = Gather <axis = 0> (down, numbers)
    row2 = Unsqueeze(inner, middle)
    product2 = MatMul(row2, matrices2)
    out = Squeeze(product2, middle)
    apart = Reshape(out, tokens)
    y = ReduceSum <keepdims = 0> (apart, middle)"""
AXES = [
    "int64[1] last = {2}", "int64[1] first = {0}", "int64[1] middle = {1}",
    "int64[3] repeats = {1, 2, 1}", "int64[2] rows = {-1, 4}", "int64[1] all = {-1}",
    "int64[3] tokens = {-1, 2, 4}", "int64[2] upright = {-1, 1}", "int64[2] times = {3, 1}",
    "int64[3] stacks = {3, -1, 4}",
]  # fmt: skip
STACKED = {"matmul": MATMULS, "einsum": EINSUMS, "scaled": SCALED, "gathered": GATHERED}


def looped(experts: int = EXPERTS) -> tuple[list[str], str]:
    """Constants and nodes of a loop over experts, unrolled."""
    constants, nodes, total = [], [], "x"
    for e in range(experts):
        constants += [
            f"int64 number{e} = {{{e}}}",
            weight(f"g{e}", HIDDEN, INNER),
            weight(f"u{e}", HIDDEN, INNER),
            weight(f"d{e}", INNER, HIDDEN),
        ]
        nodes.append(f"""
            hit{e} = Equal(index, number{e})
            found{e} = NonZero(hit{e})
            where{e} = Gather <axis = 0> (found{e}, zero)
            rows{e} = Gather <axis = 0> (x, where{e})
            gate{e} = MatMul(rows{e}, g{e})
            soft{e} = Sigmoid(gate{e})
            act{e} = Mul(gate{e}, soft{e})
            up{e} = MatMul(rows{e}, u{e})
            inner{e} = Mul(act{e}, up{e})
            out{e} = MatMul(inner{e}, d{e})
            at{e} = Unsqueeze(where{e}, middle)
            sum{e} = ScatterND <reduction = "add"> ({total}, at{e}, out{e})""")
        total = f"sum{e}"
    body = "".join(nodes) + f"\n y = Identity({total})"
    return [*constants, "int64 zero = {0}", "int64[1] middle = {1}"], body


def unrolled(experts: int = EXPERTS) -> tuple[list[str], str]:
    """Constants and nodes of all experts on all tokens, weighted by columns of a mask."""
    constants, nodes, total = [], [], "none"
    for e in range(experts):
        constants += [
            f"int64[1] start{e} = {{{e}}}",
            f"int64[1] end{e} = {{{e + 1}}}",
            weight(f"g{e}", HIDDEN, INNER),
            weight(f"u{e}", HIDDEN, INNER),
            weight(f"d{e}", INNER, HIDDEN),
        ]
        nodes.append(f"""
            gate{e} = MatMul(x, g{e})
            soft{e} = Sigmoid(gate{e})
            act{e} = Mul(gate{e}, soft{e})
            up{e} = MatMul(x, u{e})
            inner{e} = Mul(act{e}, up{e})
            out{e} = MatMul(inner{e}, d{e})
            share{e} = Slice(kept, start{e}, end{e}, one)
            part{e} = Mul(out{e}, share{e})
            sum{e} = Add({total}, part{e})""")
        total = f"sum{e}"
    mask = "zero = Sub(share, share) kept = ScatterElements <axis = 1> (zero, index, best)"
    body = f"{mask} none = Mul(x, nothing) {''.join(nodes)}\n y = Identity({total})"
    return [*constants, "float nothing = {0}", "int64[1] one = {1}"], body


def text(constants: list[str], body: str) -> str:
    """A mixture of experts of t tokens as ONNX text."""
    return f"g (float[t, {HIDDEN}] x) => (y) <{', '.join(constants)}> {{ {body} }}"


def mixture(name: str) -> str:
    """One of the ways to write the same mixture."""
    if name in SINGLE:
        constants, body = looped() if name == "loop" else unrolled()
        return text([*COMMON, *constants], ROUTER + body)
    return text([*COMMON, *STACKS, *AXES], ROUTER + STACKED[name])


def by_role(g: Graph, **dims: int) -> dict[str, RegionWork]:
    """Work by role."""
    return {region.role: region for region in lower(Analysis(g), dims).regions}


SINGLE = ("loop", "masked")
FORMS = (*STACKED, *SINGLE)


@pytest.mark.parametrize("form", FORMS)
def test_all_experts_of_a_layer_are_one_region_of_each_role(graph, form):
    found = Analysis(graph(mixture(form))).regions
    grouped = [region.role for region in found if region.kind == "grouped_gemm"]
    assert grouped == ["experts_gate_up", "experts_down"]
    assert [region.role for region in found if region.kind == "gemm"] == ["router"]
    assert not [region for region in found if region.kind == "bmm"]


@pytest.mark.parametrize("form", FORMS)
def test_only_the_chosen_rows_are_multiplied(graph, form):
    work = by_role(graph(mixture(form)), t=9)
    assert work["experts_gate_up"].macs == 9 * TOPK * HIDDEN * 2 * INNER
    assert work["experts_down"].macs == 9 * TOPK * INNER * HIDDEN
    assert work["router"].macs == 9 * HIDDEN * EXPERTS


@pytest.mark.parametrize("form", FORMS)
def test_sizes_are_those_of_the_layer(graph, form):
    work = by_role(graph(mixture(form)), t=9)
    (down,) = (op for op in work["experts_down"].ops if op.kind == "grouped_gemm")
    sizes = {"E": EXPERTS, "M": 9 * TOPK, "K": INNER, "N": HIDDEN, "topk": TOPK}
    assert dict(down.sizes) == sizes
    ups = [op for op in work["experts_gate_up"].ops if op.kind == "grouped_gemm"]
    width = INNER if form in SINGLE else 2 * INNER
    assert [dict(op.sizes) for op in ups] == [
        {"E": EXPERTS, "M": 9 * TOPK, "K": HIDDEN, "N": width, "topk": TOPK}
    ] * (2 * INNER // width)


@pytest.mark.parametrize("form", FORMS)
def test_weights_of_all_experts_and_each_token_are_read_once(graph, form):
    region = by_role(graph(mixture(form)), t=9)["experts_gate_up"]
    weights = [operand for operand in region.reads if operand.is_weight]
    assert sum(operand.elements for operand in weights) == EXPERTS * HIDDEN * 2 * INNER
    assert [o.shape for o in region.reads if o.name == "input"] == [(9, HIDDEN)]
    assert sum(operand.elements for operand in region.writes) == 9 * TOPK * INNER


@pytest.mark.parametrize("form", FORMS)
def test_experts_have_sites_of_weights(graph, form):
    found = {region.role: region for region in Analysis(graph(mixture(form))).regions}
    count = EXPERTS if form in SINGLE else 1
    for role, products in (("experts_gate_up", 2 if form in SINGLE else 1), ("experts_down", 1)):
        sites = [site for site in found[role].sites if site.role == "weight"]
        assert len(sites) == products * count
        assert all(len(site.contraction_axes) == 1 for site in sites)


class Expert(nn.Module):
    """A gated feed-forward network."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.up = nn.Linear(HIDDEN, INNER), nn.Linear(HIDDEN, INNER)
        self.down = nn.Linear(INNER, HIDDEN)

    def forward(self, x: Tensor) -> Tensor:
        """(..., hidden)."""
        return self.down(functional.silu(self.gate(x)) * self.up(x))


class Mixture(nn.Module):
    """A Qwen-like block: normalised choices, and an expert for all with a gate of its own."""

    def __init__(self, mask: str) -> None:
        super().__init__()
        self.mask = mask
        self.router = nn.Linear(HIDDEN, EXPERTS)
        self.experts = nn.ModuleList(Expert() for _ in range(EXPERTS))
        self.shared, self.share = Expert(), nn.Linear(HIDDEN, 1)
        self.last = nn.Linear(HIDDEN, 7)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, tokens, hidden)."""
        scores = functional.softmax(self.router(x), -1)
        best, index = torch.topk(scores, TOPK, -1)
        best = best / best.sum(-1, keepdim=True)
        if self.mask == "scatter":
            kept = torch.zeros_like(scores).scatter(-1, index, best)
        else:
            kept = (functional.one_hot(index, EXPERTS).float() * best.unsqueeze(-1)).sum(-2)
        if self.mask == "stack":
            out = torch.stack([expert(x) for expert in self.experts], -2)
            y = (out * kept.unsqueeze(-1)).sum(-2)
        else:
            y = sum(e(x) * kept[..., i : i + 1] for i, e in enumerate(self.experts))
        x = x + y + self.shared(x) * torch.sigmoid(self.share(x))
        return self.last(x * torch.rsqrt((x * x).mean(-1, keepdim=True) + 1e-6))


@pytest.mark.parametrize("mask", ["scatter", "one_hot", "stack"])
@pytest.mark.parametrize("dynamo", [False, True])
def test_exported_experts_are_grouped_and_the_shared_one_is_not(mask, dynamo, tmp_path):
    path = tmp_path / "m.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            Mixture(mask).eval(), (torch.randn(2, 5, HIDDEN),), path, dynamo=dynamo, verbose=False
        )
    work = by_role(load(path))
    grouped = {role for role, region in work.items() if region.kind == "grouped_gemm"}
    assert grouped == {"experts_gate_up", "experts_down"}
    assert work["experts_gate_up"].macs == 10 * TOPK * HIDDEN * 2 * INNER
    assert work["experts_down"].macs == 10 * TOPK * INNER * HIDDEN
    assert work["gate_up"].macs == 10 * HIDDEN * 2 * INNER
    assert work["down"].macs == 10 * INNER * HIDDEN
    assert "router" in work


def test_a_mask_that_no_router_made_marks_no_experts(graph):
    """A product times a gate of its own is a gated network."""
    constants = [weight("g", HIDDEN, INNER), weight("d", INNER, HIDDEN), weight("s", HIDDEN, 1)]
    body = """
        gate = MatMul(x, g)
        out = MatMul(gate, d)
        score = MatMul(x, s)
        share = Sigmoid(score)
        y = Mul(out, share)"""
    found = Analysis(graph(text(constants, body))).regions
    assert {region.kind for region in found} == {"gemm"}


def test_stacks_without_a_router_are_taken_by_every_token(graph):
    body = f"both = MatMul(x, up) {ACTIVE} out = MatMul(inner, down)"
    body += " y = ReduceMean <axes = [0], keepdims = 0> (out)"
    work = by_role(graph(text(STACKS, body)), t=9)
    sizes = {"E": EXPERTS, "M": 9 * EXPERTS, "K": INNER, "N": HIDDEN, "topk": EXPERTS}
    assert dict(work["experts_down"].ops[0].sizes) == sizes


def test_one_stacked_product_alone_is_no_mixture(graph):
    found = Analysis(graph(text(STACKS[:1], "y = MatMul(x, up)"))).regions
    assert [region.kind for region in found] == ["gemm"]


def test_rows_of_an_expert_are_bound_to_their_mean(graph):
    types = bound_types(graph(mixture("loop")), {"t": 10})
    # 10 tokens x 2 choices over 3 experts are 6.67 rows each.
    assert types["rows0"].shape == (7, HIDDEN)


def test_rows_that_no_router_chooses_are_all_there_can_be(graph):
    g = graph(f"g (float[t, {HIDDEN}] x) => (y) {{ y = NonZero(x) }}")
    assert bound_types(g, {"t": 3})["y"].shape == (2, 3 * HIDDEN)
