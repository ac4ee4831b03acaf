"""Operators without weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
from torch import Tensor

from dse.export.base import Inexpressible
from dse.export.litert.network import FIRST, KNOWN, LAST, Combined, Network
from dse.export.litert.places import Grid
from dse.export.litert.products import NONE, RELU, activation_of, average, convolution, dense
from dse.export.litert.windows import Window, window_of
from dse.graph.ir.graph import Node


def _orderly(network: Network, node: Node, write: Callable[[int, int], None]) -> None:
    """An operator whose result has the grid of its operand, or float32."""
    source = node.inputs[0]
    grid = network.made[source]
    if network.places.read(node, 0) not in (None, grid):
        raise Inexpressible(
            "a format stands at the input of what only moves values",
            instead="none is written there, or at its output",
        )
    network.result(node, lambda output: write(network.held[source, grid], output), grid)


def _activation(network: Network, node: Node) -> None:
    """Relu and Relu6 that no product has taken."""
    fused = activation_of(network, node)
    if fused == NONE:
        raise Inexpressible("it clips to other ends than 0 and 6", instead=KNOWN)
    name = "RELU" if fused == RELU else "RELU6"
    version = 1 if network.made[node.inputs[0]] is None else 2
    _orderly(network, node, lambda a, b: network.file.operator(name, [a], [b], version=version))


def _max_pool(network: Network, node: Node) -> None:
    _is_image(network, node)
    window = _pool_window(node)
    if len([one for one in node.outputs if one]) > 1 or window.dilations != (1, 1):
        raise Inexpressible("it is dilated, or gives places", instead=KNOWN)
    _orderly(network, node, lambda a, b: _pool(network, "MAX_POOL_2D", (a, b), window))


def _average_pool(network: Network, node: Node) -> None:
    _is_image(network, node)
    window = _pool_window(node)
    if any(window.pads) and node.attributes.get("count_include_pad"):
        raise Inexpressible("it counts the zeros around an image", instead=KNOWN)
    (grid,) = _grids(network, node, 1)
    wanted = network.places.stored(node)
    if grid is not None and wanted is not None and not any(window.pads):
        average(network, node, window, grid, wanted)
        return
    source = network.operand(node)
    network.result(node, lambda b: _pool(network, "AVERAGE_POOL_2D", (source, b), window))


def _pool_window(node: Node) -> Window:
    kernel = node.attributes["kernel_shape"]
    assert isinstance(kernel, tuple), "ONNX has a list there"
    return window_of(node, kernel)


def _pool(network: Network, name: str, tensors: tuple[int, int], window: Window) -> None:
    source, output = tensors
    padding = window.padding(network.file.shape(source)[1:3])
    if padding is None:
        raise Inexpressible(
            f"LiteRT's pools pad as SAME does, and not {list(window.pads)}",
            instead="pads of that kind, or none, are written",
        )
    network.file.operator(
        name, [source], [output], version=2 if network.file.is_code(source) else 1,
        options="Pool2DOptions", padding=padding, strideH=window.strides[0],
        strideW=window.strides[1], filterHeight=window.kernel[0], filterWidth=window.kernel[1],
    )  # fmt: skip


def _mean(network: Network, node: Node) -> None:
    """GlobalAveragePool, or ReduceMean over the two axes of an image."""
    _is_image(network, node)
    if node.op_type == "ReduceMean" and sorted(_axes(network, node)) != [2, 3]:
        raise Inexpressible("it averages other axes than those of an image", instead=KNOWN)
    keep = bool(node.attributes.get("keepdims", 1))
    axes = network.file.constant("axes", np.array([1, 2], np.int32), "INT32")
    (grid,) = _grids(network, node, 1)
    wanted = network.places.stored(node)
    if grid is not None and wanted is not None:
        sources = [network.read(node.inputs[0], grid), axes]
        output = network.write(node.outputs[0], wanted)
        network.file.operator(
            "MEAN", sources, [output], version=2, options="ReducerOptions", keepDims=keep
        )
        network.combined.append(Combined(kind="mean", inputs=(sources[0],), output=output))
        return
    source = network.operand(node)
    network.result(
        node,
        lambda b: network.file.operator(
            "MEAN", [source, axes], [b], options="ReducerOptions", keepDims=keep
        ),
    )


def _axes(network: Network, node: Node) -> list[int]:
    given = node.attributes.get("axes")
    if given is None and len(node.inputs) > 1:
        constant = _constant(network, node, 1)
        given = None if constant is None else tuple(constant.tolist())
    if not isinstance(given, tuple):
        raise Inexpressible("its axes are no constant", instead=KNOWN)
    return [int(axis) % 4 for axis in given]


def _add(network: Network, node: Node) -> None:
    """Add, in integers where both operands are codes and the sum is read as such."""
    grids = _grids(network, node, 2)
    wanted = network.places.stored(node)
    alike = len({network.shape(value) for value in node.inputs}) == 1
    if None not in grids and wanted is not None and alike:
        sides = [network.read(value, grid) for value, grid in zip(node.inputs, grids, strict=True)]
        output = network.write(node.outputs[0], wanted)
        network.file.operator("ADD", sides, [output], version=2, options="AddOptions")
        network.combined.append(Combined(kind="sum", inputs=tuple(sides), output=output))
        return
    operands = [network.operand(node, index) for index in (0, 1)]
    network.result(
        node, lambda b: network.file.operator("ADD", operands, [b], options="AddOptions")
    )


def _grids(network: Network, node: Node, count: int) -> list[Grid | None]:
    """The grids of the first operands: where they are rounded, else where they were made."""
    return [
        network.places.read(node, index) or network.made.get(node.inputs[index])
        for index in range(count)
    ]


def _softmax(network: Network, node: Node) -> None:
    rank = len(network.shape(node.inputs[0]))
    axis = int(str(node.attributes.get("axis", -1)))
    if rank == 4 or axis % rank != rank - 1:
        raise Inexpressible("it runs along another axis than the last of two", instead=KNOWN)
    source = network.operand(node)
    network.result(
        node,
        lambda b: network.file.operator(
            "SOFTMAX", [source], [b], options="SoftmaxOptions", beta=1.0
        ),
    )


def _reshape(network: Network, node: Node) -> None:
    """Reshape and Flatten; what has channels last is turned back before."""
    new = network.shape(node.outputs[0])
    if len(new) == 4 and math.prod(new[1:3]) != 1:
        raise Inexpressible("it makes an image of other values", instead=KNOWN)

    def write(source: int, output: int) -> None:
        shape = network.file.constant("shape", np.array(new, np.int32), "INT32")
        network.file.operator(
            "RESHAPE", [_turned(network, source), shape], [output], options="ReshapeOptions",
            newShape=np.array(new, np.int32),
        )  # fmt: skip

    _orderly(network, node, write)


def _turned(network: Network, source: int) -> int:
    """An image with its channels first."""
    shape = network.file.shape(source)
    if len(shape) != 4 or math.prod(shape[1:3]) == 1:
        return source
    found = network.file.like(source, "turned", [shape[axis] for axis in FIRST])
    order = network.file.constant("order", np.array(FIRST, np.int32), "INT32")
    version = 2 if network.file.is_code(source) else 1
    network.file.operator(
        "TRANSPOSE", [source, order], [found], version=version, options="TransposeOptions"
    )
    return found


def _pad(network: Network, node: Node) -> None:
    """Zeros around an image."""
    _is_image(network, node)
    pads, value = _constant(network, node, 1), _constant(network, node, 2)
    mode = node.attributes.get("mode", "constant")
    zeros = value is None or float(value) == 0
    if pads is None or len(pads) != 8 or mode not in ("constant", b"constant") or not zeros:
        raise Inexpressible("it puts other things than zeros around an image", instead=KNOWN)
    if min(pads.tolist()) < 0:
        raise Inexpressible("it cuts the image", instead=KNOWN)
    numbers = [int(one) for one in pads.tolist()]
    widths = [(numbers[axis], numbers[axis + 4]) for axis in LAST]
    _orderly(network, node, lambda a, b: network.padded(a, b, widths))


def _concat(network: Network, node: Node) -> None:
    """Concat, of codes where all parts have one grid."""
    rank = len(network.shape(node.outputs[0]))
    axis = int(str(node.attributes["axis"])) % rank
    grids = {network.made.get(value) for value in node.inputs}
    # Parts of several grids are brought to that of the whole.
    grid = grids.pop() if len(grids) == 1 else network.places.stored(node)
    sides = [network.read(value, grid) for value in node.inputs]
    network.result(
        node,
        lambda b: network.file.operator(
            "CONCATENATION", sides, [b], version=1 if grid is None else 2,
            options="ConcatenationOptions", axis=LAST.index(axis) if rank == 4 else axis,
        ),
        grid,
    )  # fmt: skip


def _identity(network: Network, node: Node) -> None:
    """A value under another name."""
    source, value = node.inputs[0], node.outputs[0]
    grid = network.made[source]
    network.made[value], network.held[value, grid] = grid, network.held[source, grid]
    stored = network.places.written(node)
    if stored is not None:
        network.read(value, stored)
        network.made[value] = stored


def _cast(network: Network, node: Node) -> None:
    """A cast to the type that the value has already."""
    types = network.recipe.graph.types
    kinds = {types[value].dtype for value in (node.inputs[0], node.outputs[0]) if value in types}
    if kinds != {"float32"}:
        raise Inexpressible("it casts to another type than float32", instead=KNOWN)
    _identity(network, node)


def _constant(network: Network, node: Node, index: int) -> Tensor | None:
    given = node.inputs[index] if len(node.inputs) > index else ""
    return network.recipe.program.constant(given) if given else None


def _is_image(network: Network, node: Node) -> None:
    """Raises `Inexpressible` where an operand has not two axes of space."""
    if len(network.shape(node.inputs[0])) != 4:
        raise Inexpressible("it has no image of two axes", instead=KNOWN)


HANDLERS: Mapping[str, Callable[[Network, Node], None]] = {
    "Conv": convolution,
    "Gemm": dense,
    "MatMul": dense,
    "Add": _add,
    "Relu": _activation,
    "Clip": _activation,
    "MaxPool": _max_pool,
    "AveragePool": _average_pool,
    "GlobalAveragePool": _mean,
    "ReduceMean": _mean,
    "Pad": _pad,
    "Concat": _concat,
    "Reshape": _reshape,
    "Flatten": _reshape,
    "Softmax": _softmax,
    "Identity": _identity,
    "Cast": _cast,
    "Dropout": _identity,
}
"""Operators by name; others are refused."""
