"""What a method says and a network never takes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dse.cli.app import run as cli
from dse.errors import MethodError
from dse.numerics.transforms import LARGEST_ROTATION
from dse.training.fit import check_fit
from dse.training.load import load_method, method_names
from dse.training.workloads.byte_gpt import ByteGpt
from dse.zoo.llama import LlamaConfig
from tests.training.methods import method
from tests.training.test_run import STEPS, Stripes

ROTATED = {"format": "nvfp4", "hadamard": 4096}
SIZES = LlamaConfig(vocabulary=256, width=32, layers=2, heads=2, kv_heads=1, ffn_width=64)
TINY = ByteGpt(name="tiny", config=SIZES, steps=400, rate=3e-3, sequence=16, samples=2)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            {"roles": {"weight": "nvfp4"}, "rules": [{"match": {}, "roles": {"*": "fp32"}}]},
            ["roles.weight: rules say otherwise wherever it counts"],
        ),
        (
            {
                "schedule": {"kind": "phase", "stages": [{"weight": "int4"}, {"weight": "int8"}]},
                "rules": [{"match": {}, "roles": {"weight": "fp32"}}],
            },
            ["schedule.stages.0.weight: rules say", "schedule.stages.1.weight: rules say"],
        ),
        (
            {"functions": {"rewrites": ["softplus", "normal"]}},
            ["functions.rewrites: softplus: the network", "functions.rewrites: normal: the"],
        ),
        (
            {"rules": [{"match": {"name": "0"}, "roles": {"optimizer_m": "bf16"}}]},
            ["rules.0.roles.optimizer_m: its match fits no parameter (0.weight, 0.bias, 2.weight"],
        ),
        (
            {"rules": [{"match": {"name": "0.weight"}, "roles": {"weight": "int8"}}]},
            ["rules.0.roles.weight: its match fits no product with this role (0, 2)"],
        ),
        (
            {
                "rules": [
                    {"match": {"name": "0"}, "roles": {"weight": "int8"}},
                    {"match": {"name": "*"}, "roles": {"weight": "int4"}},
                ]
            },
            ["rules.0.roles.weight: "],
        ),
        (
            {"roles": {"activation": ROTATED, "weight": ROTATED, "activation_gradient": ROTATED}},
            [
                "hadamard 4096 is longer than the sums of fprop (16) at 0, 2",
                "hadamard 4096 is longer than the sums of dgrad (2, 16) at 0, 2",
                "hadamard 4096 is longer than the sums of wgrad (32) at 0, 2",
            ],
        ),
        (
            {
                "schedule": {
                    "kind": "phase", "stages": [{}, {"weight": "int4"}], "starts": [0.999]
                }
            },
            [f"schedule.stages.1: no step of {STEPS} is in it"],
        ),
        (
            {
                "schedule": {
                    "kind": "cycle", "cycles": 2 * STEPS,
                    "stages": [{"weight": "int8"}, {"weight": "int6"}, {"weight": "int4"}],
                }
            },
            ["schedule.stages.1: no step", "schedule.stages.2: no step"],
        ),
        (
            {"schedule": {"kind": "plateau", "stages": [{}, {"weight": "int4"}], "every": 90}},
            ["schedule: whether the loss stands still is first known after 450 steps"],
        ),
        (
            {"roles": {"weight": "nvfp4"}, "oscillation": {"every": STEPS, "window": 1}},
            [f"oscillation: the first watch would end after step {STEPS + 1}"],
        ),
        ({"rounds": {"clients": 2, "every": STEPS + 1}}, [f"rounds.every: {STEPS + 1} steps"]),
        ({"update": {"states_from": 257}}, ["update.states_from: no parameter has 257 elements"]),
    ],
)  # fmt: skip
def test_what_does_nothing_is_said(content: dict[str, object], said: list[str]) -> None:
    found = check_fit({"mine": method(**content)}, Stripes())
    assert len(found) == len(said), found
    for line, words in zip(found, said, strict=True):
        assert line.startswith(f"mine on stripes: {words}")


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"roles": {"*": "mxfp8", "optimizer_m": "bf16", "output": "bf16"}},
        {"roles": {"weight@dgrad": "int8", "accumulator": "fp16", "saved_activation": "int8"}},
        {"schedule": {"kind": "phase", "stages": [{"weight": "int4"}, {"activation": "int8"}]}},
        {"schedule": {"kind": "plateau", "stages": [{}, {"weight": "int4"}], "every": 1}},
        {"roles": {"weight": "nvfp4"}, "oscillation": {"every": STEPS - 1, "window": 1}},
        {"rounds": {"clients": 2, "every": STEPS}, "roles": {"communication_up": "int8"}},
        {"rules": [{"match": {"name": "0*"}, "roles": {"weight": "int8", "optimizer_v": "bf16"}}]},
        {"rules": [{"match": {"name": "z", "optional": True}, "roles": {"weight": "int8"}}]},
        {"update": {"states_from": 256}},
    ],
)
def test_what_does_something_is_not_named(content: dict[str, object]) -> None:
    assert check_fit({"mine": method(**content)}, Stripes()) == []


def test_rotations_and_rewrites_are_all_of_shipped_methods_that_a_narrow_decoder_leaves_out() -> (
    None
):
    names = [one for one in method_names() if one != "apt"]
    found = check_fit({name: load_method(name) for name in names}, TINY)
    assert found
    parts = {line.split(": ")[1].split()[0] for line in found}
    assert parts == {"hadamard", "functions.rewrites"}
    rewrites = [line for line in found if "functions.rewrites" in line]
    assert all("softplus" in line or "normal" in line for line in rewrites)
    assert len(rewrites) == 2


def test_attention_and_layers_take_what_is_said_of_them() -> None:
    roles = {"q": "int8", "probabilities": "e4m3_tensor", "*": "mxfp8"}
    rules = [{"match": {"kind": "attention"}, "roles": {"k_cache": "int8", "*": "bf16"}}]
    assert check_fit({"mine": method(roles=roles)}, TINY) == []
    found = check_fit({"mine": method(roles=roles, rules=rules)}, TINY)
    said = [line.split(": ")[1] for line in found]
    assert said == ["roles.q", "roles.probabilities"]  # which the rule's own "*" stands for


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"update": {"optimizer": "sgd", "betas": [0.5, 0.5]}}, "update.betas: sgd does not read"),
        ({"update": {"momentum": 0.5}}, r"update.momentum: adamw does not read it \(read by: sgd"),
        ({"update": {"reset_every": 3}}, "update.reset_every: adamw does not read it"),
        (
            {"update": {"optimizer": "sgd"}, "roles": {"optimizer_v": "bf16"}},
            "roles.optimizer_v: sgd has one moment",
        ),
        ({"loss_scale": {"initial": 8}}, "loss_scale.initial: none does not read it"),
        (
            {"roles": {"*": "fp16"}, "loss_scale": {"kind": "static", "interval": 5}},
            r"loss_scale.interval: static does not read it \(read by: dynamic, auto_mu\)",
        ),
        (
            {"schedule": {"kind": "cycle", "stages": [{"weight": "int4"}, {"weight": "int4"}]}},
            "schedule.stages: all are the same",
        ),
        (
            {
                "roles": {
                    "activation@wgrad": {"format": "bf16", "of": "forward"},
                    "saved_activation": "int8",
                }
            },
            "roles.saved_activation: activation@wgrad reads what the forward product has rounded",
        ),
        (
            {"roles": {"weight": {"format": "nvfp4", "hadamard": 2 * LARGEST_ROTATION}}},
            f"expected less than or equal to {LARGEST_ROTATION}",
        ),
        ({"rules": [{"match": {}, "roles": {}}]}, "roles: expected at least 1 entry, got 0"),
        ({"update": {"betas": 0.9}}, "update.betas: expected a list, got 0.9"),
    ],
)
def test_options_that_nothing_reads_are_refused(content: dict[str, object], words: str) -> None:
    with pytest.raises(MethodError, match=words):
        method(**content)


def test_a_run_says_what_does_nothing_before_it_trains(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("source: me\nrounds: {clients: 2, every: 9}\n")
    line = ["train", str(path), "--seeds", "1", "--out", str(tmp_path / "run")]
    assert cli([*line, "--steps", "2"]) == 0
    assert "mine on digits-mlp: rounds.every: 9 steps" in capsys.readouterr().out
    assert cli([*line, "--steps", "2", "--resume", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["idle"][0].startswith("mine on digits-mlp: rounds")
