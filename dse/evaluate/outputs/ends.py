"""Ends of a graph: where the loss of an output is read, and what stood after that place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from dse.graph.ir.graph import Graph, Node
from dse.space.schema import OutputKind

SAME_VALUES = frozenset(
    {"Identity", "Cast", "Dropout", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Transpose"}
)
"""Operators that move or rename values and change none."""
CHOSEN = frozenset({"ArgMax", "TopK", "Hardmax"})
"""Operators that keep the place of the largest."""
SAID_BY: Mapping[str, OutputKind] = {"Softmax": "probabilities", "LogSoftmax": "log_probabilities"}
"""The kind of the output of a last operator."""
FLOATS = ("float", "bfloat")
SHIFTED_OPSET = 13
"""From here on Softmax and LogSoftmax normalise one axis, and the last one by default."""


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """The place where a loss is read, and what stood after it."""

    value: str
    kind: OutputKind | None
    reason: str
    axis: int = -1
    flat: bool = False


def ends(graph: Graph, name: str) -> Iterator[End]:
    """Places to read an output: before its last operator, if that only says it in another way."""
    value = before_moves(graph, name)
    node = graph.producer.get(value)
    match node.op_type if node is not None else "":
        case "Softmax" | "LogSoftmax":
            assert node is not None
            yield _softmax_end(graph, node)
        case "Sigmoid":
            assert node is not None
            yield End(value=node.inputs[0], kind="binary", reason="before its Sigmoid")
        case "Log" if node is not None and _is(graph, node.inputs[0], "Softmax"):
            yield from ends(graph, node.inputs[0])
        case "Log" if node is not None and _is(graph, node.inputs[0], "Sigmoid"):
            yield from ends(graph, node.inputs[0])
        case "Exp" if node is not None and _is(graph, node.inputs[0], "LogSoftmax"):
            yield from ends(graph, node.inputs[0])
        case kept if kept in CHOSEN and node is not None:
            yield from _chosen_ends(graph, node)
        case "If" if (kind := _kind_of_branches(graph, value)) is not None:
            # A tensor inside of a body cannot be read, so the output itself is.
            reason = "both branches of an If end so"
            yield End(value=name, kind=kind, reason=reason)
        case _ if not is_float(graph, name):
            yield from _float_ends(graph, name)
        case "Cast" if node is not None and not is_float(graph, node.inputs[0]):
            yield from _float_ends(graph, node.inputs[0])
        case _:
            yield End(value=name, kind=None, reason="")


def _kind_of_branches(graph: Graph, value: str) -> OutputKind | None:
    """The kind of what an If gives, where all of its branches end alike in what says so."""
    kinds = set(_branch_kinds(graph, value))
    return kinds.pop() if len(kinds) == 1 else None


def _branch_kinds(graph: Graph, value: str) -> Iterator[OutputKind | None]:
    value = before_moves(graph, value)
    node = graph.producer.get(value)
    bodies = [] if node is None else [b for b in node.attributes.values() if isinstance(b, Graph)]
    if node is None or (node.op_type != "If" and bodies):
        yield None
    elif bodies:
        at = node.outputs.index(value)
        for body in bodies:
            yield from _branch_kinds(body, body.outputs[at])
    elif node.op_type == "Sigmoid" and is_single(graph.shape(value)):
        yield "probabilities"
    elif node.op_type in SAID_BY and _is_last(graph, _softmax_end(graph, node)):
        yield SAID_BY[node.op_type]
    else:
        yield None


def _is_last(graph: Graph, end: End) -> bool:
    """Whether classes are the last axis alone."""
    shape = graph.shape(end.value)
    return (end.axis == -1 and not end.flat) or (shape is not None and end.axis == len(shape) - 1)


def _softmax_end(graph: Graph, node: Node) -> End:
    modern = graph.opsets.get("", SHIFTED_OPSET) >= SHIFTED_OPSET
    axis = node.attributes.get("axis", -1 if modern else 1)
    assert isinstance(axis, int)
    return End(
        value=node.inputs[0],
        kind="logits",
        reason=f"before its {node.op_type}",
        axis=axis,
        flat=not modern,
    )


def _chosen_ends(graph: Graph, node: Node) -> Iterator[End]:
    """Before an operator that keeps the place of the largest; not of the smallest."""
    last = 0 if node.op_type == "ArgMax" else -1
    axis = node.attributes.get("axis", last)
    assert isinstance(axis, int)
    for end in ends(graph, node.inputs[0]):
        if end.kind is None and node.attributes.get("largest", 1):
            shape = graph.shape(end.value)
            single = shape is not None and shape[axis:][:1] == (1,)
            kind: OutputKind = "regression" if single else "logits"
            yield replace(end, kind=kind, reason=f"before its {node.op_type}", axis=axis)
        else:
            yield end


def _float_ends(graph: Graph, name: str) -> Iterator[End]:
    """The float tensors that an output of another type is computed from."""
    seen: set[str] = set()
    waiting = [name]
    while waiting:
        node = graph.producer.get(waiting.pop(0))
        if node is None or node.op_type == "Shape":
            continue
        if node.op_type in CHOSEN:  # a look-up of names by the place of the largest
            yield from _chosen_ends(graph, node)
            continue
        for value in node.inputs:
            if not value or value in seen or value in graph.initializers:
                continue
            seen.add(value)
            if value in graph.inputs:
                continue
            if is_float(graph, value):
                yield from (
                    replace(end, reason=end.reason or f"before its {node.op_type}")
                    for end in ends(graph, value)
                )
            else:
                waiting.append(value)


def before_moves(graph: Graph, value: str) -> str:
    """The value that operators which change no number were given."""
    node = graph.producer.get(value)
    while node is not None and node.op_type in SAME_VALUES:
        if not is_float(graph, node.inputs[0]) and is_float(graph, value):
            break  # numbers of another type, written as floats
        value = node.inputs[0]
        node = graph.producer.get(value)
    return value


def _is(graph: Graph, value: str, op_type: str) -> bool:
    node = graph.producer.get(before_moves(graph, value))
    return node is not None and node.op_type == op_type


def is_float(graph: Graph, value: str) -> bool:
    """Whether a value is of floats; one without a type counts as such."""
    kind = graph.types.get(value)
    return kind is None or kind.dtype.startswith(FLOATS)


def is_single(shape: Sequence[object] | None) -> bool:
    """Whether there is one number a sample."""
    return shape is not None and len(shape) >= 1 and all(size == 1 for size in shape[1:])
