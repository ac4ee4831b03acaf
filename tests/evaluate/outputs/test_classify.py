"""Outputs without an operator or a label that says what they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import parser

from dse.evaluate.outputs.classify import classify
from dse.evaluate.outputs.output import Output
from dse.graph.onnx.load import load
from dse.space.schema import QualityOf
from dse.zoo.split import Split


def _output(folder: Path, *, weight: str, size: int, images: bool = False) -> Output:
    """The only output of a network that ends in one product, fed without labels."""
    given, head = ("float[N, 3, 2, 2] x", "f = Flatten(x)") if images else ("float[N, 12] x", "")
    model = parser.parse_model(
        f'<ir_version: 8, opset_import: ["": 17]> g ({given}) => (float[N, {size}] y)\n'
        f"{{ {head} z = MatMul({'f' if images else 'x'}, w) y = Add(z, b) }}"
    )
    rng = np.random.default_rng(0)
    for name, shape in (("w", (12, size)), ("b", (size,))):
        tensor = onnx.numpy_helper.from_array(rng.random(shape, np.float32), name)
        model.graph.initializer.append(tensor)
    for node in model.graph.node:
        node.input[:] = [weight if name == "w" else name for name in node.input]
    model.graph.initializer[0].name = weight
    path = folder / "m.onnx"
    onnx.save(model, path)
    inputs = {"x": np.zeros((2, 3, 2, 2) if images else (2, 12), np.float32)}
    task = classify(load(path), Split(inputs=inputs, labels=None, kind="images"), QualityOf())
    (output,) = task.outputs
    return output


@pytest.mark.parametrize(
    ("weight", "size"),
    [
        ("model.classifier.weight", 2),
        ("_fc.weight", 1000),
        ("lm_head.weight", 40),
        ("logits/w", 3),
    ],
)
def test_the_name_of_the_last_layer_makes_logits(tmp_path: Path, weight: str, size: int) -> None:
    output = _output(tmp_path, weight=weight, size=size)
    assert output.kind == "logits"
    assert not output.certain
    assert "is called" in output.reason


@pytest.mark.parametrize(("weight", "size"), [("_fc.weight", 3), ("out.weight", 1000), ("w", 7)])
def test_other_numbers_are_no_distribution(tmp_path: Path, weight: str, size: int) -> None:
    assert _output(tmp_path, weight=weight, size=size).kind == "regression"


def test_a_thousand_numbers_from_an_image_are_classes(tmp_path: Path) -> None:
    assert _output(tmp_path, weight="w", size=1000, images=True).kind == "logits"
    assert _output(tmp_path, weight="w", size=128, images=True).kind == "regression"


def test_one_logit_that_lies_between_nought_and_one_stays_a_logit(tmp_path: Path) -> None:
    """Values decide only where the last operator is no linear one, which has any values."""
    _output(tmp_path, weight="w", size=1)
    labels = np.array([0, 1])
    split = Split(inputs={"x": np.zeros((2, 12), np.float32)}, labels=labels, kind="images")
    (output,) = classify(load(tmp_path / "m.onnx"), split, QualityOf()).outputs
    assert output.kind == "binary"
    assert output.certain
