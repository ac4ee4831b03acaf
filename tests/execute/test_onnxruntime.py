"""Exported models against ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from dse.execute.operators.dtype import to_numpy
from dse.execute.program.program import Program
from dse.graph.onnx.load import load
from tests.execute.conftest import MODELS, Exported

TOLERANCE = 1e-4
"""Of the output's scale, in float32."""


def reference(path: Path, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return session.run(None, feeds)


def relative_difference(result: torch.Tensor, expected: np.ndarray) -> float:
    found = to_numpy(result)
    assert found.shape == expected.shape
    return float(np.abs(found - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize("name", MODELS)
def test_export_agrees_with_onnxruntime(name: str, exported: Callable[[str], Exported]) -> None:
    model = exported(name)
    execution = model.program.run(model.feeds)
    expected = reference(model.path, {k: v.numpy() for k, v in model.feeds.items()})
    for result, other in zip(execution.outputs.values(), expected, strict=True):
        assert relative_difference(result, other) <= TOLERANCE


@pytest.mark.parametrize("name", ["gpt2-dynamo18", "resnet18-dynamo18", "recurrent-torchscript14"])
def test_export_agrees_with_the_module(name: str, exported: Callable[[str], Exported]) -> None:
    model = exported(name)
    with torch.no_grad():
        output = model.module(*model.feeds.values())
    expected = getattr(output, "logits", output).numpy()
    (result,) = model.program.run(model.feeds).outputs.values()
    assert relative_difference(result, expected) <= TOLERANCE


ZOO = Path(__file__).parents[2] / "dse" / "zoo"


@pytest.mark.parametrize("name", ["byte-gpt", "fashion-resnet"])
def test_zoo_model_agrees_with_onnxruntime(name: str) -> None:
    path = ZOO / name / "model.onnx"
    graph = load(path)
    rng = np.random.default_rng(0)
    feeds = {}
    for fed in graph.inputs:
        kind = graph.types[fed]
        shape = [size if isinstance(size, int) else 3 for size in kind.shape or ()]
        integers = kind.dtype.startswith("int")
        drawn = rng.integers(0, 10, shape) if integers else rng.standard_normal(shape)
        feeds[fed] = drawn.astype(kind.dtype)
    execution = Program(graph).run({name: torch.from_numpy(x) for name, x in feeds.items()})
    for result, other in zip(execution.outputs.values(), reference(path, feeds), strict=True):
        assert relative_difference(result, other) <= TOLERANCE
