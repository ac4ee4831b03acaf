"""Operators of the table as ONNX graphs, several times in a row, as a network has them.

Every copy has weights of its own, so that they come from main memory, and reads what was just
written or read, so that activations lie where a network leaves them. ONNX Runtime keeps maps of
convolutions in blocks of channels: copies that read one map and are added up pay for that once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from dse.profile.plan import Operator

OPSET = 20
MICROSOFT = "com.microsoft"
BYTE = 255
SCALE = 0.01
"""Of all quantised tensors: the time does not depend on it."""
Sizes = Mapping[str, int]
Array = NDArray[np.generic]


@dataclass(slots=True, kw_only=True)
class Graph:
    """A model in the making."""

    nodes: list[onnx.NodeProto]
    constants: dict[str, Array]
    feeds: dict[str, Array]
    result: str = ""
    generator: np.random.Generator

    def constant(self, name: str, value: Array) -> str:
        """Adds an initialiser."""
        self.constants[name] = value
        return name

    def node(self, kind: str, inputs: list[str], output: str, **attributes: object) -> str:
        """Adds a node with one output."""
        domain = MICROSOFT if kind in ("QLinearAdd", "QGemm", "QuickGelu") else ""
        self.nodes.append(
            helper.make_node(kind, inputs, [output], name=output, domain=domain, **attributes)
        )
        return output

    def floats(self, *shape: int) -> Array:
        """Random float32 values."""
        return self.generator.standard_normal(shape, dtype=np.float32)

    def codes(self, *shape: int, signed: bool = False) -> Array:
        """Random bytes."""
        values = self.generator.integers(0, BYTE, shape, dtype=np.uint8)
        return values.view(np.int8) if signed else values

    def model(self) -> bytes:
        """The serialised model; the last node's output is its own."""
        kind = TensorProto.UINT8 if self._writes_bytes else TensorProto.FLOAT
        graph = helper.make_graph(
            self.nodes,
            "operator",
            [
                helper.make_tensor_value_info(
                    name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape
                )
                for name, value in self.feeds.items()
            ],
            [helper.make_tensor_value_info(self.result, kind, None)],
            [numpy_helper.from_array(value, name) for name, value in self.constants.items()],
        )
        imports = [helper.make_opsetid("", OPSET), helper.make_opsetid(MICROSOFT, 1)]
        model = helper.make_model(graph, opset_imports=imports, ir_version=10)
        return bytes(model.SerializeToString())

    @property
    def _writes_bytes(self) -> bool:
        return str(self.nodes[-1].op_type).startswith("QLinear")


def graph_of(operator: Operator, copies: int, seed: int = 0) -> Graph:
    """The graph of so many copies of an operator.

    Raises:
        KeyError: An operator or number type without a kernel in the CPU provider.
    """
    graph = Graph(nodes=[], constants={}, feeds={}, generator=np.random.default_rng(seed))
    BUILDERS[operator.op, operator.dtype](graph, operator.shape, copies)
    return graph


def _gemm(graph: Graph, s: Sizes, copies: int) -> None:
    graph.feeds["x"] = graph.floats(s["M"], s["K"])
    parts = [
        graph.node("MatMul", ["x", graph.constant(f"w{i}", graph.floats(s["K"], s["N"]))], f"y{i}")
        for i in range(copies)
    ]
    _ends(graph, parts)


def _gemm_int8(graph: Graph, s: Sizes, copies: int) -> None:
    graph.feeds["x"] = graph.codes(s["M"], s["K"])
    scale, zero, zeros = _quantisation(graph, s["N"])
    parts = []
    for i in range(copies):
        weight = graph.constant(f"w{i}", graph.codes(s["K"], s["N"], signed=True))
        parts.append(
            graph.node(
                "QLinearMatMul", ["x", scale, zero, weight, "scales", zeros, scale, zero], f"y{i}"
            )
        )
    _ends(graph, parts)


def _bmm(graph: Graph, s: Sizes, copies: int) -> None:
    graph.feeds["w"] = graph.floats(s["B"], s["K"], s["N"])
    parts = []
    for i in range(copies):  # equal products would be one
        graph.feeds[f"x{i}"] = graph.floats(s["B"], s["M"], s["K"])
        parts.append(graph.node("MatMul", [f"x{i}", "w"], f"y{i}"))
    _ends(graph, parts)


def _convolution(s: Sizes) -> dict[str, object]:
    padding = 0 if s["stride"] == s["k"] else s["k"] // 2
    return {
        "kernel_shape": [s["k"]] * 2, "strides": [s["stride"]] * 2, "pads": [padding] * 4,
        "group": s["groups"],
    }  # fmt: skip


