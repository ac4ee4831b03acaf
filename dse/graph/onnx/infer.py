"""Outputs of one node from known input types and small known values, by onnx's own rules."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import onnx
import onnx.reference
from onnx.shape_inference import InferenceError

from dse.graph.ir.attribute import integer
from dse.graph.ir.graph import Graph, Node, TensorType
from dse.graph.ir.known import UNKNOWN, Known, is_concrete
from dse.graph.onnx.contrib import contrib_outputs
from dse.graph.onnx.convert import tensor_type
from dse.graph.onnx.proto import node_proto, tensor_proto, type_proto
from dse.graph.onnx.sequence import sequence_output

MAX_ELEMENTS = 1024
"""Values up to this size are computed: shapes, axes, pads, ranges."""


def squeezes_all(node: Node) -> bool:
    """Whether it is a Squeeze of all sizes of one, whatever they are when it runs."""
    return node.op_type == "Squeeze" and not any(node.inputs[1:]) and "axes" not in node.attributes


@dataclass(frozen=True, slots=True)
class Inference:
    """Node inference with a memory: repeated blocks cost one look-up a node."""

    opsets: Mapping[str, int]
    seen: dict[object, tuple[Known, ...]] = field(default_factory=dict)

    def outputs(
        self, node: Node, inputs: Sequence[Known], captured: Mapping[str, Known]
    ) -> tuple[Known, ...]:
        """The known part of each output; `captured` are values that the node's bodies read.

        Raises:
            onnx.shape_inference.InferenceError: The inputs do not fit the operator.
        """
        if captured or any(isinstance(item, Graph) for item in node.attributes.values()):
            return self._infer(node, inputs, captured)
        key = _key(node, inputs)
        if key not in self.seen:
            self.seen[key] = self._infer(node, inputs, {})
        return self.seen[key]

    def _infer(
        self, node: Node, inputs: Sequence[Known], captured: Mapping[str, Known]
    ) -> tuple[Known, ...]:
        sequence = sequence_output(node, inputs)
        if sequence is not None:
            return (sequence,)
        contributed = contrib_outputs(node, inputs)
        if contributed is not None:
            return contributed
        if node.op_type == "Shape" and inputs[0].complete:
            return (_shape_values(node, inputs[0]),)
        inferred = self._inferred(node, inputs, captured)
        # The types come first, because a constant of four bytes can unfold to a terabyte.
        if _computes(node, inputs) and _stays_small(node, inferred):
            return _evaluated(node, inputs, self.opsets) or inferred
        return inferred

    def _inferred(
        self, node: Node, inputs: Sequence[Known], captured: Mapping[str, Known]
    ) -> tuple[Known, ...]:
        version = self.opsets.get(node.domain, 1)
        if not onnx.defs.has(node.op_type, version, node.domain):
            return (UNKNOWN,) * len(node.outputs)
        names = [f"i{i}" if value else "" for i, value in enumerate(node.inputs)]
        outputs = [f"o{i}" if value else "" for i, value in enumerate(node.outputs)]
        proto = node_proto(node, names, outputs)
        given = {name: known for name, known in zip(names, inputs, strict=True) if name}
        given.update(captured)
        found = _node_types(proto, version, given)
        if any(name and not is_concrete(found.get(name)) for name in outputs):
            # Only whole-model inference expands operators that are defined as functions.
            found |= _model_types(proto, self.opsets, given)
        return tuple(Known(type=_with_rank(node, inputs, found.get(name))) for name in outputs)


def _with_rank(node: Node, inputs: Sequence[Known], found: TensorType | None) -> TensorType | None:
    """A type with as many axes as the operand that holds sizes has entries.

    onnx leaves the rank open where it does not know the sizes themselves.
    """
    at = SIZED.get(node.op_type)
    if at is None or node.domain or found is None or found.shape is not None:
        return found
    sizes = inputs[at].type if at < len(inputs) else None
    if not isinstance(sizes, TensorType) or not sizes.shape or not isinstance(sizes.shape[0], int):
        return found
    return replace(found, shape=(None,) * sizes.shape[0])


def _key(node: Node, inputs: Sequence[Known]) -> object:
    attributes = tuple(
        (name, value.tobytes() if isinstance(value, np.ndarray) else repr(value))
        for name, value in node.attributes.items()
    )
    operands = tuple(
        (known.type, None if known.data is None else known.data.tobytes()) for known in inputs
    )
    outputs = tuple(bool(value) for value in node.outputs)
    return (node.domain, node.op_type, attributes, operands, outputs)


def _evaluated(
    node: Node, inputs: Sequence[Known], opsets: Mapping[str, int]
) -> tuple[Known, ...] | None:
    """The values of a node whose inputs are known; None where the reference lacks the case."""
    names = [f"i{i}" if value else "" for i, value in enumerate(node.inputs)]
    outputs = [f"o{i}" if value else "" for i, value in enumerate(node.outputs)]
    proto = node_proto(node, names, outputs)
    graph = onnx.GraphProto(
        name="node",
        node=[proto],
        input=[onnx.ValueInfoProto(name=name) for name in names if name],
        output=[onnx.ValueInfoProto(name=name) for name in outputs if name],
    )
    imports = [onnx.helper.make_opsetid(domain, version) for domain, version in opsets.items()]
    feeds = {name: known.data for name, known in zip(names, inputs, strict=True) if name}
    try:
        results = onnx.reference.ReferenceEvaluator(
            onnx.helper.make_model(graph, opset_imports=imports)
        ).run(None, feeds)
    except Exception:
        # Other people's implementations of 200 operators raise what they like on odd inputs (an
        # ImportError where Pillow is missing). The node's inferred type stays, which is enough.
        return None
    found = iter(results)
    return tuple(_of_value(next(found)) if name else UNKNOWN for name in outputs)


RANDOM = ("Bernoulli", "Multinomial", "RandomNormal", "RandomUniform", "Dropout")
LABORIOUS = (
    "AffineGrid", "Attention", "AveragePool", "Blackman", "Col2Im", "Conv", "DFT", "Deform",
    "Einsum", "GRU", "GlobalLpPool", "GridSample", "Hamming", "Hann", "ImageDecoder", "LSTM",
    "LpPool", "MaxPool", "MaxRoiPool", "MaxUnpool", "MelWeight", "QLinearConv", "RNN", "Resize",
    "RoiAlign", "STFT", "TfIdf", "Upsample",
)  # fmt: skip
"""Operators whose work the sizes of inputs and outputs do not bound, and that no shape needs."""

SIZED = {"Reshape": 1, "ConstantOfShape": 0}
"""Operators whose output has an axis for each entry of an operand, by the operand's index."""

