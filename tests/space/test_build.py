"""Rules, ties and choices: what a space makes of a model's regions."""

import pytest

from dse.errors import SpaceError
from dse.graph.ir.site import Region, Site
from dse.space.build import build_problem
from dse.space.load import parse_space
from dse.space.problem import Problem

HEAD = """
model: m.onnx
data: {source: d.npz}
targets: [{device: h100-sxm}]
"""


def _site(node: str, operand: str, role: str) -> Site:
    return Site(
        node=node, operand=operand, value=f"{node}.{operand}", role=role, shape=(4, 4),
        contraction_axes=(1,),
    )  # fmt: skip


def _region(name: str, role: str, block: int | None, kind: str = "gemm") -> Region:
    roles: tuple[str, ...] = ("activation", "weight") if kind == "gemm" else ("q", "k_cache")
    sites = tuple(_site(name, f"in{index}", one) for index, one in enumerate(roles))
    return Region(
        name=name, kind=kind, role=role, block=block, relative_depth=0.0, nodes=(name,),
        sites=sites if kind != "rmsnorm" else (),
    )  # fmt: skip


REGIONS = (
    _region("blocks.0/qkv", "qkv", 0),
    _region("blocks.0/attention", "attention", 0, "attention"),
    _region("blocks.0/norm", "norm", 0, "rmsnorm"),
    _region("blocks.1/qkv", "qkv", 1),
    _region("blocks.1/attention", "attention", 1, "attention"),
    _region("head", "head", None),
)


def _problem(candidates: str, ties: str = "[]") -> Problem:
    text = f"{HEAD}candidates: {candidates}\nties: {ties}\n"
    return build_problem(parse_space(text, origin="s.yaml"), REGIONS, origin="s.yaml")


def test_the_first_rule_that_matches_decides() -> None:
    problem = _problem("[{match: {blocks: [-1, -1]}, use: [bf16, w4a4_nvfp4]}, {use: [bf16]}]")
    offered = {v.name: [c.name for c in v.choices] for v in problem.variables}
    assert offered["blocks.0/qkv"] == ["bf16"]
    assert offered["blocks.1/qkv"] == ["bf16", "w4a4_nvfp4"]
    assert "blocks.0/norm" not in offered


def test_a_scheme_leaves_attention_in_16_bits() -> None:
    problem = _problem("[{use: [bf16, w4a4_nvfp4]}]")
    attention = next(v for v in problem.variables if v.kind == "attention")
    assert [choice.name for choice in attention.choices] == ["bf16"]
    uniform = problem.assignment(problem.uniforms["w4a4_nvfp4"]).as_dict()
    assert uniform["blocks.0/qkv/in1"].format.name == "nvfp4"
    assert uniform["blocks.0/attention/in0"].format.name == "bf16"


def test_tied_regions_are_one_variable() -> None:
    mode = "{name: kv_fp8, k_cache: 'e4m3_tensor:static'}"
    problem = _problem(
        f"[{{match: {{kind: attention}}, use: [bf16, {mode}]}}, {{use: [bf16]}}]",
        "[{name: kv, match: {kind: attention}}]",
    )
    variable = next(v for v in problem.variables if v.name == "kv")
    assert variable.regions == ("blocks.0/attention", "blocks.1/attention")
    point = problem.point({v.name: v.choices[-1].name for v in problem.variables})
    keys = {key for key, q in problem.assignment(point) if q.format.name == "e4m3_tensor"}
    assert keys == {"blocks.0/attention/in1", "blocks.1/attention/in1"}
    assert problem.size == 2


@pytest.mark.parametrize(
    ("candidates", "ties", "says"),
    [
        ("[{use: [bf16, mxpf4]}]", "[]", r"candidates\.0\.use\.1: .*did you mean 'mxfp4'"),
        ("[{match: {role: qvk}, use: [bf16]}]", "[]", r"candidates\.0\.match: matches no region"),
        ("[{match: {kind: gemm}, use: [bf16]}]", "[]", "no rule matches blocks.0/attention"),
        ("[{use: [bf16]}, {use: [fp16]}]", "[]", r"candidates\.1\.match: every region"),
        ("[{use: [bf16, bf16]}]", "[]", "listed twice"),
        ("[{use: [bf16]}]", "[{name: t, match: {role: x}}]", r"ties\.0\.match: matches no"),
        ("[{use: [{name: m, weight: int5x}]}]", "[]", r"use\.0: unknown format 'int5x'"),
    ],
)
def test_what_cannot_be_meant_is_refused(candidates: str, ties: str, says: str) -> None:
    with pytest.raises(SpaceError, match=says):
        _problem(candidates, ties)


def test_all_mistakes_come_at_once() -> None:
    with pytest.raises(SpaceError) as caught:
        _problem("[{match: {role: nope}, use: [mxpf4]}]", "[{name: t, match: {role: x}}]")
    assert len(str(caught.value).splitlines()) == 4
