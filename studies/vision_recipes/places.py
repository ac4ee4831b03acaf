"""Files of equal places of rounding: other tools round what additions read, ours do not.

A tool's file says what it rounds where. `products_alone` leaves the roundings of what products
read, `everywhere` adds those of what sums, means and the outputs are made of.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from studies.vision_recipes.attention import PRODUCTS

VIEWS = ("Pad", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Split")
"""A product reads what one of these hands on."""
MIXERS = ("Add", "ReduceMean", "GlobalAveragePool")
"""What other tools round the operands of, beside products."""
ROUNDING = ("QuantizeLinear", "DequantizeLinear")
LEVELS = 255


def products_alone(source: Path, out: Path) -> None:
    """Writes a file without the roundings of activations that no product reads.

    A range that starts at zero may stand for a ReLU or a Clip that the tool took out: it cuts as
    before.
    """
    model = onnx.load(source)
    graph = model.graph
    moving = _moving(graph)
    makers = {name: node for node in graph.node for name in node.output}
    held = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant":
            held[node.output[0]] = helper.get_node_attr_value(node, "value")
    added: dict[str, onnx.NodeProto] = {}
    for node in graph.node:
        if node.op_type in (*PRODUCTS, *ROUNDING, *VIEWS):
            continue
        for place, name in enumerate(node.input):
            back = makers.get(name)
            if back is None or back.op_type != "DequantizeLinear" or back.input[0] not in moving:
                continue
            rounded = makers[back.input[0]]
            source_name = rounded.input[0]
            top = _top(rounded, held)
            if top is not None:
                clip = f"{source_name}/cut"
                ends = [f"{clip}/low", f"{clip}/high"]
                if clip not in added:
                    graph.initializer.extend(
                        numpy_helper.from_array(np.float32(end), name)
                        for end, name in zip((0.0, top), ends, strict=True)
                    )
                added[clip] = helper.make_node("Clip", [source_name, *ends], [clip])
                source_name = clip
            node.input[place] = source_name
    _leave_outputs(graph, makers, moving)
    graph.node.extend(added.values())
    _sort(graph)
    onnx.save(model, out)


def _top(rounded: onnx.NodeProto, held: dict[str, Any]) -> float | None:
    """The largest value of a QuantizeLinear that has none below zero."""
    if len(rounded.input) < 3:
        return None
    scale, point = (_array(held[name]) for name in rounded.input[1:])
    codes = np.iinfo(point.dtype)
    if point.size != 1 or point.item() != codes.min:
        return None
    return float(scale.item()) * (codes.max - codes.min)


def _array(value: Any) -> NDArray[Any]:
    return np.asarray(numpy_helper.to_array(value) if hasattr(value, "dims") else value)


def _leave_outputs(
    graph: onnx.GraphProto, makers: dict[str, onnx.NodeProto], moving: set[str]
) -> None:
    """Outputs are not rounded: each is what its rounding reads."""
    for output in graph.output:
        back = makers[output.name]
        if back.op_type == "DequantizeLinear" and back.input[0] in moving:
            source = makers[back.input[0]].input[0]
            back.output[0] = f"{output.name}/rounded"
            graph.node.append(helper.make_node("Identity", [source], [output.name]))


def everywhere(source: Path, images: NDArray[Any], out: Path) -> None:
    """Writes a file that rounds operands of sums and means, and outputs, to 8 bits as well.

    Ranges are those of some images.
    """
    model = onnx.load(source)
    graph = model.graph
    moving = _moving(graph)
    makers = {name: node for node in graph.node for name in node.output}
    floats = [
        name
        for node in graph.node
        if node.op_type in MIXERS
        for name in node.input
        if name in moving and name in makers and makers[name].op_type not in ROUNDING
    ]
    ends = [output.name for output in graph.output]
    names = list(dict.fromkeys([*floats, *ends]))
    for node in graph.node:
        for place, name in enumerate(node.input):
            if node.op_type in MIXERS and name in floats:
                node.input[place] = f"{name}/rounded"
    for name in ends:
        makers[name].output[0] = f"{name}/float"
        for node in graph.node:
            for place, read in enumerate(node.input):
                if read == name:
                    node.input[place] = f"{name}/float"
    for name, (low, high) in zip(names, _ranges(source, names, images), strict=True):
        scale = np.float32(max((high - low) / LEVELS, math.ulp(1.0)))
        point = np.uint8(np.clip(round(-low / scale), 0, LEVELS))
        for part, value in (("scale", scale), ("point", point)):
            graph.initializer.append(numpy_helper.from_array(np.asarray(value), f"{name}/{part}"))
        read, made = (f"{name}/float", name) if name in ends else (name, f"{name}/rounded")
        extra = [f"{name}/scale", f"{name}/point"]
        graph.node.extend(
            [
                helper.make_node("QuantizeLinear", [read, *extra], [f"{name}/codes"]),
                helper.make_node("DequantizeLinear", [f"{name}/codes", *extra], [made]),
            ]
        )
    _sort(graph)
    onnx.save(model, out)


def _ranges(source: Path, names: list[str], images: NDArray[Any]) -> Iterator[tuple[float, float]]:
    """Least and largest values of tensors over images, one by one; zero is always between."""
    model = onnx.load(source)
    known = {value.name for value in model.graph.output}
    for name in names:
        if name not in known:
            model.graph.output.append(
                helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
            )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    feed = session.get_inputs()[0].name
    found = np.zeros((len(names), 2))
    for image in images:
        for number, value in enumerate(session.run(names, {feed: image[None]})):
            found[number] = min(found[number, 0], value.min()), max(found[number, 1], value.max())
    yield from ((low, high) for low, high in found.tolist())


def _moving(graph: onnx.GraphProto) -> set[str]:
    """Values that depend on the inputs."""
    held = {tensor.name for tensor in graph.initializer}
    found = {value.name for value in graph.input if value.name not in held}
    for node in graph.node:
        if not found.isdisjoint(node.input):
            found.update(node.output)
    return found


def _sort(graph: onnx.GraphProto) -> None:
    """Puts nodes behind those whose outputs they read."""
    made = {name for node in graph.node for name in node.output}
    waiting, done, order = list(range(len(graph.node))), set[str](), list[onnx.NodeProto]()
    nodes = list(graph.node)
    while waiting:
        ready = {n for n in waiting if all(i in done or i not in made for i in nodes[n].input)}
        order += [nodes[number] for number in sorted(ready)]
        done.update(name for number in ready for name in nodes[number].output)
        waiting = [number for number in waiting if number not in ready]
    del graph.node[:]
    graph.node.extend(order)
