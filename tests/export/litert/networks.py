"""Small convolutional networks in the manner of others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from dse.evaluate.setup import build_evaluator
from dse.export.base import Recipe
from dse.graph.ir.assignment import Assignment
from dse.model import Model, open_model
from dse.space.schema import Data
from dse.zoo.split import Split, Splits
from hwmodels.formats.catalog import quantizer
from tests.export.recipes import recipe_of

SIZE, SAMPLES = 16, 4


class Builder:
    """Nodes and weights of one network, each value named as its node."""

    def __init__(self) -> None:
        self.rng = np.random.default_rng(0)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def node(self, kind: str, name: str, *inputs: str, **attributes: object) -> str:
        self.nodes.append(helper.make_node(kind, list(inputs), [name], name=name, **attributes))
        return name

    def constant(self, name: str, values: np.ndarray) -> str:
        self.weights.append(numpy_helper.from_array(values, name))
        return name

    def conv(self, name: str, source: str, shape: tuple[int, ...], **attributes: object) -> str:
        """Attributes as ONNX has them; `pads` of 1 unless they say otherwise."""
        scale = 1.5 / np.sqrt(np.prod(shape[1:]))
        weight = (self.rng.standard_normal(shape) * scale).astype(np.float32)
        bias = (0.1 * self.rng.standard_normal(shape[0])).astype(np.float32)
        names = [self.constant(f"{name}.w", weight), self.constant(f"{name}.b", bias)]
        given = {"pads": [shape[2] // 2] * 4, **attributes}
        return self.node("Conv", name, source, *names, **given)

    def relu6(self, source: str) -> str:
        ends = []
        for name, value in (("zero", 0.0), ("six", 6.0)):
            ends.append(f"{name}")
            if not any(one.name == name for one in self.weights):
                self.constant(name, np.array(value, np.float32))
        return self.node("Clip", f"{source}.relu6", source, *ends)

    def saved(self, path: Path, output: str, shape: list[object], channels: int = 3) -> Model:
        image = helper.make_tensor_value_info(
            "image", TensorProto.FLOAT, ["batch", channels, SIZE, SIZE]
        )
        result = helper.make_tensor_value_info(output, TensorProto.FLOAT, shape)
        graph = helper.make_graph(self.nodes, path.stem, [image], [result], self.weights)
        opset = [helper.make_opsetid("", 17)]
        onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)
        return open_model(str(path))


def mobile_net(folder: Path) -> Model:
    """Inverted residuals with depthwise convolutions and Relu6, as MobileNetV2 has them."""
    b = Builder()
    x = b.relu6(b.conv("stem", "image", (8, 3, 3, 3), strides=[2, 2], pads=[0, 0, 1, 1]))
    for number, (stride, wide) in enumerate(((1, 8), (2, 12), (1, 12))):
        narrow = 8 if number < 2 else 12
        h = b.relu6(b.conv(f"expand{number}", x, (24, narrow, 1, 1)))
        h = b.relu6(b.conv(f"depth{number}", h, (24, 1, 3, 3), group=24, strides=[stride] * 2))
        h = b.conv(f"project{number}", h, (wide, 24, 1, 1))
        x = h if wide != narrow else b.node("Add", f"add{number}", x, h)
    x = b.relu6(b.conv("last", x, (16, 12, 1, 1)))
    x = b.node("GlobalAveragePool", "pool", x)
    x = b.node("Flatten", "flat", x, axis=1)
    weight = b.rng.standard_normal((10, 16)).astype(np.float32) / 4
    names = [b.constant("w", weight), b.constant("b", np.zeros(10, np.float32))]
    b.node("Gemm", "logits", x, *names, transB=1)
    return b.saved(folder / "mobile.onnx", "logits", ["batch", 10])


def inception(folder: Path) -> Model:
    """Pools, parts side by side, a padded image and a Softmax over rows of a flat image."""
    b = Builder()
    pads = b.constant("pads", np.array([0, 0, 1, 1, 0, 0, 1, 1], np.int64))
    x = b.node("Pad", "wide", "image", pads)
    x = b.node("Relu", "r0", b.conv("c0", x, (8, 3, 3, 3), pads=[0] * 4))
    x = b.node("MaxPool", "pool", x, kernel_shape=[2, 2], strides=[2, 2])
    left = b.node("Relu", "r1", b.conv("c1", x, (4, 8, 1, 1)))
    right = b.node("Relu", "r2", b.conv("c2", x, (4, 8, 3, 3), dilations=[1, 1]))
    x = b.node("Concat", "both", left, right, axis=1)
    x = b.conv("c3", x, (4, 8, 3, 3), strides=[2, 2])
    x = b.node("AveragePool", "mean", x, kernel_shape=[2, 2], strides=[2, 2])
    x = b.node("Flatten", "flat", x)
    x = b.node("MatMul", "rows", x, b.constant("w", b.rng.standard_normal((16, 5)).astype("f4")))
    b.node("Softmax", "shares", x)
    return b.saved(folder / "inception.onnx", "shares", ["batch", 5])


def pre_activation(folder: Path) -> Model:
    """Residual blocks whose stream is read as it is and behind a Relu, a pool between them."""
    b = Builder()
    x = b.conv("stem", "image", (8, 3, 3, 3))
    for number in range(2):
        h = b.conv(f"first{number}", b.node("Relu", f"a{number}", x), (8, 8, 3, 3))
        h = b.conv(f"second{number}", b.node("Relu", f"b{number}", h), (8, 8, 3, 3))
        x = b.node("Add", f"add{number}", x, h)
        x = b.node("AveragePool", f"half{number}", x, kernel_shape=[2, 2], strides=[2, 2])
    left = b.conv("left", x, (4, 8, 1, 1))
    right = b.conv("right", x, (4, 8, 3, 3))
    x = b.node("Concat", "both", left, right, axis=1)
    x = b.node("Add", "last", x, b.conv("third", x, (8, 8, 3, 3)))
    x = b.node("Flatten", "flat", b.node("GlobalAveragePool", "pool", x))
    weight = b.rng.standard_normal((8, 10)).astype(np.float32) / 3
    b.node("Gemm", "logits", x, b.constant("w", weight))
    return b.saved(folder / "residual.onnx", "logits", ["batch", 10])


def recipe(model: Model, formats: dict[str, str]) -> Recipe:
    """Formats by role, or by key; those of keys win, and an empty one is none."""
    asked = {one.key: formats.get(one.role, "") for one in model.analysis.sites}
    asked |= {key: one for key, one in formats.items() if "/" in key}
    found = {key: quantizer(one) for key, one in asked.items() if one}
    return assigned(model, Assignment.of(found))


def assigned(model: Model, assignment: Assignment) -> Recipe:
    """An assignment, calibrated on samples of noise."""
    rng = np.random.default_rng(1)
    shapes = {name: model.graph.types[name].shape or () for name in model.graph.inputs}
    inputs = {
        name: rng.standard_normal((SAMPLES, *(int(str(size)) for size in shape[1:]))).astype("f4")
        for name, shape in shapes.items()
    }
    split = Split(inputs=inputs, labels=None, kind="images")
    evaluator = build_evaluator(
        model.analysis,
        Data(source="given", calibration=SAMPLES, search=SAMPLES, report=SAMPLES),
        model.analysis.sites_with(key for key, _ in assignment),
        tuple(assignment),
        splits=Splits(calibration=split, search=split, report=split),
    )
    found = recipe_of(evaluator, assignment, name=model.name)
    assert isinstance(found.samples, dict)
    assert all(isinstance(one, torch.Tensor) for one in found.samples.values())
    return found