def _conv2d(graph: Graph, s: Sizes, copies: int) -> None:
    graph.feeds["x"] = graph.floats(s["N"], s["C"], s["H"], s["W"])
    parts = []
    for i in range(copies):
        weight = graph.floats(s["O"], s["C"] // s["groups"], s["k"], s["k"])
        names = ["x", graph.constant(f"w{i}", weight)]
        parts.append(graph.node("Conv", names, f"y{i}", **_convolution(s)))
    total = parts[0]
    for i, part in enumerate(parts[1:]):
        total = graph.node("Add", [total, part], f"s{i}")
    graph.result = total


def _conv2d_int8(graph: Graph, s: Sizes, copies: int) -> None:
    graph.feeds["x"] = graph.codes(s["N"], s["C"], s["H"], s["W"])
    scale, zero, zeros = _quantisation(graph, s["O"])
    parts = []
    for i in range(copies):
        shape = (s["O"], s["C"] // s["groups"], s["k"], s["k"])
        weight = graph.constant(f"w{i}", graph.codes(*shape, signed=True))
        inputs = ["x", scale, zero, weight, "scales", zeros, scale, zero]
        parts.append(graph.node("QLinearConv", inputs, f"y{i}", **_convolution(s)))
    _ends(graph, parts)


def _quantisation(graph: Graph, channels: int) -> tuple[str, str, str]:
    """Scale and zero point of tensors, zero points of channels; `scales` are theirs."""
    graph.constant("scales", np.full(channels, SCALE, dtype=np.float32))
    return (
        graph.constant("scale", np.array(SCALE, dtype=np.float32)),
        graph.constant("zero", np.array(BYTE // 2, dtype=np.uint8)),
        graph.constant("zeros", np.zeros(channels, dtype=np.int8)),
    )


def _ends(graph: Graph, parts: list[str]) -> None:
    """One element of each part is read, so that all of them are computed."""
    first = graph.constant("first", np.zeros(1, dtype=np.int64))
    picked = []
    for part in parts:
        flat = graph.node("Flatten", [part], f"{part}.flat", axis=0)
        picked.append(graph.node("Gather", [flat, first], f"{part}.first", axis=1))
    joined = graph.node("Concat", picked, "joined", axis=0)
    graph.result = joined
    if any(one.op_type.startswith("QLinear") for one in graph.nodes):
        graph.result = graph.node("DequantizeLinear", [joined, "scale", "zero"], "result")


def _chain(kind: str, **attributes: object) -> Callable[[Graph, Sizes, int], None]:
    """An operator of one tensor, which reads what its copy before has written."""

    def build(graph: Graph, s: Sizes, copies: int) -> None:
        value = "x"
        graph.feeds["x"] = graph.floats(s["rows"], s["cols"])
        for i in range(copies):
            value = graph.node(kind, [value], f"y{i}", **attributes)
        graph.result = value

    return build


def _pairs(kind: str) -> Callable[[Graph, Sizes, int], None]:
    """An operator of two tensors: what the copy before has written, and one that all read."""

    def build(graph: Graph, s: Sizes, copies: int) -> None:
        value = "x"
        for name in ("x", "z"):
            graph.feeds[name] = graph.floats(s["rows"], s["cols"])
        for i in range(copies):
            value = graph.node(kind, [value, "z"], f"y{i}")
        graph.result = value

    return build


def _layernorm(graph: Graph, s: Sizes, copies: int) -> None:
    value = "x"
    graph.feeds["x"] = graph.floats(s["rows"], s["cols"])
    graph.constant("gain", np.ones(s["cols"], dtype=np.float32))
    for i in range(copies):
        value = graph.node("LayerNormalization", [value, "gain"], f"y{i}")
    graph.result = value


BUILDERS: dict[tuple[str, str], Callable[[Graph, Sizes, int], None]] = {
    ("gemm", "fp32"): _gemm,
    ("gemm", "int8"): _gemm_int8,
    ("bmm", "fp32"): _bmm,
    ("conv2d", "fp32"): _conv2d,
    ("conv2d", "int8"): _conv2d_int8,
    ("add", "fp32"): _pairs("Add"),
    ("mul", "fp32"): _pairs("Mul"),
    ("gelu", "fp32"): _chain("Gelu"),
    ("softmax", "fp32"): _chain("Softmax"),
    ("layernorm", "fp32"): _layernorm,
}
"""By operator and number type."""
