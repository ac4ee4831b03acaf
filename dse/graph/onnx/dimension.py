"""Symbolic sizes: their names, and what they are once bound."""

from __future__ import annotations

import ast
import contextlib
import operator
from collections.abc import Callable, Mapping

from dse.errors import GraphError, nearest
from dse.graph.ir.graph import Dim, Graph
from dse.graph.ir.operators import FUSED_ATTENTION
from dse.graph.onnx.rank import SUFFIX, rank_problems

OPERATORS: Mapping[type[ast.operator], Callable[[int, int], int]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
    ast.Div: operator.floordiv,
}
"""The operators that exporters write into the name of a size: `past_sequence_length + 1`."""

CACHES = ("past", "cache", "state", "mem")
"""Parts of names of inputs that carry something over from earlier calls."""
LARGEST = 2**31 - 1
"""Largest size of an axis: the product of two still fits what ONNX counts elements with."""


def dimensions(graph: Graph) -> tuple[str, ...]:
    """The names that must be bound before every shape of the graph is known.

    A size of an input that has no name is called `<input>.<axis>`; a sum such as
    `past_sequence_length + 1` counts as the names in it.
    """
    names: dict[str, None] = {}
    for value in graph.inputs:
        for size in named_shape(graph, value) or ():
            if isinstance(size, str):
                names.update(dict.fromkeys(_names(size)))
    return tuple(names)


def choices(graph: Graph) -> frozenset[str]:
    """Names that may be bound besides `dimensions`: what only a run would tell.

    Branches of an If and iterations of a Loop by its name (of an If also by its condition's),
    sizes of values inside, by declared name or as `<value>.<axis>`, and ranks of inputs.
    """
    found = {f"{value}{SUFFIX}" for value in graph.inputs}
    for node in graph.nodes:
        bodies = [body for body in node.attributes.values() if isinstance(body, Graph)]
        if bodies:
            found.add(node.name)
            found.update(node.inputs[:1] if node.op_type == "If" else ())
        for body in bodies:
            found |= choices(body)
    for value, kind in graph.types.items():
        for axis, size in enumerate(kind.shape or ()):
            found.add(f"{value}.{axis}")
            found.update(_names(size) if isinstance(size, str) else ())
    return frozenset(found)


def named_shape(graph: Graph, value: str) -> tuple[int | str, ...] | None:
    """An input's shape where sizes without a name are called `<input>.<axis>`."""
    kind = graph.types.get(value)
    if kind is None or kind.shape is None:
        return None
    return tuple(
        f"{value}.{axis}" if size is None else size for axis, size in enumerate(kind.shape)
    )


def check(graph: Graph, dims: Mapping[str, int]) -> None:
    """Raises `GraphError` unless `dims` binds every name of the graph, and nothing else.

    All problems come in one message.
    """
    known = dimensions(graph)
    besides = choices(graph) if set(dims) - set(known) else frozenset()
    problems = [f"{name!r} is not bound" for name in known if name not in dims]
    problems += [
        f"{name!r} is not a dimension of the graph{nearest(name, known)}"
        for name in dims
        if name not in known and name not in besides
    ]
    problems += [
        f"{name!r} must be an integer of at least 0 and at most {LARGEST}, got {size!r}"
        for name, size in dims.items()
        if isinstance(size, bool) or not isinstance(size, int) or not 0 <= size <= LARGEST
    ]
    problems += [
        f"{name!r} is 0, so that nothing is computed; expected at least 1"
        for name in sorted(_filled(graph) & dims.keys())
        if dims[name] == 0
    ]
    problems += rank_problems(((value, _rank(graph, value)) for value in graph.inputs), dims)
    if problems:
        named = ", ".join(known) if known else "none, every size is fixed"
        raise GraphError(
            f"{graph.path or graph.name}: dimensions: {'; '.join(problems)}; "
            f"dimensions of the graph: {named}"
        )


def _filled(graph: Graph) -> frozenset[str]:
    """Names of sizes that count what is computed: those of inputs that are no caches.

    A cache, to which something is appended or which is called so, may be empty.
    """
    appended = {
        value
        for node in graph.nodes
        if node.op_type == "Concat" or node.op_type in FUSED_ATTENTION
        for value in (node.inputs[:1] if node.op_type == "Concat" else node.inputs[3:])
    }
    shapes = [
        named_shape(graph, value) or ()
        for value in graph.inputs
        if value not in appended and not any(word in value.lower() for word in CACHES)
    ]
    return frozenset(size for shape in shapes for size in shape if isinstance(size, str))


def _rank(graph: Graph, value: str) -> int | None:
    kind = graph.types.get(value)
    return None if kind is None or kind.shape is None else len(kind.shape)


def bound(size: Dim, dims: Mapping[str, int]) -> int | None:
    """The size as a number; None where a name in it is not bound."""
    if not isinstance(size, str):
        return size
    if size in dims:
        return dims[size]
    tree = _parsed(size)
    return None if tree is None else _value(tree, dims)


def _names(size: str) -> list[str]:
    tree = _parsed(size)
    if tree is None:
        return [size]
    return [node.id for node in ast.walk(tree) if isinstance(node, ast.Name)]


def _parsed(size: str) -> ast.expr | None:
    """The sum, difference, product or quotient that a size is written as, else None."""
    try:
        tree = ast.parse(size, mode="eval").body
    except SyntaxError:
        return None
    allowed = (ast.BinOp, ast.Name, ast.Constant, ast.operator, ast.Load)
    return tree if all(isinstance(node, allowed) for node in ast.walk(tree)) else None


def _value(tree: ast.expr, dims: Mapping[str, int]) -> int | None:
    match tree:
        case ast.Name(id=name):
            return dims.get(name)
        case ast.Constant(value=int(value)):
            return value
        case ast.BinOp(left=left, op=op, right=right) if type(op) in OPERATORS:
            sizes = _value(left, dims), _value(right, dims)
            if sizes[0] is None or sizes[1] is None:
                return None
            with contextlib.suppress(ZeroDivisionError):
                return OPERATORS[type(op)](sizes[0], sizes[1])
    return None
