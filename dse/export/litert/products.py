"""Products with weights: convolutions and rows by a matrix."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from torch import Tensor

from dse.export.base import Inexpressible
from dse.export.litert.network import KNOWN, Network, Product
from dse.export.litert.places import Grid
from dse.export.litert.windows import VALID, Window, window_of
from dse.export.onnx_qdq.constant import Codes
from dse.export.onnx_qdq.plan import StoredValues, Sum
from dse.graph.ir.graph import Node

NONE, RELU, RELU6 = 0, 1, 3
"""Activations that a product may have, as the schema numbers them."""
INT32_MAX = 2**31 - 1
UNPACKED_VERSIONS = {"FLOAT16": 3, "INT8": 5, "INT4": 6}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kind:
    """An operator that multiplies with a weight."""

    operator: str
    options: str
    versions: Mapping[str, int]
    """By the type of the weight."""
    order: tuple[int, ...]
    """Axes of the model's weight as the file has them."""
    axis: int
    """Of the output channels, in the file."""
    fields: Mapping[str, int] = field(default_factory=dict)
    window: Window | None = None


def convolution(network: Network, node: Node) -> None:
    """Conv of images, plain or depthwise."""
    weight = network.recipe.program.constant(node.inputs[1])
    if weight is None or weight.dim() != 4:
        raise Inexpressible("its weight is no constant of four axes", instead=KNOWN)
    groups, channels = int(str(node.attributes.get("group", 1))), weight.shape[1]
    if groups > 1 and channels > 1:
        raise Inexpressible(
            f"it has {groups} groups of {channels} channels",
            instead="groups of one channel (depthwise) and no groups are written",
        )
    window = window_of(node, tuple(weight.shape[2:]))
    if groups > 1:
        kind = _depthwise(window, len(weight) // groups)
    else:
        kind = _Kind(
            operator="CONV_2D", options="Conv2DOptions", window=window,
            versions={"FLOAT32": 1, "INT8": 3, "INT4": 5}, order=(0, 2, 3, 1), axis=0,
            fields=_dilated(window),
        )  # fmt: skip
    _product(network, node, weight, kind)


def average(network: Network, node: Node, window: Window, met: Grid, grid: Grid) -> None:
    """An average over a window between two grids: a depthwise convolution with ones.

    LiteRT's own pool has one grid on both sides, which would round twice.
    """
    source = network.read(node.inputs[0], met)
    channels, elements = network.file.shape(source)[3], math.prod(window.kernel)
    kind = _depthwise(window, 1)
    scale = np.float32(1 / elements)
    ones = np.ones((1, *window.kernel, channels), np.int8)
    bias = np.zeros(channels, np.int32)
    inputs = (
        source,
        network.file.constant(f"{node.name}_ones", ones, "INT8", scales=np.array(scale), axis=3),
        network.file.constant(
            f"{node.name}_bias", bias, "INT32", scales=np.array(np.float32(met.scale) * scale)
        ),
    )
    output = network.write(node.outputs[0], grid)
    _emit(network, kind, (*inputs, output), "INT8", NONE)
    network.averages.append(
        Product(node=node.name, inputs=inputs, output=output, integer=True, order=kind.order)
    )


def dense(network: Network, node: Node) -> None:
    """Gemm, or MatMul with a weight."""
    weight = network.recipe.program.constant(node.inputs[1])
    plain = all(node.attributes.get(name, 1) == 1 for name in ("alpha", "beta"))
    if weight is None or weight.dim() != 2 or not plain or node.attributes.get("transA"):
        raise Inexpressible("it is no product of rows with a constant matrix", instead=KNOWN)
    kind = _Kind(
        operator="FULLY_CONNECTED", options="FullyConnectedOptions",
        versions={"FLOAT32": 1, "INT8": 4, "INT4": 7},
        order=(0, 1) if node.attributes.get("transB") else (1, 0), axis=0,
        fields={"keepNumDims": len(network.shape(node.inputs[0])) != 2},
    )  # fmt: skip
    _product(network, node, weight, kind)


def _depthwise(window: Window, multiplier: int) -> _Kind:
    return _Kind(
        operator="DEPTHWISE_CONV_2D", options="DepthwiseConv2DOptions", window=window,
        versions={"FLOAT32": 1, "INT8": 3, "INT4": 6}, order=(1, 2, 3, 0), axis=3,
        fields={**_dilated(window), "depthMultiplier": multiplier},
    )  # fmt: skip


def _dilated(window: Window) -> dict[str, int]:
    return {"dilationHFactor": window.dilations[0], "dilationWFactor": window.dilations[1]}


def activation_of(network: Network, node: Node) -> int:
    """The number of the activation that a node is; `NONE` where it is none."""
    if node.op_type == "Relu":
        return RELU
    if node.op_type != "Clip":
        return NONE
    ends = [node.attributes.get("min"), node.attributes.get("max")]
    for index, value in enumerate(node.inputs[1:3]):
        constant = network.recipe.program.constant(value) if value else None
        ends[index] = ends[index] if constant is None else float(constant)
    return RELU6 if ends == [0.0, 6.0] else NONE


def _product(network: Network, node: Node, weight: Tensor, kind: _Kind) -> None:
    """In integers where operands and result are rounded, else in float32."""
    last, fused = _target(network, node)
    grid = network.places.stored(last)
    met = network.places.read(node, 0)
    codes = network.placements.get(f"{node.name}/in1")
    bias = _bias(network, node, len(weight) if kind.order[kind.axis] == 0 else weight.shape[1])
    whole = isinstance(codes, Codes) and met is not None and _bias_codes(bias, codes, met)
    if not isinstance(codes, Codes) or met is None or grid is None or not whole:
        inputs = (
            network.operand(node),
            _float_weight(network, node, weight, kind),
            network.file.constant(f"{node.name}_bias", bias, "FLOAT32"),
        )
        inputs = (_padded(network, inputs[0], kind), *inputs[1:])

        def write(output: int) -> None:
            _emit(network, kind, (*inputs, output), "FLOAT32", fused)

        output = network.result(last, write)
    else:
        inputs = (
            _padded(network, network.read(node.inputs[0], met), kind),
            _codes(network, node, codes, kind),
            _integer_bias(network, node, bias, codes, met),
        )
        output = network.write(last.outputs[0], grid)
        _emit(network, kind, (*inputs, output), _element(codes), fused)
    network.products.append(
        Product(
            node=node.name,
            inputs=inputs,
            output=output,
            integer=network.file.is_code(output),
            order=kind.order,
        )
    )


def _target(network: Network, node: Node) -> tuple[Node, int]:
    """The node that makes a product's result, itself or an activation, and that one's number."""
    places = network.places
    reader = places.only_reader(node.outputs[0])
    if reader is None or places.written(node) is not None or places.read(reader, 0) is not None:
        return node, NONE
    fused = activation_of(network, reader)
    if fused == NONE:
        return node, NONE
    network.done.add(reader.name)
    return reader, fused


def _emit(
    network: Network,
    kind: _Kind,
    tensors: tuple[int, int, int, int],
    element: str,
    fused: int,
) -> None:
    *inputs, output = tensors
    fields = dict(kind.fields)
    if kind.window is not None:
        sizes = network.file.shape(inputs[0])[1:3]
        known = kind.window.padding(sizes)
        height, width = kind.window.strides
        # Where neither name fits, `_padded` has put zeros around.
        fields |= {
            "padding": VALID if known is None else known, "strideH": height, "strideW": width
        }  # fmt: skip
    network.file.operator(
        kind.operator, inputs, [output], version=kind.versions[element], options=kind.options,
        fusedActivationFunction=fused, **fields,
    )  # fmt: skip


def _padded(network: Network, source: int, kind: _Kind) -> int:
    if kind.window is None or kind.window.padding(network.file.shape(source)[1:3]) is not None:
        return source
    top, left, bottom, right = kind.window.pads
    return network.pad(source, [(0, 0), (top, bottom), (left, right), (0, 0)])


def _element(codes: Codes) -> str:
    return "INT4" if codes.codes.dtype.name == "int4" else "INT8"


def _codes(network: Network, node: Node, codes: Codes, kind: _Kind) -> int:
    scale = np.asarray(codes.scale, np.float32)
    return network.file.constant(
        node.inputs[1],
        codes.codes.astype(np.int8).transpose(kind.order),
        _element(codes),
        scales=scale,
        axis=kind.axis if scale.ndim else 0,
    )


def _float_weight(network: Network, node: Node, weight: Tensor, kind: _Kind) -> int:
    """A weight as float32, unpacked where it is stored in fewer bits."""
    placement = network.placements.get(f"{node.name}/in1")
    if isinstance(placement, Codes):
        stored, element = _codes(network, node, placement, kind), _element(placement)
    else:
        values = weight.float().numpy()
        element = "FLOAT32"
        if isinstance(placement, StoredValues):
            values = placement.values
            element = "FLOAT16" if placement.type.name == "FLOAT16" else element
        values = values.astype(element.lower()).transpose(kind.order)
        stored = network.file.constant(node.inputs[1], values, element)
    if element == "FLOAT32":
        return stored
    found = network.file.tensor(f"{node.inputs[1]}_float32", network.file.shape(stored), "FLOAT32")
    network.file.operator("DEQUANTIZE", [stored], [found], version=UNPACKED_VERSIONS[element])
    return found


def _bias(network: Network, node: Node, channels: int) -> npt.NDArray[np.float32]:
    """The sum that is added to a product: its bias, and a correction of its mean."""
    total = np.zeros(channels, np.float32)
    if len(node.inputs) > 2 and node.inputs[2]:
        constant = network.recipe.program.constant(node.inputs[2])
        if constant is None:
            raise Inexpressible("its bias is no constant", instead=KNOWN)
        quantize = network.recipe.bound.get(f"{node.name}/in2")
        values = constant.float() if quantize is None else quantize(constant.float())
        total = total + values.numpy().reshape(-1)
    placement = network.placements.get(f"{node.name}/out0")
    if isinstance(placement, Sum):
        total = total + placement.addend.reshape(-1)
    return total.astype(np.float32)


def _bias_codes(
    bias: npt.NDArray[np.float32], codes: Codes, met: Grid
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]] | None:
    """The bias in units of the 32-bit sum, and these; None where it is larger than they reach.

    It is where a channel's weights are almost zero: such a product stays in float32.
    """
    scales = np.float32(met.scale) * np.asarray(codes.scale, np.float32)
    with np.errstate(divide="ignore", invalid="ignore"):
        rounded = np.rint(np.nan_to_num(bias / scales.astype(np.float64)))
    if np.abs(rounded).max(initial=0) > INT32_MAX:
        return None
    return rounded.astype(np.int32), scales


def _integer_bias(
    network: Network, node: Node, bias: npt.NDArray[np.float32], codes: Codes, met: Grid
) -> int:
    found = _bias_codes(bias, codes, met)
    assert found is not None, "the caller has asked"
    rounded, scales = found
    return network.file.constant(f"{node.name}_bias", rounded, "INT32", scales=scales)
