"""Which region of a small network stands for a region of a large one."""

from __future__ import annotations

from dataclasses import replace

from dse.graph.ir.site import Region, Site
from dse.graph.patterns.correspond import correspond, correspond_by_name


def region(name: str, role: str, block: int | None, depth: float, kind: str = "gemm") -> Region:
    return Region(
        name=name, kind=kind, role=role, block=block, relative_depth=depth, nodes=(), sites=()
    )


def network(blocks: int, *roles: str) -> tuple[Region, ...]:
    """Blocks of these roles, then a head."""
    inside = [
        region(f"blocks.{b}/{role}", role, b, b / blocks) for b in range(blocks) for role in roles
    ]
    return (*inside, region("head", "head", None, 1.0))


def test_blocks_map_to_the_same_relative_place():
    found = correspond(network(3, "qkv"), network(8, "qkv"))
    assert [found[f"blocks.{j}/qkv"] for j in range(8)] == [
        f"blocks.{j * 3 // 8}/qkv" for j in range(8)
    ]
    assert found["head"] == "head"


def test_more_blocks_map_to_fewer_without_a_gap():
    found = correspond(network(8, "down"), network(3, "down"))
    assert [found[f"blocks.{j}/down"] for j in range(3)] == [
        "blocks.0/down", "blocks.2/down", "blocks.5/down",
    ]  # fmt: skip


def test_roles_without_a_counterpart_map_to_none():
    found = correspond(network(2, "qkv"), network(2, "qkv", "gate_up"))
    assert found["blocks.1/gate_up"] is None


def test_kind_and_role_must_both_agree():
    source = (region("blocks.0/norm_1", "norm", 0, 0, kind="layernorm"),)
    target = (region("blocks.0/norm_1", "norm", 0, 0, kind="rmsnorm"),)
    assert correspond(source, target) == {"blocks.0/norm_1": None}


def test_several_of_one_role_in_a_block_keep_their_order():
    source = [region(f"blocks.0/norm_{i}", "norm", 0, i / 4) for i in (1, 2)]
    target = [region(f"blocks.0/norm_{i}", "norm", 0, i / 4) for i in (1, 2)]
    assert correspond(source, target) == {r.name: r.name for r in target}


def test_outside_of_blocks_the_nearest_depth_decides():
    source = [region(f"conv_{i}", "conv", None, depth) for i, depth in ((1, 0.0), (2, 0.9))]
    target = [region(f"conv_{i}", "conv", None, depth) for i, depth in ((1, 0.1), (2, 0.6))]
    assert correspond(source, target) == {"conv_1": "conv_1", "conv_2": "conv_2"}


def test_every_target_region_has_an_entry_in_order():
    target = network(5, "qkv", "o")
    assert list(correspond(network(2, "qkv"), target)) == [r.name for r in target]


def product(name: str, role: str, node: str) -> Region:
    weight = Site(
        node=node, operand="in1", value=f"{node}.weight", role="weight", shape=(4, 4),
        contraction_axes=(0,),
    )  # fmt: skip
    return replace(region(name, role, 0, 0.0), sites=(weight,))


def test_forms_of_one_network_correspond_by_module():
    source = (product("a/q", "q", "q_proj"), product("a/o", "o", "o_proj"))
    target = (product("b/o", "o", "absorbed"), product("b/linear", "linear", "o_proj"))
    assert correspond_by_name(source, target) == {"b/o": None, "b/linear": "a/o"}