DATA_SIZED = frozenset({"Compress", "NonMaxSuppression", "NonZero", "Unique", "StringSplit"})
"""Operators whose outputs are as large as data say, but no larger than their inputs."""


def _computes(node: Node, inputs: Sequence[Known]) -> bool:
    """Whether evaluation is possible and means something: no randomness, no bodies."""
    known = all(
        one.data is not None for one, name in zip(inputs, node.inputs, strict=True) if name
    )
    bodies = any(isinstance(value, Graph) for value in node.attributes.values())
    left_out = node.op_type.startswith(RANDOM + LABORIOUS)
    return known and not bodies and node.domain == "" and not left_out and bool(node.inputs)


def _stays_small(node: Node, inferred: Sequence[Known]) -> bool:
    """Whether the outputs have at most `MAX_ELEMENTS` elements, as far as types tell."""
    if node.op_type in DATA_SIZED:
        return True
    found = [one.type for one, name in zip(inferred, node.outputs, strict=True) if name]
    return all(
        isinstance(kind, TensorType)
        and is_concrete(kind)
        and math.prod(kind.shape or ()) <= MAX_ELEMENTS  # type: ignore[arg-type]
        for kind in found
    )


def _of_value(value: object) -> Known:
    if isinstance(value, list):
        return Known(type=tuple(_type_of(np.asarray(item)) for item in value))
    array = np.asarray(value)
    return Known(type=_type_of(array), data=array if array.size <= MAX_ELEMENTS else None)


def _type_of(array: np.ndarray) -> TensorType:
    dtype = "string" if array.dtype.kind in "OUS" else str(array.dtype.name)
    return TensorType(dtype=dtype, shape=array.shape)


def _shape_values(node: Node, known: Known) -> Known:
    kind = known.type
    sizes = kind.shape if isinstance(kind, TensorType) and kind.shape is not None else ()
    start = integer(node, "start", 0)
    end = integer(node, "end", len(sizes))
    return _of_value(np.array(sizes[start:end], dtype=np.int64))


def _node_types(
    proto: onnx.NodeProto, version: int, given: Mapping[str, Known]
) -> dict[str, TensorType | None]:
    schema = onnx.defs.get_schema(proto.op_type, version, proto.domain)
    types, data = _protos(given)
    if any(name and name not in types for name in proto.input):
        return {}
    imports = [onnx.helper.make_opsetid(proto.domain, version)]
    try:
        found = onnx.shape_inference.infer_node_outputs(schema, proto, types, data, None, imports)
    except onnx.checker.ValidationError:
        return {}  # element types that the operator does not take, which exporters do write
    except (ValueError, RuntimeError) as error:
        raise InferenceError(str(error)) from error
    return {name: tensor_type(kind, inferred=True) for name, kind in found.items()}


def _protos(
    given: Mapping[str, Known],
) -> tuple[dict[str, onnx.TypeProto], dict[str, onnx.TensorProto]]:
    types = {
        name: type_proto(known.type)
        for name, known in given.items()
        if isinstance(known.type, TensorType)
    }
    data = {
        name: tensor_proto(name, known.data)
        for name, known in given.items()
        if known.data is not None and known.data.dtype.kind in "biuf"
    }
    return types, data


def _model_types(
    proto: onnx.NodeProto, opsets: Mapping[str, int], given: Mapping[str, Known]
) -> dict[str, TensorType | None]:
    types, data = _protos(given)
    graph = onnx.GraphProto(
        name="node",
        node=[proto],
        input=[
            onnx.ValueInfoProto(name=name, type=kind)
            for name, kind in types.items()
            if name not in data
        ],
        initializer=data.values(),
        output=[onnx.ValueInfoProto(name=name) for name in proto.output if name],
    )
    imports = [onnx.helper.make_opsetid(domain, version) for domain, version in opsets.items()]
    model = onnx.helper.make_model(graph, opset_imports=imports)
    try:
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    except (ValueError, RuntimeError) as error:
        raise InferenceError(str(error)) from error
    return {value.name: tensor_type(value.type, inferred=True) for value in inferred.output}
