"""Exported models under ONNX Runtime against the emulator that they came from."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from dse.errors import ExportError
from dse.evaluate.evaluator import Evaluator
from dse.evaluate.setup import build_evaluator
from dse.export import export_qdq
from dse.graph.ir.assignment import Assignment
from dse.graph.patterns.analysis import Analysis
from dse.model import open_model
from dse.space.schema import Data
from dse.space.uniform import uniform_assignment
from hwmodels.formats.catalog import quantizer

IMAGES = 8


@pytest.fixture(scope="module")
def model():
    return open_model("zoo:fashion-resnet")


def evaluator_of(model, assignment: Assignment) -> Evaluator:
    data = Data(source="zoo:fashion-resnet", calibration=IMAGES, search=2, report=IMAGES)
    by_key = Analysis(model.graph).by_key
    return build_evaluator(model.graph, data, by_key, tuple(assignment))


def outputs(path: Path, images: np.ndarray) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    # Optimised, ONNX Runtime multiplies integers where the file says floats.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])
    return session.run(None, {"image": images})[0]


def mixed(model, weights: list[str], activation: str) -> Assignment:
    """Weights by turns in the given formats, activations all in one."""
    found = {}
    number = 0
    for site in Analysis(model.graph).sites:
        if site.role == "weight":
            found[site.key] = quantizer(weights[number % len(weights)])
            number += 1
        elif site.role == "activation":
            found[site.key] = quantizer(activation)
    return Assignment.of(found)


@pytest.mark.parametrize(
    ("weights", "activation"),
    [
        (["int8_channel"], "int8:static"),
        (["int4_channel", "int8_channel", "int8", "int4_channel:mse"], "int8:static"),
        (["int4_channel:bias_corrected", "int8_channel:bias_corrected"], "int8:static"),
        (["int4_channel:gptq"], "int8:static"),
        (["e4m3_tensor", "e5m2_tensor"], "e4m3_tensor:static"),
        (["int16_channel"], "int16:static"),
        (["uint8_channel"], "uint8:static"),
        (["bf16"], "fp16"),
    ],
)
def test_onnxruntime_computes_what_was_emulated(model, weights, activation, tmp_path):
    assignment = mixed(model, weights, activation)
    evaluator = evaluator_of(model, assignment)
    bound = evaluator.bound(assignment)
    path = tmp_path / "quantized.onnx"
    export_qdq(evaluator.program, bound, path)
    onnx.checker.check_model(str(path))
    images = evaluator.splits.report.inputs["image"].astype(np.float32)
    with torch.inference_mode():
        emulated = evaluator.program.run({"image": torch.from_numpy(images)}, bound).outputs
    wanted = next(iter(emulated.values())).numpy()
    plain = outputs(model.graph.path, images)
    noise = np.square(plain - wanted).mean()
    assert noise > 0
    # Sums in another order put a few values on the other side of a tie.
    assert np.square(outputs(path, images) - wanted).mean() < 0.02 * noise


def test_one_pair_serves_all_readers_of_a_value(model, tmp_path):
    assignment = mixed(model, ["int8_channel"], "int8:static")
    evaluator = evaluator_of(model, assignment)
    export_qdq(evaluator.program, evaluator.bound(assignment), tmp_path / "quantized.onnx")
    nodes = onnx.load(tmp_path / "quantized.onnx").graph.node
    read = Counter(node.input[0] for node in nodes if node.op_type == "QuantizeLinear")
    assert max(read.values()) == 1
    weights = sum(site.role == "weight" for site in Analysis(model.graph).sites)
    pairs = sum(node.op_type == "DequantizeLinear" for node in nodes)
    assert pairs == weights + len(read)


def test_weights_are_stored_narrow(model, tmp_path):
    assignment = uniform_assignment(Analysis(model.graph).regions, "w8a8_int8")
    evaluator = evaluator_of(model, assignment)
    export_qdq(evaluator.program, evaluator.bound(assignment), tmp_path / "quantized.onnx")
    assert (tmp_path / "quantized.onnx").stat().st_size < 0.3 * model.graph.path.stat().st_size


def test_blocks_along_the_contraction_axis_need_opset_21(tmp_path):
    model = open_model("zoo:byte-gpt")
    keys = [site.key for site in Analysis(model.graph).sites if site.role == "weight"][:4]
    assignment = Assignment.of({key: quantizer("int4_g32") for key in keys})
    data = Data(source="zoo:byte-gpt", calibration=2, search=2, report=2, sequence=64)
    by_key = Analysis(model.graph).by_key
    evaluator = build_evaluator(model.graph, data, by_key, tuple(assignment))
    bound = evaluator.bound(assignment)
    path = tmp_path / "quantized.onnx"
    export_qdq(evaluator.program, bound, path)
    assert onnx.load(path).opset_import[0].version >= 21
    tokens = evaluator.splits.report.inputs
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])
    found = session.run(None, dict(tokens))[0]
    with torch.inference_mode():
        feeds = {name: torch.from_numpy(values) for name, values in tokens.items()}
        wanted = next(iter(evaluator.program.run(feeds, bound).outputs.values())).numpy()
    assert np.abs(found - wanted).max() < 1e-4 * np.abs(wanted).max()


def test_what_has_no_qdq_is_refused_with_all_its_sites(model, tmp_path):
    assignment = mixed(model, ["posit8_1", "nvfp4", "int8_channel"], "e4m3_token")
    evaluator = evaluator_of(model, assignment)
    with pytest.raises(ExportError) as refused:
        export_qdq(evaluator.program, evaluator.bound(assignment), tmp_path / "quantized.onnx")
    message = str(refused.value)
    assert all(name in message for name in ("posit8_1", "nvfp4", "e4m3_token"))
    assert not (tmp_path / "quantized.onnx").exists()
