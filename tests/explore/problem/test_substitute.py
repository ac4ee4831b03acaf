"""A choice that targets run with 16-bit activations is measured as that, or named."""

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


def _design(folder: Path, *devices: str) -> Design:
    model = onnx.parser.parse_model(MODEL)
    weight = np.zeros((256, 256), np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(weight, "w"))
    onnx.save(model, folder / "m.onnx")
    targets = "".join(f"  - {{name: {name}, device: {name}, runtime: vllm}}\n" for name in devices)
    text = (
        "model: m.onnx\ndata: {source: d.npz}\n"
        "scenario: {phases: {call: {share: 1, dims: {batch: 1}}}}\n"
        f"targets:\n{targets}"
        "candidates: [{match: {}, use: [bf16, w8a8_fp8]}]\n"
        f"objectives: [quality_loss, {f'{devices[0]}.' if len(devices) > 1 else ''}latency_s]\n"
    )
    return open_design(parse_space(text, origin="s.yaml"), origin="s.yaml", folder=folder)


def _formats(design: Design) -> dict[str, str]:
    (variable,) = design.problem.variables
    choice = variable.choices[variable.index("w8a8_fp8") or 0]
    return {role: quantizer.name for role, quantizer in choice.quantizers.items()}


def test_what_the_target_runs_is_what_is_measured(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    found = _formats(_design(tmp_path, "a100-sxm-80gb"))
    assert found["weight"].startswith("e4m3")
    assert found["activation"] == "bf16"
    assert "a100-sxm-80gb has no such kernel" in caplog.text


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
