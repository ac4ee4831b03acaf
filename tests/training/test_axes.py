"""Every axis of a method as a few words of a file: it trains, and each value does something else.

Axes are those of low-precision training's literature: how weights are updated and by which
optimizer, what keeps gradients in range, when scales are taken, transforms, roundings, derivatives
of rounding, schedules, and exceptions for single layers.
"""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import yaml

from dse.training.load import method_of
from dse.training.method import Method
from tests.training.test_run import Stripes, finished

HALF = "roles: {master_weight: bf16}, update: {mode: %s}"
ADAM = "roles: {weight: nvfp4, activation: nvfp4}, update: {optimizer: %s}"
FP16 = "roles: {'*': fp16, weight_gradient: fp16}"
E4M3 = "roles: {weight_gradient: e4m3}"
FORWARD = "roles: {weight: fp32, activation@fprop: %s}"
INPUTS = "roles: {weight: fp32, activation: {format: %s}}"
BOTH = "roles: {weight: {format: mxfp4, %s}, activation: {format: mxfp4, %s}}"
GRADIENT = "roles: {activation_gradient: {format: %s}}"
SLOPE = "roles: {weight: fp32, activation@fprop: {format: e2m1@g16/fp32, %s}}"
STAGED = "stages: [{weight: int2_channel}, {weight: int3_channel}, {weight: int8_channel}]"
AXES: Mapping[str, Mapping[str, str]] = {
    "update": {
        "master": "",
        **{one: HALF % one for one in ("nearest", "stochastic", "kahan")},
    },
    "optimizer": {
        one: ADAM % one for one in ("sgd", "adamw", "hadam", "stable_adamw", "stable_spam")
    } | {
        "8-bit states": "roles: {weight: nvfp4, activation: nvfp4, optimizer_m: dynamic8_g256, "
        "optimizer_v: udynamic8_g256}",
    },
    "loss scale": {
        "none": FP16,
        "static": f"{FP16}, loss_scale: {{kind: static, initial: 1000}}",
        "dynamic": f"{FP16}, loss_scale: {{kind: dynamic, initial: 1048576}}",
        "compound": f"{FP16}, update: {{optimizer: hadam}}, "
        "loss_scale: {kind: compound, initial: 1024}",
        "auto_mu": f"{E4M3}, loss_scale: {{kind: auto_mu, initial: 4096}}",
    },
    "scaling": {
        "current": FORWARD % "e4m3_tensor",
        "delayed": FORWARD % "'e4m3_tensor:delayed4'",
        "2-D": "roles: {weight@fprop: e2m1@b16x16/e4m3+fp32, activation: fp32}",
        "1-D": "roles: {weight@fprop: nvfp4, activation: fp32}",
    },
    "expansion": {
        "plain": "roles: {optimizer_m: e4m3@g128, optimizer_v: e4m3@g128}",
        "expanded": "roles: {optimizer_m: 'e4m3@g128:expand(128)', "
        "optimizer_v: 'e4m3@g128:expand(128)'}",
    },
    "smooth": {
        "plain": INPUTS % "e2m1@tensor/fp32",
        "channels": INPUTS % "e2m1@tensor/fp32, smooth: true",
    },
    "rotation": {
        "none": BOTH % ("hadamard: 0", "hadamard: 0"),
        "16": BOTH % (("hadamard: 16",) * 2),
        "fixed": BOTH % (("hadamard: 16, signs: fixed",) * 2),
        "fresh": BOTH % (("hadamard: 16, signs: fresh",) * 2),
        "one pass": "roles: {weight@dgrad: {format: mxfp4, hadamard: 16}, weight@fprop: mxfp4, "
        "activation_gradient@dgrad: {format: mxfp4, hadamard: 16}}",
    },
    "unbiased": {
        "nearest": GRADIENT % "nvfp4",
        "stochastic": GRADIENT % "'nvfp4:stochastic', headroom: 1.0625",
        "eden": GRADIENT % "nvfp4, hadamard: 16, signs: fresh, scales: eden, headroom: 0.988",
    },
    "blocks": {
        "six": FORWARD % "nvfp4",
        "four over six": FORWARD % "{format: nvfp4, scales: four_over_six}",
    },
    "derivative": {
        one: SLOPE % f"gradient: {one}" for one in ("ste", "dge", "spline")
    } | {
        "clipped_ste": "roles: {weight: fp32, activation@fprop: {format: e2m1, "
        "gradient: clipped_ste}}",
        "absmax": SLOPE % "scale_gradient: absmax",
        "softmax": SLOPE % "scale_gradient: softmax",
    },
    "schedule": {
        one: f"schedule: {{kind: {one}, {STAGED}{more}}}"
        for one, more in {
            "phase": ", starts: [0.2, 0.6]",
            "cycle": ", cycles: 2",
            "plateau": ", window: 2, threshold: 0.5",
            "uniform": "",
            "hasb": "",
            "gate": "",
        }.items()
    } | {
        "rounds": "roles: {communication_up: 'e4m3_tensor:stochastic'}, "
        "rounds: {clients: 2, every: 4}",
    },
    "oscillation": {
        "none": "roles: {weight: int2_channel}",
        "set back": "roles: {weight: int2_channel}, oscillation: {every: 4, window: 3, ratio: 2}",
    },
    "layers": {
        "all": "roles: {'*': int4_token}",
        "last wide": "roles: {'*': int4_token}, rules: [{match: {name: '2'}, "
        "roles: {'*': bf16}}]",
        "first block wide": "roles: {'*': int4_token}, rules: [{match: {blocks: [0]}, "
        "roles: {'*': bf16}}]",
    },
}  # fmt: skip


def written(text: str) -> Method:
    return method_of(yaml.safe_load(f"{{source: a test, {text}}}"), origin="METHOD.yaml")


def test_scales_of_two_stages_are_those_of_one() -> None:
    """COAT takes the largest of groups, then of those: other kernels, the same scale."""
    current, staged = (
        finished(written(FORWARD % f"'e4m3_tensor{more}'"), Stripes(), 1)
        for more in ("", ":two_stage")
    )
    assert current == staged


@pytest.mark.parametrize("axis", AXES)
def test_values_of_an_axis_train_and_differ(axis: str) -> None:
    ends = {}
    for name, text in AXES[axis].items():
        found = finished(written(text), Stripes(rate=0.02), 1)
        assert found.last is not None, name
        assert found.diverged_at is None, name
        ends[name] = found.last.loss, tuple(found.curve.loss)
    assert len(set(ends.values())) == len(ends), ends
