"""Method files: what they may say, and what is refused with which words."""

from __future__ import annotations

from pathlib import Path

import pytest

from dse.errors import MethodError
from dse.training.load import load_method, method_names
from dse.training.roles import Site, formats_at, formats_of_parameter
from tests.training.methods import method

HEAD = Site(name="lm_head", kind="linear")
FIRST = Site(name="model.layers.0.mlp.up_proj", kind="linear")
LAST = Site(name="model.layers.5.mlp.up_proj", kind="linear")


@pytest.mark.parametrize("name", method_names())
def test_a_shipped_method_says_where_it_is_from(name: str) -> None:
    found = load_method(name)
    assert len(found.source) > 10
    assert found.roles or found.schedule or found.tuning or name == "bf16"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"roles": {"weigth": "bf16"}}, r"roles\.weigth: no such role; did you mean 'weight'"),
        ({"roles": {"weight@wgrad": "bf16"}}, "no part in pass 'wgrad'.*weight@dgrad"),
        ({"roles": {"weight": "nvpf4"}}, "did you mean 'nvfp4'"),
        ({"roles": {"communication_up": "bf16"}}, "one worker, which sends nothing; add rounds"),
        ({"roles": {"weight": {"format": "nvfp4", "hadamrd": 16}}}, "did you mean 'hadamard'"),
        ({"roles": {"weight": {"format": "nvfp4", "hadamard": 12}}}, "power of two, got 12"),
        ({"roles": {"weight": {"format": "nvfp4", "signs": "fresh"}}}, "there is no rotation"),
        ({"roles": {"weight": {"format": "nvfp4", "scales": "eden"}}}, "signs: fresh"),
        ({"roles": {"weight": {"format": "mxfp4", "scales": "four_over_six"}}}, "needs e2m1 in"),
        ({"roles": {"weight": {"format": "nvfp4", "of": "forward"}}}, "weight@dgrad"),
        ({"roles": {"weight": "e4m3_tensor:static"}}, "static scales need calibration"),
        ({"roles": {"weight": "nvfp4:delayed"}}, "delayed scales are one a tensor"),
        ({"roles": {"weight": "int4_g128:gptq"}}, "chosen once, not at each step"),
        ({"roles": {"weight": "e4m3_channel:requant8"}}, "only scaled signed integers"),
        ({"roles": {"weight": "int4_channel:requant3"}}, "from 3 bits, expected 5 to 16"),
        ({"roles": {"weight": "int4:delayed:requant8"}}, "those of the wider codes"),
        (
            {"roles": {"weight": {"format": "int4_channel:requant8", "gradient": "spline"}}},
            "its derivative is 1 here",
        ),
        ({"roles": {"accumulator": "int16"}}, "expected a float"),
        ({"roles": {"accumulator": "fp61"}}, "accumulator 'fp61'"),
        ({"roles": {"weight": {"format": "bf16", "headroom": 1.5}}}, "no scales to raise"),
        (
            {"roles": {"activation": {"format": "nvfp4", "hadamard": 16}, "weight": "nvfp4"}},
            "weight@fprop and activation@fprop are multiplied .* rotated differently",
        ),
        (
            {"rounds": {"clients": 4}, "roles": {"weight": "e4m3_tensor:delayed"}},
            r"roles\.weight: scales that are remembered would be those of the client before",
        ),
        (
            {"rounds": {"clients": 4}, "schedule": {"kind": "phase", "stages": [{}, {}]}},
            "clients have no schedule here",
        ),
        ({"rounds": {"clients": 1}}, r"rounds\.clients"),
        ({"update": {"optimizer": "adam"}}, "did you mean 'hadam'"),
        ({"update": {"mode": "kahan"}}, "weights are kept in fp32"),
        ({"loss_scale": {"kind": "dynamic"}}, "no gradient is in a format of less range"),
        (
            {"roles": {"*": "fp16"}, "loss_scale": {"kind": "compound"}},
            "expected update.optimizer: hadam, got adamw",
        ),
        (
            {"roles": {"weight_gradient": "e4m3_tensor"}, "loss_scale": {"kind": "auto_mu"}},
            "would hide; add roles: {weight_gradient: e4m3}",
        ),
        ({"schedule": {"kind": "phase", "stages": [{}]}}, r"schedule\.stages"),
        (
            {"schedule": {"kind": "gates", "stages": [{}, {}]}},
            r"schedule\.kind.*did you mean 'gate'",
        ),
        (
            {"schedule": {"kind": "phase", "stages": [{}, {}], "cycles": 3}},
            r"schedule\.cycles: phase does not read it \(read by: cycle\)",
        ),
        (
            {"schedule": {"kind": "phase", "stages": [{}, {}], "starts": [0.2, 0.5]}},
            r"schedule\.starts: expected 1, one for each stage after the first, got 2",
        ),
        (
            {"schedule": {"kind": "phase", "stages": [{}, {"weight": "e4m3_tensor:delayed"}]}},
            r"schedule\.stages\.1\.weight: scales that are remembered",
        ),
        (
            {"schedule": {"kind": "phase", "stages": [{}, {"weigth": "int4"}]}},
            r"schedule\.stages\.1\.weigth: no such role",
        ),
        ({"roles": {"weight": {"format": "int8", "smooth": True}}}, "smooth: only inputs"),
        (
            {"roles": {"weight": {"format": "nvfp4", "hadamard": 16, "scale_gradient": "absmax"}}},
            "scale_gradient: is one of plain scales",
        ),
        (
            {"roles": {"weight": {"format": "bf16", "scale_gradient": "absmax"}}},
            "scale_gradient: needs scales of groups",
        ),
        ({"rules": [{"match": {}, "roles": {}}]}, r"rules\.0\.roles"),
        ({"roles": {"*": "bf16"}, "rolls": {}}, "did you mean 'roles'"),
    ],
)
def test_a_method_that_cannot_be_is_refused_by_field(
    content: dict[str, object], words: str
) -> None:
    with pytest.raises(MethodError, match=words) as caught:
        method(**content)
    assert str(caught.value).startswith("METHOD.yaml: ")


