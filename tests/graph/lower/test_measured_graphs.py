"""Every region of the 50 graphs that were measured on an H100, against their architectures."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import pytest

from dse.graph.lower.loops import macs_by_node
from dse.graph.lower.work import lower
from dse.graph.onnx.load import load
from dse.graph.onnx.shapes import bound_types
from dse.graph.patterns.analysis import Analysis


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """What a network is known to consist of, counted by hand from its definition."""

    gmacs: float
    """Multiply-accumulates of one image or sequence, published (ptflops, torchvision) or closed
    form, in units of 1e9."""
    parameters: float
    """Published, batch norm folded, in millions."""
    roles: dict[str, int] = field(default_factory=dict)
    norms: int = 0
    """Norms of rows; batch norms that nothing folds count in `roles`."""
    blocks: int = 0


def transformer(layers: int, **roles: int) -> dict[str, int]:
    """Roles that occur once a layer, and others."""
    once = dict.fromkeys(("qkv", "attention", "o", "fc1", "fc2"), layers)
    return once | roles


# Published: torchvision's model table (GFLOPS there are multiply-accumulates) and the papers.
ARCHITECTURES = {
    "resnet18": Architecture(gmacs=1.814, parameters=11.69, blocks=8,
                             roles={"conv": 20, "head": 1}),
    "resnet50": Architecture(gmacs=4.089, parameters=25.53, blocks=16,
                             roles={"conv": 53, "head": 1}),
    "vgg16": Architecture(gmacs=15.47, parameters=138.36,
                          roles={"conv": 13, "fc1": 1, "fc2": 1, "head": 1}),
    "mobilenet_v2": Architecture(gmacs=0.3008, parameters=3.50, blocks=10,
                                 roles={"conv": 52, "head": 1}),
    "efficientnet_b0": Architecture(gmacs=0.3858, parameters=5.29, blocks=9,
                                    roles={"conv": 81, "head": 1}),
    "densenet121": Architecture(gmacs=2.834, parameters=7.98, blocks=4,
                                roles={"conv": 120, "head": 1}),
    "convnext_tiny": Architecture(gmacs=4.456, parameters=28.59, blocks=18, norms=23,
                                  roles={"conv": 22, "fc1": 18, "fc2": 18, "head": 1}),
    "vit_b_16": Architecture(gmacs=17.56, parameters=86.57, blocks=12, norms=25,
                             roles=transformer(12, conv=1, head=1)),
    "bert_base": Architecture(gmacs=0, parameters=108.9, blocks=12, norms=25,
                              roles=transformer(12, embedding=1)),
    "gpt2": Architecture(gmacs=0, parameters=124.4, blocks=12, norms=25,
                         roles=transformer(12, embedding=1, head=1)),
}  # fmt: skip

LLAMA_SHAPES = {  # width, heads, key-value heads, head width, feed-forward width
    "llama3_1b": (2048, 32, 8, 64, 8192),
    "llama3_8b": (4096, 32, 8, 128, 14336),
    "llama3_70b_8layers": (8192, 64, 8, 128, 28672),
}
NAMES = [
    *(f"{name}-b{batch}" for batch in (1, 8, 32) for name in list(ARCHITECTURES)[:8]),
    *(f"bert_base-b{b}" for b in ("1-s128", "32-s128", "8-s384")),
    *(f"gpt2-b{b}-s512" for b in (1, 8)),
    *(f"{name}-decode-b{b}-s1-l1024" for name in LLAMA_SHAPES for b in (1, 8, 32, 128)),
    *(
        f"{name}-prefill-{size}"
        for name in LLAMA_SHAPES
        for size in ("b1-s128-l128", "b1-s1024-l1024", "b4-s2048-l2048")
    ),
]


@cache
def parsed(path: Path) -> Analysis:
    """A graph with its findings, once a session."""
    return Analysis(load(path))


def size(name: str, letter: str, default: int) -> int:
    """A number out of a file name: `-b8-s512` has b = 8."""
    match = re.search(rf"-{letter}(\d+)", name)
    return int(match[1]) if match else default


def test_all_graphs_are_listed(measured):
    assert sorted(path.stem for path in measured.iterdir()) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_every_node_is_in_one_region_and_names_are_unique(measured, name):
    analysis = parsed(measured / f"{name}.onnx")
    found = analysis.regions
    nodes = [node for region in found for node in region.nodes]
    assert sorted(nodes) == sorted(analysis.graph.by_name)
    assert len({region.name for region in found}) == len(found)
    assert all(0 <= region.relative_depth <= 1 for region in found)


@pytest.mark.parametrize("name", [name for name in NAMES if not name.startswith("llama")])
def test_regions_are_those_of_the_architecture(measured, name):
    expected = ARCHITECTURES[name.split("-b")[0]]
    found = parsed(measured / f"{name}.onnx").regions
    roles = Counter(region.role for region in found)
    assert {role: roles[role] for role in expected.roles} == expected.roles
    gemms = ("qkv", "o", "fc1", "fc2", "head")
    kinds = Counter(region.kind for region in found)
    assert kinds["gemm"] == sum(expected.roles.get(role, 0) for role in gemms)
    assert kinds["conv2d"] == expected.roles.get("conv", 0)
    assert kinds["layernorm"] + kinds["rmsnorm"] == expected.norms
    assert len({region.block for region in found} - {None}) == expected.blocks


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("llama")])
def test_a_llama_block_is_eight_kernels(measured, name):
    found = parsed(measured / f"{name}.onnx").regions
    assert [region.name for region in found if region.name != "shape"] == [
        f"blocks.0/{role}"
        for role in (
            "norm_1", "qkv", "rotary", "attention", "o", "norm_2", "gate_up", "down",
        )
    ]  # fmt: skip


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("llama")])
def test_llama_work_is_the_closed_form(measured, name):
    analysis = parsed(measured / f"{name}.onnx")
    width, heads, kv_heads, depth, ffn = LLAMA_SHAPES[
        name.split("-decode")[0].split("-prefill")[0]
    ]
    batch, new, total = size(name, "b", 1), size(name, "s", 1), size(name, "l", 1)
    work = {region.name: region for region in lower(analysis, {}).regions}
    attention = work["blocks.0/attention"]
    (op,) = attention.ops
    assert dict(op.sizes) == {
        "B": batch, "H": heads, "HK": kv_heads, "S": new, "L": total, "D": depth,
        "causal": int(new > 1),
    }  # fmt: skip
    cached = new < total
    keys = (batch, kv_heads, total, depth)
    assert [(o.shape, o.is_cache) for o in attention.reads[1:]] == [(keys, cached)] * 2
    weights = {
        "qkv": width * (heads + 2 * kv_heads) * depth,
        "o": heads * depth * width,
        "gate_up": width * 2 * ffn,
        "down": ffn * width,
    }
    for role, elements in weights.items():
        region = work[f"blocks.0/{role}"]
        assert region.macs == batch * new * elements
        assert sum(o.bytes for o in region.reads if o.is_weight) == 2 * elements
    assert op.macs == 2 * batch * heads * new * total * depth


def test_new_keys_and_values_of_a_cache_are_written(measured):
    analysis = parsed(measured / "llama3_8b-decode-b8-s1-l1024.onnx")
    work = {region.name: region for region in lower(analysis, {}).regions}
    new = (8, 8, 1, 128)
    assert new in [operand.shape for operand in work["blocks.0/rotary"].writes]
    assert new in [operand.shape for operand in work["blocks.0/qkv"].writes]


@pytest.mark.parametrize("name", [name for name in NAMES if name.split("-b")[0] in ARCHITECTURES])
def test_macs_and_weights_are_the_published_ones(measured, name):
    expected = ARCHITECTURES[name.split("-b")[0]]
    analysis = parsed(measured / f"{name}.onnx")
    batch, length = size(name, "b", 1), size(name, "s", 1)
    gmacs = expected.gmacs
    if not gmacs:  # 12 layers of width 768: 12 width^2 a token and layer, two products, the head
        vocabulary = 50257 * 768 if name.startswith("gpt2") else 0
        gmacs = length * (12 * (12 * 768**2 + 2 * length * 768) + vocabulary) / 1e9
    work = lower(analysis, {})
    assert work.macs == sum(macs_by_node(analysis.graph, bound_types(analysis.graph, {})).values())
    assert work.macs / 1e9 == pytest.approx(batch * gmacs, rel=1e-3)
    weights = {
        operand.value: operand.bytes
        for region in work.regions
        for op in region.ops
        for operand in op.operands
        if operand.is_weight
    }
    # Initializers that were equal at export time (gains of 1, shifts of 0) are stored once, and
    # batch norm's shifts are folded: a little less than the published count.
    assert sum(weights.values()) / 2e6 == pytest.approx(expected.parameters, rel=0.02)


@pytest.mark.parametrize("name", NAMES)
def test_regions_read_what_others_write(measured, name):
    analysis = parsed(measured / f"{name}.onnx")
    work = lower(analysis, {})
    written = {operand.value for region in work.regions for operand in region.writes}
    inputs = analysis.graph.inputs
    for region in work.regions:
        for operand in region.reads:
            outside = operand.is_weight or operand.is_cache or operand.value in inputs
            assert outside or operand.value in written, (region.name, operand.value)
        assert region.writes, region.name
    assert set(work.outputs) <= written
