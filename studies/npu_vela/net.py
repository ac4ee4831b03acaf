"""An integer network that is written twice: as ONNX for `dse`, as .tflite for Vela.

A value is named as the node that writes it, so that rows of both estimates meet by name. Weights
are normal, with a scale an output channel that their largest one sets, as those of trained layers
roughly are.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from dse.export.litert.file import File
from dse.export.litert.places import Grid

Bits = Literal[8, 16]
GRID = Grid(scale=0.05, zero=0)
WIDE_GRID = Grid(scale=0.0005, zero=0)
KINDS = {8: "INT8", 16: "INT16"}


@dataclass(slots=True)
class Net:
    """A network under construction; shapes are (channels, height, width), or (rows, width)."""

    name: str
    shape: tuple[int, ...]
    bits: Bits = 8
    weight_bits: Literal[4, 8] = 8
    """Of fully connected layers; 4 are codes of 15 levels, which the file has as int8."""
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: list[onnx.TensorProto] = field(default_factory=list)
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    file: File | None = None
    numbers: dict[str, int] = field(default_factory=dict)
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))

    def __post_init__(self) -> None:
        self._made("image", self.shape)

    def conv(
        self, name: str, source: str, out: int, kernel: int | tuple[int, int] = 3,
        stride: int | tuple[int, int] = 1, *, same: bool = True, relu: bool = True,
        depthwise: bool = False,
    ) -> str:  # fmt: skip
        """A convolution, or one a channel, padded as TensorFlow's SAME is."""
        k = (kernel, kernel) if isinstance(kernel, int) else kernel
        s = (stride, stride) if isinstance(stride, int) else stride
        channels, *size = self.shapes[source]
        depth = 1 if depthwise else channels
        places = [
            -(-a // b) if same else (a - c) // b + 1 for a, b, c in zip(size, s, k, strict=True)
        ]
        pads = [max((p - 1) * b + c - a, 0) if same else 0
                for p, a, b, c in zip(places, size, s, k, strict=True)]  # fmt: skip
        before, after = [one // 2 for one in pads], [one - one // 2 for one in pads]
        codes, scales = self._weights((out, depth, *k))
        inner = f"{name}_sum" if relu else name
        self._node(
            "Conv", inner, [source, self._constant(f"{name}.w", codes, scales)],
            (out, *places), strides=list(s), kernel_shape=list(k), pads=[*before, *after],
            group=channels if depthwise else 1,
        )  # fmt: skip
        if relu:
            self._node("Relu", name, [inner], (out, *places))
        if self.file is not None:
            file = self.file
            order = (1, 2, 3, 0) if depthwise else (0, 2, 3, 1)
            operands = [
                self.numbers[source],
                file.constant(f"{name}.w", codes.transpose(order).copy(), "INT8", scales=scales,
                              axis=3 if depthwise else 0),
                self._bias(name, out, scales),
            ]  # fmt: skip
            common = {
                "padding": 0 if same else 1, "strideH": s[0], "strideW": s[1],
                "dilationHFactor": 1, "dilationWFactor": 1, "fusedActivationFunction": int(relu),
            }  # fmt: skip
            kind, options = "CONV_2D", "Conv2DOptions"
            if depthwise:
                kind, options = "DEPTHWISE_CONV_2D", "DepthwiseConv2DOptions"
                common["depthMultiplier"] = 1
            self._operator(kind, name, operands, (out, *places), version=3, options=options,
                           **common)  # fmt: skip
        self._made(name, (out, *places))
        return name

    def add(self, name: str, left: str, right: str) -> str:
        """The sum of two values."""
        shape = self.shapes[left]
        self._node("Add", name, [left, right], shape)
        if self.file is not None:
            self._operator("ADD", name, [self.numbers[left], self.numbers[right]], shape,
                           version=2, options="AddOptions", fusedActivationFunction=0,
                           potScaleInt16=False)  # fmt: skip
        self._made(name, shape)
        return name

    def pool(self, name: str, source: str, kernel: int, stride: int) -> str:
        """A maximum over windows, without padding."""
        channels, *size = self.shapes[source]
        shape = (channels, *((one - kernel) // stride + 1 for one in size))
        self._node("MaxPool", name, [source], shape, kernel_shape=[kernel] * 2,
                   strides=[stride] * 2)  # fmt: skip
        if self.file is not None:
            self._operator("MAX_POOL_2D", name, [self.numbers[source]], shape, version=2,
                           options="Pool2DOptions", padding=1, strideH=stride, strideW=stride,
                           filterHeight=kernel, filterWidth=kernel)  # fmt: skip
        self._made(name, shape)
        return name

    def mean(self, name: str, source: str) -> str:
        """The mean over the image, as one row."""
        channels = self.shapes[source][0]
        axes = self._integers(f"{name}.axes", [2, 3])
        self._node("ReduceMean", name, [source, axes], (1, channels), keepdims=0)
        if self.file is not None:
            axis = self.file.constant(f"{name}.axes", np.array([1, 2], np.int32), "INT32")
            self._operator("MEAN", name, [self.numbers[source], axis], (1, channels), version=2,
                           options="ReducerOptions", keepDims=False)  # fmt: skip
        self._made(name, (1, channels))
        return name

    def flat(self, name: str, source: str) -> str:
        """The values as one row."""
        count = int(np.prod(self.shapes[source]))
        self._node("Flatten", name, [source], (1, count), axis=1)
        if self.file is not None:
            to = self.file.constant(f"{name}.to", np.array([1, count], np.int32), "INT32")
            self._operator(
                "RESHAPE",
                name,
                [self.numbers[source], to],
                (1, count),
                options="ReshapeOptions",
                newShape=np.array([1, count], np.int32),
            )
        self._made(name, (1, count))
        return name

    def dense(self, name: str, source: str, out: int, *, relu: bool = False) -> str:
        """A fully connected layer over rows."""
        rows, width = self.shapes[source]
        codes, scales = self._weights((out, width), bits=self.weight_bits)
        inner = f"{name}_sum" if relu else name
        weight = self._constant(f"{name}.w", codes, scales)
        self._node("Gemm", inner, [source, weight], (rows, out), transB=1)
        if relu:
            self._node("Relu", name, [inner], (rows, out))
        if self.file is not None:
            operands = [
                self.numbers[source],
                self.file.constant(f"{name}.w", codes, "INT8", scales=scales[:1]),
                self._bias(name, out, scales[:1]),
            ]
            self._operator("FULLY_CONNECTED", name, operands, (rows, out),
                           version=4, options="FullyConnectedOptions",
                           fusedActivationFunction=int(relu), keepNumDims=False)  # fmt: skip
        self._made(name, (rows, out))
        return name

    def product(self, name: str, left: str, right: str) -> str:
        """The product of two values, the second one transposed: scores of an attention."""
        (rows, _), (columns, _) = self.shapes[left], self.shapes[right]
        turned = f"{name}_turned"
        self._node("Transpose", turned, [right], (self.shapes[right][1], columns), perm=[1, 0])
        self._node("MatMul", name, [left, turned], (rows, columns))
        if self.file is not None:
            self._operator("BATCH_MATMUL", name, [self.numbers[left], self.numbers[right]],
                           (rows, columns), version=2, options="BatchMatMulOptions", adjX=False,
                           adjY=True, asymmetricQuantizeInputs=False)  # fmt: skip
        self._made(name, (rows, columns))
        return name

    def save(self, folder: Path, output: str) -> None:
        """NAME.onnx, and NAME.tflite where operators were written."""
        ends = [
            helper.make_tensor_value_info(value, TensorProto.FLOAT, _batched(self.shapes[value]))
            for value in ("image", output)
        ]
        graph = helper.make_graph(self.nodes, self.name, ends[:1], ends[1:], self.constants)
        opset = [helper.make_opsetid("", 18)]
        onnx.save(
            helper.make_model(graph, opset_imports=opset, ir_version=9),
            folder / f"{self.name}.onnx",
        )
        if self.file is not None:
            inputs, outputs = [self.numbers["image"]], [self.numbers[output]]
            content = self.file.packed(inputs, outputs, self.name)
            (folder / f"{self.name}.tflite").write_bytes(content)

    def _weights(self, shape: tuple[int, ...], bits: int = 8) -> tuple[np.ndarray, np.ndarray]:
        drawn = self.rng.standard_normal(shape).reshape(shape[0], -1)
        scales = np.abs(drawn).max(axis=1, keepdims=True) / (2 ** (bits - 1) - 1)
        codes = np.rint(drawn / scales).astype(np.int8).reshape(shape)
        return codes, (0.02 * scales[:, 0] / np.sqrt(drawn.shape[1])).astype(np.float32)

    def _constant(self, name: str, codes: np.ndarray, scales: np.ndarray) -> str:
        by_channel = scales.reshape(-1, *[1] * (codes.ndim - 1))
        values = (codes * by_channel).astype(np.float32)
        self.constants.append(numpy_helper.from_array(values, name))
        return name

    def _integers(self, name: str, values: list[int]) -> str:
        self.constants.append(numpy_helper.from_array(np.array(values, np.int64), name))
        return name

    def _bias(self, name: str, out: int, scales: np.ndarray) -> int:
        assert self.file is not None, "only files have biases"
        kind, numbers = ("INT32", np.int32) if self.bits == 8 else ("INT64", np.int64)
        return self.file.constant(
            f"{name}.b", np.zeros(out, numbers), kind, scales=scales * self._grid.scale
        )

    def _node(
        self, kind: str, name: str, inputs: list[str], shape: tuple[int, ...], **given: object
    ) -> None:
        self.shapes[name] = shape
        self.nodes.append(helper.make_node(kind, inputs, [name], name=name, **given))

    def _operator(
        self, kind: str, name: str, inputs: list[int], shape: tuple[int, ...], **given: object
    ) -> None:
        assert self.file is not None, "only files have operators"
        self._made(name, shape)
        self.file.operator(kind, inputs, [self.numbers[name]], **given)  # type: ignore[arg-type]

    def _made(self, name: str, shape: tuple[int, ...]) -> None:
        self.shapes[name] = shape
        if self.file is not None and name not in self.numbers:
            last = _batched(shape) if len(shape) == 2 else [1, *shape[1:], shape[0]]
            self.numbers[name] = self.file.tensor(name, last, KINDS[self.bits], grid=self._grid)

    @property
    def _grid(self) -> Grid:
        return GRID if self.bits == 8 else WIDE_GRID


def _batched(shape: tuple[int, ...]) -> list[int]:
    return list(shape) if len(shape) == 2 else [1, *shape]
