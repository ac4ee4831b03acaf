"""ONNX Runtime's LSTM over 8-bit weights gives ONNX Runtime's numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import quantize_dynamic

from dse.execute.program.program import Program
from dse.graph.lower.work import lower
from dse.graph.onnx.load import load
from dse.graph.patterns.analysis import Analysis

STEPS, WIDTH, HIDDEN, DIRECTIONS = 5, 12, 8, 2


@pytest.fixture(params=[False, True], ids=["by tensor", "by channel"])
def model(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    shapes = {"w": (4 * HIDDEN, WIDTH), "r": (4 * HIDDEN, HIDDEN), "b": (8 * HIDDEN,)}
    weights = [
        numpy_helper.from_array(
            (random.standard_normal((DIRECTIONS, *shape)) / 3).astype(np.float32), name
        )
        for name, shape in shapes.items()
    ]
    node = helper.make_node(
        "LSTM", ["x", "w", "r", "b"], ["y"], name="layer", hidden_size=HIDDEN,
        direction="bidirectional",
    )  # fmt: skip
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [node],
        "g",
        [value("x", TensorProto.FLOAT, ["steps", 1, WIDTH])],
        [value("y", TensorProto.FLOAT, ["steps", DIRECTIONS, 1, HIDDEN])],
        weights,
    )
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), tmp_path / "f.onnx")
    # Products of full 8-bit weights saturate in ONNX Runtime on processors without VNNI.
    quantize_dynamic(
        tmp_path / "f.onnx", tmp_path / "q.onnx", per_channel=request.param, reduce_range=True
    )
    return tmp_path / "q.onnx"


def test_outputs_are_those_of_onnx_runtime(model: Path) -> None:
    x = np.random.default_rng(1).standard_normal((STEPS, 1, WIDTH)).astype(np.float32)
    (expected,) = onnxruntime.InferenceSession(model).run(None, {"x": x})
    found = Program(load(model)).run({"x": torch.from_numpy(x)}).outputs["y"]
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-6)


def test_its_weights_are_priced_as_the_bytes_that_they_are(model: Path) -> None:
    analysis = Analysis(load(model))
    work = lower(analysis, {"steps": STEPS})
    codes = {
        operand.value: operand.elements
        for region in work.regions
        for op in region.ops
        for operand in op.operands
        if operand.name == "weight" and operand.quantizer is not None
    }
    inputs = {"w_quantized": WIDTH, "r_quantized": HIDDEN}
    assert codes == {name: DIRECTIONS * 4 * HIDDEN * n for name, n in inputs.items()}
    assert work.macs == STEPS * sum(codes.values())
    assert not analysis.sites
