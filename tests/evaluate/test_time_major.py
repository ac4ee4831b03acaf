"""A sequence whose time comes first is one sample, also where no size of it has a name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import onnxruntime
import pytest
import torch

from dse.evaluate.model import evaluate_model
from dse.graph.ir.assignment import Assignment
from dse.model import open_model
from dse.numerics import quantize
from dse.space.schema import Data, QualityOf
from hwmodels.formats.catalog import quantizer

TIME, SAMPLES, FEATURES, HIDDEN, CLASSES = 6, 10, 8, 16, 5
MODEL = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[SIZES] x) => (float[a, b, 5] y)
<int64[1] one = {1}>
{
    h = LSTM <hidden_size = 16> (x, w, r)
    s = Squeeze (h, one)
    y = MatMul (s, head)
}
"""


def _model(folder: Path, sizes: str) -> onnx.ModelProto:
    model = onnx.parser.parse_model(MODEL.replace("SIZES", sizes))
    rng = np.random.default_rng(0)
    shapes = {
        "w": (1, 4 * HIDDEN, FEATURES), "r": (1, 4 * HIDDEN, HIDDEN), "head": (HIDDEN, CLASSES),
    }  # fmt: skip
    for name, shape in shapes.items():
        weight = rng.normal(size=shape).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(weight, name))
    onnx.save(model, folder / "m.onnx")
    data = rng.normal(size=(TIME, SAMPLES, FEATURES)).astype(np.float32)
    np.savez(folder / "d.npz", x=data)
    return model


def _logits(model: onnx.ModelProto, x: np.ndarray) -> torch.Tensor:
    """ONNX Runtime's, one sequence at a time."""
    session = onnxruntime.InferenceSession(model.SerializeToString())
    runs = [session.run(["y"], {"x": x[:, at : at + 1]})[0] for at in range(x.shape[1])]
    return torch.log_softmax(torch.from_numpy(np.concatenate(runs, 1)), dim=-1)


@pytest.mark.parametrize("sizes", ["?, ?, 8", "T, N, 8", "6, ?, 8", "?, 1, 8"])
@pytest.mark.parametrize("batch", [1, 3])
def test_a_loss_is_that_of_whole_sequences(sizes: str, batch: int, tmp_path: Path) -> None:
    model = _model(tmp_path, sizes)
    x = np.load(tmp_path / "d.npz")["x"]
    exact = _logits(model, x)
    (head,) = (one for one in model.graph.initializer if one.name == "head")
    weight = torch.from_numpy(onnx.numpy_helper.to_array(head).copy())
    rounded = quantize(weight, quantizer("int4_channel").settled(weight=False), axes=(0,))
    head.CopyFrom(onnx.numpy_helper.from_array(rounded.numpy(), "head"))
    other = _logits(model, x)
    expected = (exact.exp() * (exact - other)).sum(-1).mean()
    found = evaluate_model(
        open_model(str(tmp_path / "m.onnx")).analysis,
        Assignment.of({"MatMul_2/in1": quantizer("int4_channel:uncorrected:absmax")}),
        Data(source=str(tmp_path / "d.npz"), report=SAMPLES, batch=batch),
        quality=QualityOf(kind="logits"),
    )
    assert found.quantized.loss == pytest.approx(float(expected), rel=1e-4)
    assert found.quantized.loss > 1e-4


def test_what_nothing_tells_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    text = """<ir_version: 8, opset_import: ["" : 17]>
    g (float[?, ?, 8] x) => (float[a, b, 5] y) { y = MatMul (x, head) }"""
    model = onnx.parser.parse_model(text)
    head = np.random.default_rng(0).normal(size=(FEATURES, CLASSES)).astype(np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(head, "head"))
    onnx.save(model, tmp_path / "m.onnx")
    arrays = {"x": np.random.default_rng(1).normal(size=(4, 3, 8)).astype(np.float32)}
    evaluate_model(
        open_model(str(tmp_path / "m.onnx")).analysis,
        Assignment.of({}),
        Data(source="given", report=4),
        quality=QualityOf(kind="logits"),
        splits=arrays,
    )
    assert "x: its first axis is taken to count samples" in caplog.text
