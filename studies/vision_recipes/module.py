"""An ONNX file as a torch module, for tools that take nothing else.

Convolutional networks as `dse` exports them: Conv, Clip, Relu, Add, a mean over the image, Reshape
to rows, Gemm.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import torch
from onnx import helper, numpy_helper
from torch import Tensor, nn


class OnnxModule(nn.Module):
    """The nodes of a file in order, each a layer of its own."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        graph = onnx.load(path).graph
        constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
        self.input, self.output = graph.input[0].name, graph.output[0].name
        self.calls: list[tuple[str, list[str], str]] = []
        layers = {}
        for number, node in enumerate(graph.node):
            given = {a.name: helper.get_attribute_value(a) for a in node.attribute}
            held = [constants[name].copy() for name in node.input if name in constants]
            layers[f"n{number}"] = layer(node.op_type, given, held)
            reads = [name for name in node.input if name and name not in constants]
            self.calls.append((f"n{number}", reads, node.output[0]))
        self.layers = nn.ModuleDict(layers)

    def forward(self, image: Tensor) -> Tensor:
        """The first output of the graph."""
        values = {self.input: image}
        for name, reads, made in self.calls:
            values[made] = self.layers[name](*[values[read] for read in reads])
        return values[self.output]


class Sum(nn.Module):
    """An addition; as a function of the operator, which is what such tools look for."""

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        return left + right


def layer(kind: str, given: dict[str, Any], held: list[Any]) -> nn.Module:
    """The layer of a node with attributes and constant inputs.

    Raises:
        NotImplementedError: another operator.
    """
    match kind:
        case "Conv":
            weight, bias = held
            top, left, bottom, right = given["pads"]
            convolution = nn.Conv2d(
                weight.shape[1] * given["group"], len(weight), weight.shape[2:],
                given["strides"], (top, left), given["dilations"], given["group"],
            )  # fmt: skip
            convolution.load_state_dict(_tensors(weight, bias))
            if (top, left) == (bottom, right):
                return convolution
            convolution.padding = (0, 0)
            return nn.Sequential(nn.ZeroPad2d((left, right, top, bottom)), convolution)
        case "Gemm":
            weight, bias = held
            linear = nn.Linear(*weight.shape[::-1])
            linear.load_state_dict(_tensors(weight, bias))
            return linear
        case "Clip" if (float(held[0]), float(held[1])) == (0.0, 6.0):
            return nn.ReLU6()
        case "Relu":
            return nn.ReLU()
        case "Add":
            return Sum()
        case "ReduceMean":
            return nn.AdaptiveAvgPool2d(1)
        case "Reshape":
            return nn.Flatten()
    raise NotImplementedError(kind)


def _tensors(weight: Any, bias: Any) -> dict[str, Tensor]:
    return {"weight": torch.from_numpy(weight), "bias": torch.from_numpy(bias)}
