"""Accumulators of choices: which regions have them."""

import pytest

from dse.errors import SpaceError
from dse.graph.ir.site import SUM_ROLE, Region, Site
from dse.space.build import build_problem, resolve_choice
from dse.space.load import parse_space
from dse.space.problem import Problem
from hwmodels.errors import FormatError
from hwmodels.formats.accumulator import sum_quantizer

HEAD = """
model: m.onnx
data: {source: d.npz}
targets: [{device: h100-sxm}]
"""
ROLES = {"gemm": ("activation", "weight"), "conv2d": ("activation", "weight"),
         "attention": ("q", "k_cache")}  # fmt: skip


def _region(name: str, kind: str) -> Region:
    roles = (*ROLES[kind], "output")
    sites = tuple(
        Site(
            node=name, operand="out0" if role == "output" else f"in{place}",
            value=f"{name}.{place}", role=role, shape=(4, 4), contraction_axes=(1,),
        )
        for place, role in enumerate(roles)
    )  # fmt: skip
    return Region(
        name=name, kind=kind, role="o", block=None, relative_depth=0.0, nodes=(name,), sites=sites
    )


REGIONS = (_region("fc", "gemm"), _region("attn", "attention"), _region("conv", "conv2d"))


def _problem(candidates: str) -> Problem:
    text = f"{HEAD}candidates: {candidates}\n"
    return build_problem(parse_space(text, origin="s.yaml"), REGIONS, origin="s.yaml")


def _offered(candidates: str) -> dict[str, list[str]]:
    return {v.name: [c.name for c in v.choices] for v in _problem(candidates).variables}


def test_a_product_has_a_site_for_its_sum_where_a_choice_names_one() -> None:
    problem = _problem("[{match: {kind: gemm}, use: [int8, int8@int16]}, {use: [int8]}]")
    keys = {v.name: [site.key for site in v.sites] for v in problem.variables}
    assert keys["fc"] == ["fc/in0", "fc/in1", "fc/sum"]
    assert keys["conv"] == ["conv/in0", "conv/in1"]
    assert dict(problem.assignment((1, 0, 0)))["fc/sum"] == sum_quantizer("int16")
    assert "fc/sum" not in dict(problem.assignment((0, 0, 0)))


def test_a_scheme_sums_products_with_weights_only() -> None:
    found = _offered("[{use: [w8a8_fp8, w8a8_fp8@bf16]}]")
    assert found["fc"] == ["w8a8_fp8", "w8a8_fp8@bf16"]
    assert found["attn"] == ["w8a8_fp8"]
    assert _offered("[{use: [e4m3, e4m3@bf16]}]")["attn"] == ["e4m3", "e4m3@bf16"]


def test_codes_under_a_scale_a_pixel_are_not_added() -> None:
    found = _offered("[{use: [w8a8_int8, w8a8_int8@int20]}]")
    assert found["fc"] == ["w8a8_int8", "w8a8_int8@int20"]
    assert found["conv"] == ["w8a8_int8"]


def test_a_mode_names_its_own() -> None:
    problem = _problem(
        "[{use: [{name: narrow, weight: int8, activation: int8, q: int8, k_cache: int8, "
        "accumulator: 'int16:saturate'}]}]"
    )
    assert problem.variables[0].choices[0].quantizers[SUM_ROLE] == sum_quantizer("int16:saturate")


@pytest.mark.parametrize(
    ("use", "said"),
    [("w8a8_fp8@int16", "its activation is e4m3_tensor:static"),
     ("w4a16@int16", "its activation is bf16"),
     ("int8_g32@int24", r"scales are those of whole slices, and those of its activation")],
)  # fmt: skip
def test_integers_are_added_where_both_operands_are(use: str, said: str) -> None:
    with pytest.raises(FormatError, match=said):
        resolve_choice(use)


def test_a_rule_whose_regions_cannot_have_it_is_an_error() -> None:
    with pytest.raises(SpaceError, match=r"candidates\.0\.use: w8a8_int8@int20: none of its"):
        _problem("[{match: {kind: conv2d}, use: [w8a8_int8@int20]}, {use: [bf16]}]")


def test_what_stands_behind_an_at_may_be_a_granularity() -> None:
    found = resolve_choice("e2m1@g32/ue5m3+fp32@bf16:chunk16")
    assert found.quantizers["weight"].name == "e2m1@g32/ue5m3+fp32"
    assert found.quantizers[SUM_ROLE] == sum_quantizer("bf16:chunk16")
    assert SUM_ROLE not in resolve_choice("e2m1@g32/ue5m3+fp32").quantizers
