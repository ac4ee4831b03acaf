"""Models that ONNX Runtime quantized: computed as it does, and called what they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static

from dse.errors import GraphError
from dse.evaluate.model import evaluate_model
from dse.execute.program.program import Program
from dse.graph.lower.work import lower
from dse.model import open_model
from dse.space.schema import Data
from dse.space.uniform import uniform_assignment

MODEL = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[batch, 3, 8, 8] image) => (float[batch, 10] logits)
{
    [conv] c = Conv <pads = [1, 1, 1, 1]> (image, kernel, bias)
    [relu] r = Relu (c)
    [pool] p = GlobalAveragePool (r)
    [flat] f = Flatten (p)
    [fc] logits = Gemm (f, matrix)
}
"""
SHAPES = {"kernel": (8, 3, 3, 3), "bias": (8,), "matrix": (8, 10)}
IMAGES = np.random.default_rng(0).normal(size=(16, 3, 8, 8)).astype(np.float32)


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self) -> None:
        self.batches = iter([{"image": IMAGES}])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self.batches, None)


def quantized(folder: Path, form: QuantFormat) -> Path:
    """The model with random weights, quantized by ONNX Runtime."""
    model = onnx.parser.parse_model(MODEL)
    rng = np.random.default_rng(1)
    for name, shape in SHAPES.items():
        values = rng.normal(size=shape).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    onnx.save(model, folder / "float.onnx")
    quantize_static(
        folder / "float.onnx", folder / "q.onnx", _Reader(), quant_format=form, per_channel=True,
        reduce_range=True,
    )  # fmt: skip
    return folder / "q.onnx"


def test_pairs_compute_what_onnx_runtime_computes(tmp_path: Path) -> None:
    path = quantized(tmp_path, QuantFormat.QDQ)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    (wanted,) = onnxruntime.InferenceSession(path, options).run(None, {"image": IMAGES})
    model = open_model(str(path))
    program = Program(model.graph, analysis=model.analysis)
    found = program.run({"image": torch.from_numpy(IMAGES)}, {}).outputs["logits"]
    np.testing.assert_allclose(found.numpy(), wanted, rtol=0, atol=1e-6)


def test_pairs_count_as_they_are_stored_and_are_named(tmp_path: Path) -> None:
    model = open_model(str(quantized(tmp_path, QuantFormat.QDQ)))
    work = lower(model.analysis, {"batch": 1})
    weights = [
        operand
        for region in work.regions
        for op in region.ops
        for operand in op.operands
        if operand.name == "weight"
    ]
    # Codes, and four bytes for the scale of each channel.
    assert [(one.bits, one.bytes) for one in weights] == [(8, 216 + 4 * 8), (8, 80 + 4 * 10)]
    (note,) = work.notes
    assert note.startswith("quantized before (Q/DQ)")
    assert note.endswith(": conv, fc")
    assert "weight int8_channel" in note


def test_an_evaluation_says_that_its_reference_is_quantized(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = quantized(tmp_path, QuantFormat.QDQ)
    np.savez(tmp_path / "x.npz", image=IMAGES)
    model = open_model(str(path))
    data = Data(source=str(tmp_path / "x.npz"), calibration=4, search=4, report=4)
    whole = uniform_assignment(model.analysis.regions, "fp32")
    assert evaluate_model(model.analysis, whole, data).quantized.loss == 0.0
    assert "quantized before (Q/DQ)" in caplog.text


def test_operators_over_integers_are_refused_with_the_form_that_works(tmp_path: Path) -> None:
    model = open_model(str(quantized(tmp_path, QuantFormat.QOperator)))
    with pytest.raises(GraphError, match=r"QGemm: fc_quant(.|\n)*QuantFormat\.QDQ"):
        Program(model.graph, analysis=model.analysis)
    with pytest.raises(GraphError, match=r"QLinearGlobalAveragePool.*QuantFormat\.QDQ"):
        lower(model.analysis, {"batch": 1})