def test_every_error_is_said_at_once() -> None:
    with pytest.raises(MethodError) as caught:
        method(roles={"weigth": "bf16", "activation": "nvpf4"}, update={"mode": "nearest"})
    assert len(str(caught.value).splitlines()) == 3


def test_an_unknown_method_is_told_the_nearest_one() -> None:
    with pytest.raises(MethodError, match="did you mean 'quartet_ii'"):
        load_method("quartet_2")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(MethodError, match="no such method file"):
        load_method(tmp_path / "mine.yaml")


def test_a_pass_counts_before_the_role_and_a_rule_before_the_method() -> None:
    found = method(
        roles={"activation": "nvfp4", "activation@wgrad": "mxfp8"},
        rules=[
            {"match": {"blocks": [-1]}, "roles": {"activation": "bf16"}},
            {"match": {"name": "lm_*"}, "roles": {"*": "fp32"}},
        ],
    )

    def formats(site: Site) -> list[str]:
        at = formats_at(found, site, 6)
        return [at.operand("activation", name).format for name in ("fprop", "wgrad")]

    assert formats(FIRST) == ["nvfp4", "mxfp8"]
    assert formats(LAST) == ["bf16", "bf16"]
    assert formats(HEAD) == ["fp32", "fp32"]


def test_what_nobody_names_is_bf16_in_products_and_fp32_in_the_optimizer() -> None:
    at = formats_at(method(), FIRST, 6)
    assert at.operand("weight", "dgrad").format == "bf16"
    assert at.operand("weight_gradient", "wgrad").is_wide
    assert at.named("output", "fprop") is None
    parameter = formats_of_parameter(method(), "model.layers.0.weight", 6)
    assert parameter.operand("optimizer_m", "update").is_wide
    assert parameter.operand("master_weight", "update").is_wide


def test_attention_takes_its_own_roles_and_rules_alone() -> None:
    site = Site(name="model.layers.0.self_attn", kind="attention")
    layers = {"*": "nvfp4", "activation_gradient": "nvfp4"}
    at = formats_at(method(roles=layers), site, 6)
    assert at.operand("q", "fprop").format == "bf16"
    assert at.operand("activation_gradient", "dgrad").format == "bf16"
    named = formats_at(method(roles={**layers, "k_cache": "e4m3_tensor"}), site, 6)
    assert named.operand("k_cache", "fprop").format == "e4m3_tensor"


def test_a_rule_can_keep_moments_of_a_parameter_wide() -> None:
    found = method(
        roles={"optimizer_v": "udynamic8_g256"},
        rules=[{"match": {"name": "*embed*"}, "roles": {"optimizer_v": "fp32"}}],
    )
    names = ("model.embed_tokens.weight", "lm_head.weight")
    wide = [formats_of_parameter(found, one, 6).operand("optimizer_v", "update").is_wide
            for one in names]  # fmt: skip
    assert wide == [True, False]
