"""A quantized byte-gpt against weights rounded by ml_dtypes and run by ONNX Runtime."""

from collections.abc import Callable

import ml_dtypes
import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import numpy_helper

from dse import zoo
from dse.execute.emulate import emulators
from dse.execute.program.program import Program
from dse.execute.weights.calibrate import Calibration
from dse.graph.ir.assignment import Assignment
from dse.graph.onnx.load import load
from dse.graph.patterns.analysis import Analysis
from hwmodels.formats import catalog


def _e4m3_channel(weight: np.ndarray) -> np.ndarray:
    """(in, out): one float32 scale an output channel, the largest magnitude at 448."""
    scale = np.abs(weight).max(axis=0, keepdims=True) / np.float32(448)
    return (weight / scale).astype(ml_dtypes.float8_e4m3fn).astype(np.float32) * scale


def _int8_channel(weight: np.ndarray) -> np.ndarray:
    scale = np.abs(weight).max(axis=0, keepdims=True) / np.float32(127)
    return np.clip(np.rint(weight / scale), -127, 127).astype(np.float32) * scale


def _mxfp4(weight: np.ndarray) -> np.ndarray:
    """OCP MX: blocks of 32 along the inputs, scale 2^(floor(log2(largest)) - 2)."""
    blocks = weight.T.reshape(-1, 32)
    largest = np.abs(blocks).max(axis=1, keepdims=True)
    scale = np.exp2(np.floor(np.log2(largest)) - 2).astype(np.float32)
    clipped = np.clip(blocks / scale, -6, 6)
    rounded = clipped.astype(ml_dtypes.float4_e2m1fn).astype(np.float32) * scale
    return rounded.reshape(weight.T.shape).T


@pytest.mark.parametrize(
    ("name", "rounded"),
    [("e4m3_channel", _e4m3_channel), ("int8_channel", _int8_channel), ("mxfp4", _mxfp4)],
)
def test_quantized_weights_give_the_logits_that_onnxruntime_gives(
    name: str, rounded: Callable[[np.ndarray], np.ndarray]
) -> None:
    path = zoo.resolve("byte-gpt").path
    graph = load(path)
    weights = {site.key: site for site in Analysis(graph).sites if site.role == "weight"}
    assignment = Assignment.of(dict.fromkeys(weights, catalog.quantizer(name)))
    tokens = zoo.splits("byte-gpt", limits={"search": 2}, sequence=64).search.inputs["tokens"]
    bound = emulators(assignment, weights, Calibration(statistics={}))
    ours = Program(graph).run({"tokens": torch.from_numpy(tokens)}, bound).outputs["logits"]

    model = onnx.load(path)
    values = {site.value for site in weights.values()}
    for tensor in model.graph.initializer:
        if tensor.name in values:
            exact = rounded(numpy_helper.to_array(tensor))
            tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(exact), tensor.name))
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (theirs,) = session.run(["logits"], {"tokens": tokens})
    assert len(weights) == 43
    assert np.abs(ours.numpy() - theirs).max() <= 1e-4 * np.abs(theirs).max()
