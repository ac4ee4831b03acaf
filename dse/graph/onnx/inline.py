"""Model-local functions written out where they are called."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import onnx
import onnx.inliner
import onnx.shape_inference

from dse.errors import GraphError
from dse.graph.onnx.order import bodies

MOST_NODES = 100_000
"""Nodes of a model once inlined. Eleven functions that call the one before ten times are a
billion nodes in 3 KB; the largest models in one file have 30,000."""

_Key = tuple[str, str, str]


def inlined(model: onnx.ModelProto, *, where: str) -> onnx.ModelProto:
    """The model without functions of its own.

    Raises:
        GraphError: Functions that call themselves, or unfold to more than `MOST_NODES` nodes.
    """
    if not model.functions:
        return model
    count = _Unfolded(model, where).nodes(model.graph.node)
    if count > MOST_NODES:
        raise GraphError(
            f"{where}: its functions unfold to {count:.3g} nodes, more than {MOST_NODES}: "
            f"{_most_called(model)}; export the model without them"
        )
    try:
        return onnx.inliner.inline_local_functions(model, convert_version=True)
    except (
        RuntimeError,
        ValueError,
        onnx.checker.ValidationError,
        onnx.shape_inference.InferenceError,
    ) as error:
        raise GraphError(f"{where}: cannot inline model-local functions: {error}") from error


class _Unfolded:
    """Number of nodes that functions unfold to, each function looked at once."""

    def __init__(self, model: onnx.ModelProto, where: str) -> None:
        self._functions = {(f.domain, f.name, f.overload): f for f in model.functions}
        self._where = where
        self._known: dict[_Key, int] = {}
        self._open: list[_Key] = []

    def nodes(self, nodes: Iterable[onnx.NodeProto]) -> int:
        """Nodes that these unfold to, those of bodies included.

        Raises:
            GraphError: A function that calls itself.
        """
        return sum(self._node(node) for node in nodes)

    def _node(self, node: onnx.NodeProto) -> int:
        inside = sum(self.nodes(body.node) for body in bodies(node))
        key = (node.domain, node.op_type, node.overload)
        return inside + (self._function(key) if key in self._functions else 1)

    def _function(self, key: _Key) -> int:
        if key in self._open:
            circle = " -> ".join(
                name for _, name, _ in [*self._open[self._open.index(key) :], key]
            )
            raise GraphError(f"{self._where}: functions that call themselves: {circle}")
        if key not in self._known:
            self._open.append(key)
            self._known[key] = self.nodes(self._functions[key].node)
            self._open.pop()
        return self._known[key]


def _most_called(model: onnx.ModelProto) -> str:
    """The function that most nodes call."""

    def calls() -> Iterator[str]:
        names = {function.name for function in model.functions}
        for holder in (model.graph, *model.functions):
            yield from (node.op_type for node in holder.node if node.op_type in names)

    counted = list(calls())
    name = max(counted, key=counted.count)
    return f"{name} is called {counted.count(name)} times"
