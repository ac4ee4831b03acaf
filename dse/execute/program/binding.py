"""A node's attributes and types bound to the function of its operator, once."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, partial

import numpy as np
import torch
from torch import Tensor

from dse.execute.operators import cast, extent, quantization, shape
from dse.execute.operators.dtype import BY_NAME, WITHOUT_ARITHMETIC, to_torch
from dse.execute.operators.operator import Function, Operator
from dse.execute.operators.table import OPERATORS
from dse.graph.ir.graph import Graph, Node

_MOVES_ONLY = (
    cast.OPERATORS.keys()
    | extent.OPERATORS.keys()
    | quantization.OPERATORS.keys()
    | shape.OPERATORS.keys()
)
"""Operators that take unsigned 16- to 64-bit integers as they are."""

_MEANINGLESS = frozenset({"consumed_inputs"})
"""Attributes of opset 1 that never had an effect."""


@cache
def _keywords(function: Function) -> frozenset[str]:
    try:
        parameters = inspect.signature(function).parameters.values()
    except ValueError:  # torch's builtins have no signature, and no attributes
        return frozenset()
    return frozenset(p.name for p in parameters if p.kind is p.KEYWORD_ONLY)


def keyword(attribute: str) -> str:
    """`transA` -> `trans_a`, `K` -> `k`."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", attribute).lower()


def operator_of(node: Node) -> Operator | None:
    """The table's entry for a node."""
    return OPERATORS.get((node.domain, node.op_type))


def problem(node: Node, graph: Graph) -> str | None:
    """The reason why a node cannot be executed, without its name; None where it can."""
    what = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
    operator = operator_of(node)
    if operator is None:
        return what
    opset = graph.opsets.get(node.domain, 1)
    function = operator.function(opset)
    if function is None:
        return f"{what} of opset {opset} (known from opset {min(operator.versions)} on)"
    known = _keywords(function) | _MEANINGLESS
    unknown = [name for name in node.attributes if keyword(name) not in known]
    if unknown:
        return f"{what} with attribute {', '.join(unknown)}"
    types = (
        graph.types[name].dtype for name in (*node.inputs, *node.outputs) if name in graph.types
    )
    foreign = sorted({dtype for dtype in types if dtype not in BY_NAME})
    return f"{what} on {', '.join(foreign)} tensors" if foreign else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """The function that a node calls."""

    call: Callable[..., object]
    macs: Callable[..., int] | None


def bind(
    node: Node,
    graph: Graph,
    *,
    device: torch.device,
    body: Callable[[Graph], object],
) -> Binding:
    """The function of a node that `problem` has nothing against; `body` compiles its graphs."""
    operator = OPERATORS[node.domain, node.op_type]
    function = operator.function(graph.opsets.get(node.domain, 1))
    if function is None:
        raise KeyError(node.op_type)
    attributes = {keyword(name): _decoded(value, body) for name, value in node.attributes.items()}
    given: dict[str, object] = {
        **attributes,
        "device": device,
        "input_types": tuple(_types(node.inputs, graph)),
        "output_count": len(node.outputs),
    }
    call = _partial(function, given)
    has_bodies = any(isinstance(value, Graph) for value in node.attributes.values())
    if node.op_type not in _MOVES_ONLY and not has_bodies:  # their nodes have arithmetic
        call = _with_arithmetic(call, node, graph)
    macs = None if operator.macs is None else _partial(operator.macs, given)
    return Binding(call=call, macs=macs)  # type: ignore[arg-type]


def _partial(function: Function, given: Mapping[str, object]) -> Function:
    chosen = {name: given[name] for name in _keywords(function) if name in given}
    return partial(function, **chosen) if chosen else function


def _decoded(value: object, body: Callable[[Graph], object]) -> object:
    if isinstance(value, np.ndarray):
        return to_torch(value)
    return body(value) if isinstance(value, Graph) else value


def _types(names: tuple[str, ...], graph: Graph) -> Iterator[str | None]:
    for name in names:
        kind = graph.types.get(name)
        yield kind.dtype if kind else None


def _with_arithmetic(call: Function, node: Node, graph: Graph) -> Function:
    """The call on int64 where torch has no arithmetic on an input's type."""
    known = [name for name in _types(node.inputs, graph) if name]
    if not any(BY_NAME[name].carrier in WITHOUT_ARITHMETIC for name in known):
        return call
    narrow = [BY_NAME[name].carrier if name else None for name in _types(node.outputs, graph)]

    def widened(*inputs: object) -> object:
        result = call(*map(_widened, inputs))
        outputs = result if isinstance(result, tuple) else (result,)
        restored = tuple(
            value.to(dtype) if isinstance(value, Tensor) and dtype is not None else value
            for value, dtype in zip(outputs, narrow, strict=False)
        )
        return restored if isinstance(result, tuple) else restored[0]

    return widened


def _widened(value: object) -> object:
    if isinstance(value, Tensor) and value.dtype in WITHOUT_ARITHMETIC:
        return value.to(torch.int64)
    return value
