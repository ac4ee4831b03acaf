"""Elementwise nodes as operations: a written-out activation is one."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from dse.graph.ir.graph import Node
from dse.graph.ir.operators import ARITHMETIC, ELEMENTWISE
from dse.graph.patterns.flow import Flow

KERNELS = ("Sigmoid", "Erf", "Tanh", "HardSigmoid")
"""Operators that the written-out activations turn on."""
GELU_OPSET = 20
"""The opset that brought `Gelu`."""
MERGES = ("Add", "Sub", "Mul", "Div")
DETAILS = {"Clip": "clip", "HardSwish": "hardswish", "FastGelu": "gelu", "QuickGelu": "gelu"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Pointwise:
    """One elementwise operation: a node, or the nodes of a written-out activation."""

    detail: str
    nodes: tuple[Node, ...]
    inputs: tuple[str, ...]
    """Signal values that it reads, then constants that are more than a number."""
    output: str


def pointwise(flow: Flow, nodes: Sequence[Node]) -> tuple[Pointwise, ...]:
    """The elementwise operations among `nodes`, which are in topological order."""
    own = {node.name: node for node in nodes if node.op_type in ELEMENTWISE}
    groups: dict[str, Pointwise] = {}
    for node in own.values():
        if node.op_type in KERNELS and node.name not in groups:
            group = _activation(flow, node, own)
            if group is not None:
                groups |= dict.fromkeys((member.name for member in group.nodes), group)
    found = [groups.get(name) or _single(flow, node) for name, node in own.items()]
    return tuple({group.output: group for group in found}.values())


def as_written(flow: Flow, group: Pointwise) -> tuple[Pointwise, ...]:
    """The nodes of an activation that the model's author wrote out; none for one kernel.

    From opset 20 on exporters have an operator for GELU, so that a chain around `Tanh` or `Erf`
    is the model's own. Shorter chains (`x * sigmoid(x)`) are how exporters write one kernel.
    """
    kinds = {node.op_type for node in group.nodes}
    own = kinds & {"Tanh", "Erf"} and flow.graph.opsets.get("", 1) >= GELU_OPSET
    return tuple(_single(flow, node) for node in group.nodes) if own and len(kinds) > 1 else ()


def _single(flow: Flow, node: Node) -> Pointwise:
    return Pointwise(
        detail=_detail(flow, node),
        nodes=(node,),
        inputs=tuple(_operands(flow, node)),
        output=node.outputs[0],
    )


def _detail(flow: Flow, node: Node) -> str:
    constants = [v for v in node.inputs if v in flow.static and not _is_number(flow, v)]
    if node.op_type == "Add" and constants:
        return "bias"
    return DETAILS.get(node.op_type, node.op_type.lower())


def _operands(flow: Flow, node: Node) -> Iterator[str]:
    yield from flow.signal_inputs(node)
    yield from (
        value
        for value in dict.fromkeys(node.inputs)
        if value and not flow.is_signal(value) and not _is_number(flow, value)
    )


def _is_number(flow: Flow, value: str) -> bool:
    kind = flow.graph.types.get(value)
    if kind is None or kind.shape is None:
        return False
    return math.prod(size if isinstance(size, int) else 2 for size in kind.shape) == 1


def _activation(flow: Flow, kernel: Node, own: dict[str, Node]) -> Pointwise | None:
    """The nodes around `kernel` that depend on one value alone: x * sigmoid(x), gelu, ..."""
    members = _cone(flow, kernel, own)
    entries = _entries(flow, members)
    if len(entries) != 1:
        return None
    last = kernel
    while True:
        readers = flow.consumers(last.outputs[0])
        follower = readers[0] if len(readers) == 1 else None
        if follower is None or follower.name not in own or follower.op_type not in MERGES:
            break
        grown = members | _cone(flow, follower, own)
        if _entries(flow, grown) != entries:
            break
        members, last = grown, follower
    if len(members) == 1 or last is kernel:
        return None
    nodes = tuple(sorted(members.values(), key=lambda node: flow.position[node.name]))
    return Pointwise(
        detail=_named(nodes), nodes=nodes, inputs=tuple(entries), output=last.outputs[0]
    )


def _cone(flow: Flow, node: Node, own: dict[str, Node]) -> dict[str, Node]:
    """The node and what computes its operands with nothing but numbers."""
    members: dict[str, Node] = {node.name: node}
    queue = flow.signal_inputs(node)
    while queue:
        source = flow.producer(queue.pop())
        if source is None or source.name not in own or source.name in members:
            continue
        numbers = all(_is_number(flow, v) for v in source.inputs if v and not flow.is_signal(v))
        inside = source.op_type in ARITHMETIC or source.op_type in KERNELS
        if numbers and inside and not _merges_branches(flow, source, own):
            members[source.name] = source
            queue += flow.signal_inputs(source)
    return members


def _merges_branches(flow: Flow, node: Node, own: dict[str, Node]) -> bool:
    """Whether a node joins values of different origin: a residual sum, gate times up."""
    origins = [_origin(flow, value, own) for value in flow.signal_inputs(node)]
    return len(set(origins)) > 1


def _origin(flow: Flow, value: str, own: dict[str, Node]) -> str:
    """The value behind elementwise nodes with one operand each, along the first operand."""
    while (node := flow.producer(value)) is not None and node.name in own:
        if any(not _is_number(flow, v) for v in node.inputs if v and not flow.is_signal(v)):
            return value
        value = flow.signal_inputs(node)[0]
    return value


def _entries(flow: Flow, members: dict[str, Node]) -> list[str]:
    made = {value for node in members.values() for value in node.outputs}
    values = [v for node in members.values() for v in flow.signal_inputs(node) if v not in made]
    return sorted(set(values))


def _named(nodes: Sequence[Node]) -> str:
    kinds = {node.op_type for node in nodes}
    if "Erf" in kinds or "Tanh" in kinds:
        return "gelu"
    return "hardswish" if "HardSigmoid" in kinds else "silu"
