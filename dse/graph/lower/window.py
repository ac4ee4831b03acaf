"""Windows and chunks, read off the mask of an attention: keys that a query sees at most."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from dse.graph.ir.attribute import integer
from dse.graph.ir.graph import Node
from dse.graph.ir.operators import FUSED_ATTENTION, LAYOUT
from dse.graph.lower.loops import sizes
from dse.graph.lower.operand import Values

LOCAL = "local_window_size"
"""The attribute of com.microsoft's GroupQueryAttention."""
PASSED_ON = LAYOUT | {"Expand", "Cast", "Identity"}
MIRRORED = {
    "Less": "Greater", "LessOrEqual": "GreaterOrEqual",
    "Greater": "Less", "GreaterOrEqual": "LessOrEqual",
}  # fmt: skip
"""The comparison with its sides exchanged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """A row of positions, shifted by a constant."""

    of_keys: bool
    shift: int


def window(values: Values, node: Node, masks: list[str]) -> int | None:
    """Keys that a query of an attention sees at most; None where nothing bounds them.

    Args:
        values: of the graph at bound sizes.
        node: the attention's last node.
        masks: what is added to its scores or chooses among them.
    """
    found = [size for mask in masks for size in _windows(values, mask)]
    if node.op_type in FUSED_ATTENTION and integer(node, LOCAL, -1) > 0:
        found.append(integer(node, LOCAL, -1))
    return min(found, default=None)


def _windows(values: Values, mask: str) -> Iterator[int]:
    """The windows that must all be kept for a mask to let a key through."""
    node = values.flow.graph.producer.get(mask)
    if node is None:
        return
    if node.op_type in MIRRORED:
        size = _compared(values, node)
        if size is not None:
            yield size
    elif node.op_type == "Equal":
        size = _chunk(values, node)
        if size is not None:
            yield size
    elif node.op_type == "And":
        for value in node.inputs:
            yield from _windows(values, value)
    elif node.op_type in PASSED_ON or (node.op_type == "Where" and _lets_through(values, node)):
        yield from _windows(values, node.inputs[0])


def _lets_through(values: Values, node: Node) -> bool:
    """Whether a Where keeps a score where its condition holds, and drops it elsewhere."""
    kept, dropped = (_number(values, value) for value in node.inputs[1:])
    return kept == 0 and dropped is not None and dropped < 0


def _compared(values: Values, node: Node) -> int | None:
    """The window of `key > query - size` and its other spellings."""
    left, right = (_position(values, value) for value in node.inputs)
    if left is None or right is None or left.of_keys == right.of_keys:
        return None
    key, query = (left, right) if left.of_keys else (right, left)
    comparison = node.op_type if left.of_keys else MIRRORED[node.op_type]
    if not comparison.startswith("Greater"):
        return None
    last = key.shift - query.shift  # key + last > query, or >= it
    size = last if comparison == "Greater" else last + 1
    return size if size > 0 else None


def _chunk(values: Values, node: Node) -> int | None:
    """The size of `key // size == query // size`: chunks that see nothing of each other."""
    left, right = (_position(values, value) for value in node.inputs)
    if left is None or right is None or left.of_keys == right.of_keys:
        return None
    sizes_of = {_divisor(values, value) for value in node.inputs}
    size = sizes_of.pop()
    return size if not sizes_of else None


def _divisor(values: Values, value: str) -> int | None:
    """The whole number that positions are divided by, rounded down."""
    node = values.flow.graph.producer.get(value)
    if node is None:
        return None
    # Exporters take one off a quotient of integers where the rest is negative.
    if node.op_type in PASSED_ON | {"Floor", "Sub"}:
        return _divisor(values, node.inputs[0])
    size = _number(values, node.inputs[1]) if node.op_type == "Div" else None
    return int(size) if size is not None and size >= 1 else None


def _position(values: Values, value: str) -> Position | None:
    """Positions along the keys' axis, the last one, or along the queries', the one before."""
    shape = sizes(values.types, value)
    if len(shape) < 2 or min(shape[-2:]) > 1:
        return None
    return Position(of_keys=shape[-1] > 1, shift=_shift(values, value))


def _shift(values: Values, value: str) -> int:
    """The constant that is added to positions."""
    node = values.flow.graph.producer.get(value)
    if node is None:
        return 0
    if node.op_type in PASSED_ON:
        return _shift(values, node.inputs[0])
    if node.op_type not in ("Add", "Sub"):
        return 0
    sign = 1 if node.op_type == "Add" else -1
    first, second = (_number(values, given) for given in node.inputs)
    if second is not None:
        return _shift(values, node.inputs[0]) + sign * int(second)
    if first is not None and sign > 0:
        return _shift(values, node.inputs[1]) + int(first)
    return 0


def _number(values: Values, value: str) -> float | None:
    """A constant of one element."""
    constant = values.flow.graph.initializers.get(value)
    if constant is None or not constant.has_data or constant.numpy().size != 1:
        return None
    return float(constant.numpy().reshape(()))
