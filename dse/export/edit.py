"""Q/DQ nodes put into a graph."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from dse.export.constant import Codes
from dse.export.plan import CastPair, Pair, Placement, Plan, StoredValues, Sum


@dataclass(slots=True, kw_only=True)
class Editor:
    """Puts what a plan says into a graph.

    Operands that read one value through equal pairs share one.
    """

    graph: ir.Graph
    plan: Plan
    _shared: dict[tuple[ir.Value, object], ir.Value] = field(default_factory=dict)
    _made: int = 0

    def edit(self) -> None:
        """Inputs before outputs: what an output's pair writes is what all readers see."""
        nodes = {node.name: node for node in self.graph}
        outputs_last = sorted(self.plan.placements, key=lambda key: "/out" in key)
        for key in outputs_last:
            name, _, operand = key.rpartition("/")
            node, placement = nodes[name], self.plan.placements[key]
            if operand.startswith("in"):
                index = int(operand[2:])
                value = node.inputs[index]
                assert value is not None, f"site {key} is an operand"
                node.replace_input_with(index, self._operand(value, node, placement))
            else:
                self._rewrite(node.outputs[int(operand[3:])], node, placement)

    def _operand(self, value: ir.Value, node: ir.Node, placement: Placement) -> ir.Value:
        """What an operand of `node` reads instead of `value`."""
        match placement:
            case Codes():
                return self._before(node, [self._dequantized(str(value.name), placement)])
            case StoredValues(values=values, type=ir.DataType.FLOAT):
                return self._constant(f"{value.name}_corrected", values)
            case StoredValues(values=values, type=type):
                stored = self._constant(f"{value.name}_16", values.astype(type.numpy()))
                return self._before(node, [self._cast(stored, ir.DataType.FLOAT)])
            case CastPair() | Pair():
                return self._passed(value, placement)
            case Sum():
                raise AssertionError("only outputs are summed")

    def _passed(self, value: ir.Value, placement: CastPair | Pair) -> ir.Value:
        shared = placement.type if isinstance(placement, CastPair) else _identity(placement)
        if (value, shared) not in self._shared:
            nodes = self._pair(value, placement)
            producer = value.producer()
            if producer is None:
                self.graph.insert_before(self.graph[0], nodes)
            else:
                self.graph.insert_after(producer, nodes)
            self._shared[value, shared] = nodes[-1].outputs[0]
        return self._shared[value, shared]

    def _rewrite(self, value: ir.Value, node: ir.Node, placement: Placement) -> None:
        """Makes every reader of an output, the graph's own included, read it anew."""
        readers, name = [*value.uses()], value.name
        value.name = f"{name}_before"
        nodes = []
        source = value
        if isinstance(placement, Sum):
            addend = self._constant(f"{name}_correction", placement.addend)
            nodes.append(ir.node("Add", [value, addend], name=self._name("correct")))
            source = nodes[-1].outputs[0]
            then = placement.then
        else:
            assert isinstance(placement, CastPair | Pair), "outputs are not constant"
            then = placement
        if then is not None:
            nodes += self._pair(source, then)
        result = nodes[-1].outputs[0]
        result.name, result.shape, result.type = name, value.shape, value.type
        for user, index in readers:
            user.replace_input_with(index, result)
        for index, output in enumerate(self.graph.outputs):
            if output is value:
                self.graph.outputs[index] = result
        self.graph.insert_after(node, nodes)

    def _pair(self, value: ir.Value, placement: CastPair | Pair) -> list[ir.Node]:
        if isinstance(placement, CastPair):
            narrow = self._cast(value, placement.type)
            return [narrow, self._cast(narrow.outputs[0], ir.DataType.FLOAT)]
        scale = self._constant(f"{value.name}_scale", np.float32(placement.scale))
        zero = self._constant(f"{value.name}_zero_point", placement.zero_point)
        quantize = ir.node("QuantizeLinear", [value, scale, zero], name=self._name("quantize"))
        read = [quantize.outputs[0], scale, zero]
        return [quantize, ir.node("DequantizeLinear", read, name=self._name("dequantize"))]

    def _dequantized(self, name: str, codes: Codes) -> ir.Node:
        stored = self._constant(f"{name}_codes", codes.codes)
        scale = self._constant(f"{name}_scale", codes.scale)
        zero = self._constant(f"{name}_zero_point", codes.zero_point)
        attributes = {"axis": codes.axis} | ({"block_size": codes.block} if codes.block else {})
        name = self._name("dequantize")
        return ir.node("DequantizeLinear", [stored, scale, zero], attributes, name=name)

    def _cast(self, value: ir.Value, type: ir.DataType) -> ir.Node:
        return ir.node("Cast", [value], {"to": int(type)}, name=self._name("cast"))

    def _before(self, node: ir.Node, made: list[ir.Node]) -> ir.Value:
        self.graph.insert_before(node, made)
        return made[-1].outputs[0]

    def _constant(self, name: str, array: npt.NDArray[np.generic] | np.generic) -> ir.Value:
        unique = self._unique(name)
        tensor = ir.tensor(np.asarray(array), name=unique)
        value = ir.Value(
            name=unique, const_value=tensor, type=ir.TensorType(tensor.dtype), shape=tensor.shape
        )
        self.graph.register_initializer(value)
        return value

    def _unique(self, name: str) -> str:
        self._made += 1
        return name if name not in self.graph.initializers else f"{name}_{self._made}"

    def _name(self, what: str) -> str:
        self._made += 1
        return f"dse_{what}_{self._made}"


def _identity(pair: Pair) -> tuple[float, str, float]:
    return pair.scale, pair.zero_point.dtype.name, float(pair.zero_point)
