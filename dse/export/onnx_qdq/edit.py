"""Q/DQ nodes put into a graph."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from dse.export.onnx_qdq.constant import Codes
from dse.export.onnx_qdq.plan import (
    CastPair,
    DynamicBlocks,
    Pair,
    Placement,
    Plan,
    StoredValues,
    Sum,
)

FLOAT = ir.DataType.FLOAT
TENSORRT = "trt"
"""The domain of TensorRT's own operators."""


@dataclass(slots=True, kw_only=True)
class Editor:
    """Puts what a plan says into a graph.

    Operands that read one value through equal pairs share one. Scales, and what they multiply,
    are float32 as the emulator's are; where the model itself is of 16 bits, casts stand around
    them, since scales of 16 bits would round.
    """

    graph: ir.Graph
    plan: Plan
    _shared: dict[tuple[ir.Value, object], ir.Value] = field(default_factory=dict)
    _stored: dict[tuple[str, tuple[int, ...], bytes], ir.Value] = field(default_factory=dict)
    """Codes and scales by type, shape and digest: a weight that is read twice is stored once."""
    _made: int = 0

    def edit(self) -> None:
        """Inputs before outputs: what an output's pair writes is what all readers see."""
        nodes = {node.name: node for node in ir.traversal.RecursiveGraphIterator(self.graph)}
        outputs_last = sorted(self.plan.placements, key=lambda key: "/out" in key)
        for key in outputs_last:
            name, _, operand = key.rpartition("/")
            node, placement = nodes[name], self.plan.placements[key]
            type = self.plan.types[key]
            if operand.startswith("in"):
                index = int(operand[2:])
                value = node.inputs[index]
                assert value is not None, f"site {key} is an operand"
                node.replace_input_with(index, self._operand(value, node, placement, type))
            else:
                self._rewrite(node.outputs[int(operand[3:])], node, placement, type)

    def _operand(
        self, value: ir.Value, node: ir.Node, placement: Placement, type: ir.DataType
    ) -> ir.Value:
        """The value that an operand of `node` reads instead of `value`."""
        match placement:
            case Codes():
                return self._before(node, self._dequantized(str(value.name), placement, type))
            case StoredValues(values=values, type=stored_as):
                name = f"{value.name}_stored"
                stored = self._constant(name, values.astype(stored_as.numpy()))
                if stored_as == type:
                    return stored
                return self._before(node, [self._cast(stored, type)])
            case CastPair() | Pair():
                return self._passed(value, placement, type)
            case DynamicBlocks():
                return self._before(node, self._blocks(value, placement, type))
            case Sum():
                raise AssertionError("only outputs are summed")

    def _passed(self, value: ir.Value, placement: CastPair | Pair, type: ir.DataType) -> ir.Value:
        shared = placement.type if isinstance(placement, CastPair) else _identity(placement)
        if (value, shared) not in self._shared:
            nodes = self._pair(value, placement, type)
            producer = value.producer()
            if producer is None:
                given = _graph_of(value.graph) or self.graph
                given.insert_before(given[0], nodes)
            else:
                _around(producer).insert_after(producer, nodes)
            self._shared[value, shared] = nodes[-1].outputs[0]
        return self._shared[value, shared]

    def _rewrite(
        self, value: ir.Value, node: ir.Node, placement: Placement, type: ir.DataType
    ) -> None:
        """Makes every reader of an output, the graph's own included, read it anew."""
        readers, name = [*value.uses()], value.name
        value.name = f"{name}_before"
        nodes = []
        source = value
        if isinstance(placement, Sum):
            addend = self._constant(f"{name}_correction", placement.addend.astype(type.numpy()))
            nodes.append(self._node("correct", "Add", [value, addend]))
            source = nodes[-1].outputs[0]
            then = placement.then
        else:
            assert isinstance(placement, CastPair | Pair), "outputs are not constant"
            then = placement
        if then is not None:
            nodes += self._pair(source, then, type)
        result = nodes[-1].outputs[0]
        result.name, result.shape, result.type = name, value.shape, value.type
        for user, index in readers:
            user.replace_input_with(index, result)
        around = _around(node)
        for index, output in enumerate(around.outputs):
            if output is value:
                around.outputs[index] = result
        around.insert_after(node, nodes)

    def _pair(
        self, value: ir.Value, placement: CastPair | Pair, type: ir.DataType
    ) -> list[ir.Node]:
        if isinstance(placement, CastPair):
            narrow = self._cast(value, placement.type)
            return [narrow, self._cast(narrow.outputs[0], type)]
        nodes = []
        if type != FLOAT:
            nodes.append(self._cast(value, FLOAT))
        scale = self._constant(f"{value.name}_scale", np.float32(placement.scale))
        zero = placement.zero_point
        source = nodes[-1].outputs[0] if nodes else value
        if placement.bare:
            shift, said = [], {"output_dtype": int(ir.DataType.from_numpy(zero.dtype))}
        else:
            shift, said = [self._constant(f"{value.name}_zero_point", zero)], {}
        quantize = self._node("quantize", "QuantizeLinear", [source, scale, *shift], said)
        read = [quantize.outputs[0], scale, *shift]
        nodes += [quantize, self._node("dequantize", "DequantizeLinear", read)]
        return self._typed(nodes, type)

    def _dequantized(self, name: str, codes: Codes, type: ir.DataType) -> list[ir.Node]:
        stored = self._constant(f"{name}_codes", codes.codes)
        nodes, scale, attributes = self._scale(name, codes)
        read = [stored, scale]
        if codes.zero_point is not None:
            read.append(self._constant(f"{name}_zero_point", codes.zero_point))
        attributes |= {"axis": codes.axis} | ({"block_size": codes.block} if codes.block else {})
        nodes.append(self._node("dequantize", "DequantizeLinear", read, attributes))
        return self._typed(nodes, type)

    def _blocks(
        self, value: ir.Value, placement: DynamicBlocks, type: ir.DataType
    ) -> list[ir.Node]:
        """TensorRT's operator gives codes and block scales; both are read by DequantizeLinear."""
        level = self._constant(f"{value.name}_level", np.float32(placement.level))
        where = {"axis": placement.axis, "block_size": placement.block}
        dynamic = self._node(
            "quantize",
            "TRT_FP4DynamicQuantize",
            [value, level],
            {**where, "scale_type": int(ir.DataType.FLOAT8E4M3FN)},
            domain=TENSORRT,
            outputs=2,
        )
        codes, scales = dynamic.outputs
        read = self._node("dequantize", "DequantizeLinear", [scales, level])
        values = self._node("dequantize", "DequantizeLinear", [codes, read.outputs[0]], where)
        return self._typed([dynamic, read, values], type)

    def _scale(self, name: str, codes: Codes) -> tuple[list[ir.Node], ir.Value, dict[str, int]]:
        """Nodes that make the scale, the value that has it, and what its type asks of the reader.

        Only E8M0 is taken as it is, the output's type said; other narrow floats become float32.
        """
        stored = self._constant(f"{name}_scale", codes.scale)
        if codes.level is not None:
            level = self._constant(f"{name}_level", codes.level)
            nodes = [self._node("dequantize", "DequantizeLinear", [stored, level])]
        elif stored.dtype == FLOAT:
            return [], stored, {}
        elif stored.dtype == ir.DataType.FLOAT8E8M0:
            return [], stored, {"output_dtype": int(FLOAT)}
        else:
            nodes = [self._cast(stored, FLOAT)]
        return nodes, nodes[-1].outputs[0], {}

    def _typed(self, nodes: list[ir.Node], type: ir.DataType) -> list[ir.Node]:
        """The nodes with what gives their float32 result the model's type."""
        return nodes if type == FLOAT else [*nodes, self._cast(nodes[-1].outputs[0], type)]

    def _cast(self, value: ir.Value, type: ir.DataType) -> ir.Node:
        return self._node("cast", "Cast", [value], {"to": int(type)})

    def _node(
        self,
        what: str,
        op_type: str,
        inputs: list[ir.Value],
        attributes: dict[str, int] | None = None,
        *,
        domain: str = "",
        outputs: int = 1,
    ) -> ir.Node:
        """A node whose results have names that no body of the graph has."""
        self._made += 1
        name = f"dse_{what}_{self._made}"
        made = ir.node(
            op_type, inputs, attributes or {}, domain=domain, num_outputs=outputs, name=name
        )
        for number, output in enumerate(made.outputs):
            output.name = f"{name}_result{number or ''}"
        return made

    def _before(self, node: ir.Node, made: list[ir.Node]) -> ir.Value:
        _around(node).insert_before(node, made)
        return made[-1].outputs[0]

    def _constant(self, name: str, array: npt.NDArray[np.generic] | np.generic) -> ir.Value:
        array = np.asarray(array, order="C")  # a scalar keeps having no axes
        digest = hashlib.sha256(array.tobytes()).digest() if array.ndim else b""
        key = array.dtype.name, array.shape, digest
        if array.ndim and key in self._stored:
            return self._stored[key]
        unique = self._unique(name)
        tensor = ir.tensor(array, name=unique)
        value = ir.Value(
            name=unique, const_value=tensor, type=ir.TensorType(tensor.dtype), shape=tensor.shape
        )
        self.graph.register_initializer(value)
        self._stored[key] = value
        return value

    def _unique(self, name: str) -> str:
        self._made += 1
        return name if name not in self.graph.initializers else f"{name}_{self._made}"


def _around(node: ir.Node) -> ir.Graph:
    """The graph that a node is in: the model's, or a body."""
    found = _graph_of(node.graph)
    assert found is not None, "nodes of a model are in graphs"
    return found


def _graph_of(found: ir.Graph | ir.Function | None) -> ir.Graph | None:
    return found if isinstance(found, ir.Graph) else None


def _identity(pair: Pair) -> tuple[float, str, float]:
    return pair.scale, pair.zero_point.dtype.name, float(pair.zero_point)
