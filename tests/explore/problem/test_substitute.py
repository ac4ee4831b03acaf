"""A choice that targets run with 16-bit operands is measured as that, or named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest

from dse.explore.problem.design import Design, open_design
from dse.space.load import parse_space

MODEL = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[batch, 256] x) => (float[batch, 256] y) { y = MatMul(x, w) }
"""


MIXED = "{name: mixed, weight: fp32, activation: int8_token}"
"""No runtime has such a kernel: activations are rounded, weights are stored in 16 bits."""
BYTES_16 = 2 * 256 * 256


def _design(folder: Path, *devices: str, use: str = "bf16, w8a8_fp8") -> Design:
    model = onnx.parser.parse_model(MODEL)
    weight = np.zeros((256, 256), np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(weight, "w"))
    onnx.save(model, folder / "m.onnx")
    places = [(*name.split(":"), "vllm")[:2] for name in devices]
    labels = ["-".join(name.split(":")) for name in devices]
    targets = "".join(
        f"  - {{name: {label}, device: {device}, runtime: {runtime}}}\n"
        for label, (device, runtime) in zip(labels, places, strict=True)
    )
    text = (
        "model: m.onnx\ndata: {source: d.npz}\n"
        "scenario: {phases: {call: {share: 1, dims: {batch: 1}}}}\n"
        f"targets:\n{targets}"
        f"candidates: [{{match: {{}}, use: [{use}]}}]\n"
        f"objectives: [quality_loss, {f'{labels[0]}.' if len(devices) > 1 else ''}latency_s]\n"
    )
    return open_design(parse_space(text, origin="s.yaml"), origin="s.yaml", folder=folder)


def _formats(design: Design, name: str = "w8a8_fp8", target: str = "") -> dict[str, str]:
    problem = design.networks.problems[target] if target else design.problem
    (variable,) = problem.variables
    choice = variable.choices[variable.index(name) or 0]
    return {role: quantizer.name for role, quantizer in choice.quantizers.items()}


def test_what_the_target_runs_is_what_is_measured(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    found = _formats(_design(tmp_path, "a100-sxm-80gb"))
    assert found["weight"].startswith("e4m3")
    assert found["activation"] == "bf16"
    assert (
        "a100-sxm-80gb has no such kernel and runs its weights with 16-bit activations; it is "
        "measured and priced as that"
    ) in caplog.text


def test_a_native_choice_stays_as_it_is(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert _formats(_design(tmp_path, "h100-sxm"))["activation"].startswith("e4m3")
    assert "w8a8_fp8" not in caplog.text


def test_targets_that_run_different_networks_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    found = _formats(_design(tmp_path, "h100-sxm", "a100-sxm-80gb"))
    assert found["activation"].startswith("e4m3")
    assert "no such kernel on a100-sxm-80gb" in caplog.text
    assert "different networks" in caplog.text


@pytest.mark.parametrize(("device", "runs"), [("h100-sxm", "bf16"), ("t4", "fp16")])
def test_fp32_that_a_runtime_has_no_kernel_for_is_measured_and_priced_in_16_bits(
    device: str, runs: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    design = _design(tmp_path, device, use="bf16, fp32")
    found = _formats(design, "fp32")
    assert (found["weight"], found["activation"]) == (runs, runs)
    assert design.total((1,))["weight_bytes"] == BYTES_16
    assert f"{device} has no such kernel and runs {runs} in place of fp32" in caplog.text
    assert design.networks.choices(device, "narrowed") == ("fp32",)
    assert design.networks.choices(device, "substituted") == ()


def test_fp32_that_a_runtime_has_is_measured_and_priced_in_32_bits(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for runtime in ("torch-eager", "torch-compile", "onnxruntime", "llama-cpp"):
        design = _design(tmp_path, f"h100-sxm:{runtime}", use="bf16, fp32")
        found = _formats(design, "fp32")
        assert (found["weight"], found["activation"]) == ("fp32", "fp32")
        assert design.total((1,))["weight_bytes"] == 2 * BYTES_16
        assert design.total((1,))["native_share"] == 1
    assert "no such kernel" not in caplog.text


def test_weights_in_fp32_beside_rounded_activations_lose_what_16_bits_lose(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    design = _design(tmp_path, "h100-sxm", use=f"bf16, {MIXED}")
    found = _formats(design, "mixed")
    assert (found["weight"], found["activation"]) == ("bf16", "int8_token")
    assert design.total((1,))["weight_bytes"] == BYTES_16
    assert "runs bf16 in place of fp32" in caplog.text


def test_fp32_is_another_network_where_only_one_target_has_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    design = _design(tmp_path, "h100-sxm:vllm", "h100-sxm:torch-eager", use="bf16, fp32")
    assert _formats(design, "fp32", "h100-sxm-vllm")["weight"] == "bf16"
    assert _formats(design, "fp32", "h100-sxm-torch-eager")["weight"] == "fp32"
    assert design.networks.apart == ("h100-sxm-torch-eager",)
    assert "no such kernel on h100-sxm-vllm, which runs bf16 in place of fp32" in caplog.text


def test_targets_with_other_16_bit_floats_run_other_networks(tmp_path: Path) -> None:
    design = _design(tmp_path, "a100-sxm-80gb", "t4")
    assert _formats(design, target="a100-sxm-80gb")["activation"] == "bf16"
    assert _formats(design, target="t4")["activation"] == "fp16"
    assert design.networks.apart == ("t4",)
