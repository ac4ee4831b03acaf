"""Q/DQ nodes put into a graph."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from dse.export.constant import Codes
from dse.export.plan import Plan


@dataclass(slots=True, kw_only=True)
class Editor:
    """Puts nodes of a plan into a graph."""

    graph: ir.Graph
    plan: Plan
    _shared: dict[tuple[ir.Value, object], ir.Value] = field(default_factory=dict)
    _made: int = 0

    def edit(self) -> None:
        """Inputs before outputs: what an output's pair writes is what all readers see."""
        nodes = {node.name: node for node in self.graph}
        places = [*self.plan.codes, *self.plan.casts, *self.plan.pairs]
        for key in sorted(places, key=lambda key: key.rpartition("/")[2].startswith("out")):
            name, _, operand = key.rpartition("/")
            node = nodes[name]
            if operand.startswith("in"):
                index = int(operand[2:])
                value = node.inputs[index]
                assert value is not None, f"site {key} is an operand"
                node.replace_input_with(index, self._read(key, value, node))
            else:
                self._write(key, node.outputs[int(operand[3:])], node)

    def _read(self, key: str, value: ir.Value, node: ir.Node) -> ir.Value:
        """What the operand reads instead of `value`."""
        if key in self.plan.codes:
            codes = self.plan.codes[key]
            stored = self._constant(f"{value.name}_codes", codes.codes)
            return self._before(node, self._dequantize(stored, codes))
        if key in self.plan.casts:
            values, type = self.plan.casts[key]
            if values is not None:
                stored = self._constant(f"{value.name}_16", values.numpy().astype(type.numpy()))
                return self._before(node, [self._cast(stored, ir.DataType.FLOAT)])
            shared: object = type
        else:
            shared = self.plan.pairs[key][0]
        if (value, shared) not in self._shared:
            producer = value.producer()
            pair = self._pair(key, value)
            if producer is None:
                self.graph.insert_before(next(iter(self.graph)), pair)
            else:
                self.graph.insert_after(producer, pair)
            self._shared[value, shared] = pair[-1].outputs[0]
        return self._shared[value, shared]

    def _write(self, key: str, value: ir.Value, node: ir.Node) -> None:
        """Makes every reader of an output, the graph's own included, read it through a pair."""
        name = value.name
        value.name = f"{name}_wide"
        pair = self._pair(key, value)
        result = pair[-1].outputs[0]
        result.name = name
        result.shape, result.type = value.shape, value.type
        for user, index in [*value.uses()]:
            if user is not pair[0]:
                user.replace_input_with(index, result)
        for index, output in enumerate(self.graph.outputs):
            if output is value:
                self.graph.outputs[index] = result
        self.graph.insert_after(node, pair)

    def _pair(self, key: str, value: ir.Value) -> list[ir.Node]:
        if key in self.plan.casts:
            narrow = self._cast(value, self.plan.casts[key][1])
            return [narrow, self._cast(narrow.outputs[0], ir.DataType.FLOAT)]
        codes = self.plan.pairs[key][1]
        scale, zero = self._scales(f"{value.name}_{self._made}", codes)
        quantize = ir.node("QuantizeLinear", [value, scale, zero], name=self._name("quantize"))
        read = [quantize.outputs[0], scale, zero]
        return [quantize, ir.node("DequantizeLinear", read, name=self._name("dequantize"))]

    def _dequantize(self, stored: ir.Value, codes: Codes) -> list[ir.Node]:
        scale, zero = self._scales(str(stored.name), codes)
        attributes = {"axis": codes.axis} | ({"block_size": codes.block} if codes.block else {})
        return [
            ir.node(
                "DequantizeLinear", [stored, scale, zero], attributes,
                name=self._name("dequantize"),
            )
        ]  # fmt: skip

    def _scales(self, name: str, codes: Codes) -> tuple[ir.Value, ir.Value]:
        scale = self._constant(f"{name}_scale", codes.scale)
        return scale, self._constant(f"{name}_zero_point", codes.zero_point)

    def _cast(self, value: ir.Value, type: ir.DataType) -> ir.Node:
        return ir.node("Cast", [value], {"to": int(type)}, name=self._name("cast"))

    def _before(self, node: ir.Node, made: list[ir.Node]) -> ir.Value:
        self.graph.insert_before(node, made)
        return made[-1].outputs[0]

    def _constant(self, name: str, array: np.ndarray) -> ir.Value:
        self._made += 1
        unique = name if name not in self.graph.initializers else f"{name}_{self._made}"
        value = ir.Value(name=unique, const_value=ir.tensor(array, name=unique))
        value.type = ir.TensorType(value.const_value.dtype)  # type: ignore[union-attr]
        value.shape = ir.Shape(array.shape)
        self.graph.register_initializer(value)
        return value

    def _name(self, what: str) -> str:
        self._made += 1
        return f"dse_{what}_{self._made}"
