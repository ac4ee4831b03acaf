"""Graph values as operands of work: one name for all copies of a value, and bits."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from dse.graph.ir.graph import Node, TensorType
from dse.graph.ir.operators import LAYOUT, PARTS, TRANSPARENT
from dse.graph.lower.loops import GATES, sizes
from dse.graph.patterns.attention import Operand as Input
from dse.graph.patterns.flow import FLOATS, MATRIX, Flow
from dse.graph.patterns.given import Given
from hwmodels.work.work import Operand, OperandName

WIDE_FLOATS = ("float32", "float64", "bfloat16")
"""Tensors of these types are deployed in the network's own precision."""


@dataclass(frozen=True, kw_only=True)
class Values:
    """Naming, shapes and bits of a graph's values."""

    flow: Flow
    types: Mapping[str, TensorType]
    owner: Mapping[str, str]
    """Region by node."""
    float_bits: int
    given: Mapping[tuple[str, int], Given] = field(default_factory=dict)
    """Formats that operands come in, by node and input."""

    @cached_property
    def pairs(self) -> frozenset[str]:
        """QuantizeLinear and DequantizeLinear that only state the format of a product."""
        return frozenset(name for given in self.given.values() for name in given.inside)

    def in_format(self, operand: Operand, node: Node, index: int) -> Operand:
        """An operand in the format that input `index` of a node comes in, if any."""
        given = self.given.get((node.name, index))
        if given is None:
            return operand
        return replace(operand, quantizer=given.quantizer, is_stored=given.is_stored)

    def moves(self, node: Node) -> bool:
        """Whether a node only hands its first input on: in another place, type or format."""
        return node.op_type in TRANSPARENT or node.name in self.pairs

    def root(self, value: str) -> str:
        """The name that all copies of a value share.

        Views, transposes and casts are copies; a part of a value has a name of its own where its
        producer's kernel writes it (the q of a fused q/k/v product).
        """
        if value in self.flow.static:
            whole = self.flow.back(value, LAYOUT)
            # Parts of one constant are stored side by side: each is a weight of its own.
            return self.flow.back(value, LAYOUT - PARTS) if self._is_less(value, whole) else whole
        while (node := self.flow.graph.producer.get(value)) is not None:
            if not self.moves(node) and not self._is_alias(node):
                break
            value = node.inputs[0]
        return value

    def _is_less(self, value: str, whole: str) -> bool:
        """Whether a constant is a part of another one."""
        return value != whole and math.prod(sizes(self.types, value)) < math.prod(
            sizes(self.types, whole)
        )

    def _is_alias(self, node: Node) -> bool:
        """Whether a node takes a part of a value that was written as a whole."""
        if node.op_type == "SplitToSequence":
            return True
        if node.op_type not in PARTS or not self.flow.is_signal(node.inputs[0]):
            return False
        return self._parts(self.root(node.inputs[0])) is None

    def operand(
        self,
        name: OperandName,
        value: str,
        *,
        axes: Sequence[int] = (),
        shape: Sequence[int] | None = None,
        is_cache: bool = False,
    ) -> Operand:
        """The operand that reads or writes a value."""
        return Operand(
            name=name,
            value=self.root(value),
            shape=tuple(shape) if shape is not None else sizes(self.types, value),
            contraction_axes=tuple(axes),
            is_weight=value in self.flow.static,
            is_cache=is_cache,
            is_part=name != "output" and self._is_part(value),
            bits=self.bits(value),
        )

    def _is_part(self, value: str) -> bool:
        """Whether a value is a part of what its kernel wrote, up to a change of shape."""
        while (node := self.flow.graph.producer.get(value)) is not None:
            if node.op_type in PARTS and node.op_type != "Gather":
                return self.flow.is_signal(node.inputs[0])
            if not self.moves(node):
                return False
            value = node.inputs[0]
        return False

    def input(self, name: OperandName, given: Input, *, axes: Sequence[int]) -> Operand:
        """The operand behind an input of a node."""
        return self.operand(name, given.value, axes=axes)

    def bits(self, value: str) -> int:
        """Bits per element: as stored for constants, `float_bits` for 16-bit floats and wider."""
        dtype = self.types[self.root(value) if value in self.flow.static else value].dtype
        if dtype in WIDE_FLOATS:
            return self.float_bits
        if dtype == "bool":
            return 8
        digits = re.search(r"\d+", dtype)
        if digits is None:
            return self.float_bits
        width = int(digits.group())
        return min(width, self.float_bits) if dtype.startswith(FLOATS) else width

    def stored_bytes(self, value: str) -> int:
        """Bytes of a constant as it is stored."""
        return -(-math.prod(sizes(self.types, value)) * self.bits(value) // 8)

    def outputs(self, value: str) -> list[Operand]:
        """The results of a kernel for `value`: its parts where only parts of it are read."""
        parts = self._parts(value)
        if parts is None:
            return [self.operand("output", value)]
        return [operand for part in parts for operand in self.outputs(part)]

    def stack(self, value: str, axes: Sequence[int]) -> Operand | None:
        """The whole stack behind a weight whose matrix, the last two axes, an index picks of it.

        All of its matrices are stored, whichever the index says; None where nothing is picked.

        Args:
            value: a factor of a product, of the bound shape (..., rows, columns).
            axes: its contraction axes.
        """
        table = self.flow.table(value)
        if table is None:
            return None
        picked = sizes(self.types, value)
        matrix = picked[-MATRIX:]
        count = math.prod(sizes(self.types, table.inputs[0])) // max(math.prod(matrix), 1)
        skipped = len(picked) - len(matrix) - 1
        whole = [axis - skipped for axis in axes]
        return self.operand("weight", table.inputs[0], axes=whole, shape=(count, *matrix))

    def result(self, node: Node) -> str:
        """The first output of a node that has a name; an LSTM may give its last state alone."""
        return next(value for value in node.outputs if value)

    def results(self, node: Node) -> list[Operand]:
        """The tensors that a node's kernel writes: of a recurrent layer its last states, too."""
        named = [value for value in node.outputs if value]
        written = named if node.op_type in GATES else named[:1]
        return [operand for value in written for operand in self.outputs(value)]

    def is_sequence(self, node: Node) -> bool:
        """Whether a node gives a sequence of tensors: a list of places, which nothing writes."""
        return self.result(node) not in self.types

    def members(self, value: str) -> Iterator[str]:
        """The tensors behind a value: itself, or those that a sequence is made of.

        What a loop appends to a sequence is not known one by one, and left out.
        """
        if value in self.types:
            yield value
            return
        node = self.flow.producer(value)
        if node is not None and node.op_type in ("SequenceConstruct", "SequenceInsert"):
            for part in node.inputs[:2] if node.op_type == "SequenceInsert" else node.inputs:
                yield from self.members(part)

    def _parts(self, value: str) -> list[str] | None:
        """The parts that the producer's own region takes of a value, if nothing else reads it."""
        queue, parts = [value], list[str]()
        region = self._region(value)
        while queue:
            current = queue.pop()
            if current in self.flow.graph.outputs:
                return None
            for reader in self.flow.consumers(current):
                if self.moves(reader) or reader.op_type == "SplitToSequence":
                    queue += reader.outputs
                elif reader.op_type in PARTS and self.owner[reader.name] == region:
                    parts += [part for part in reader.outputs if part]
                else:
                    return None
        return sorted(parts, key=self._place) or None

    def _region(self, value: str) -> str:
        node = self.flow.producer(value)
        return self.owner[node.name] if node else ""

    def _place(self, value: str) -> tuple[int, int]:
        node = self.flow.graph.producer[value]
        return self.flow.position[node.name], node.outputs.index(value)
