"""Types that onnx's inference leaves open: axes of a body's operators that stand outside of it.

onnx looks into bodies without the values of what they capture, so that behind a Squeeze whose axes
are an initializer of the model no rank is known; our own rules see them. What remains open gets
the rank that its reader takes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from onnx.shape_inference import InferenceError

from dse.graph.ir.flat import LOOP_HEAD, carried_count, is_spliced
from dse.graph.ir.graph import Dim, Graph, Node, TensorType
from dse.graph.ir.known import UNKNOWN, Known
from dse.graph.ir.operators import RECURRENT
from dse.graph.onnx.bound import constant_known
from dse.graph.onnx.infer import Inference, squeezes_all

SEQUENCE_AXES = 3
MATRIX_AXES = 2
SIZES = ("int32", "int64")
"""Element types of values that hold sizes."""


def completed(graph: Graph) -> Graph:
    """The graph with the ranks, and the sizes where they follow, of values that had none."""
    if not any(_open_values(graph)):
        return graph
    completion = _Completion(inference=Inference(graph.opsets))
    for value in graph.inputs:
        completion.known[value] = Known(type=graph.types.get(value))
    completion.through(graph)
    return completion.applied(graph)


def _open_values(graph: Graph) -> Iterator[str]:
    """Results without a rank, those of bodies among them."""
    for node in graph.nodes:
        yield from (value for value in node.outputs if value and not _has_rank(graph, value))
        for body in _bodies(node):
            yield from _open_values(body)


def _has_rank(graph: Graph, value: str) -> bool:
    kind = graph.types.get(value)
    return kind is not None and kind.shape is not None


def _is_settled(graph: Graph, value: str) -> bool:
    """Whether a value has a rank, and as many entries as are known where others' ranks follow."""
    kind = graph.types.get(value)
    if kind is None or kind.shape is None:
        return False
    holds_sizes = kind.dtype in SIZES and len(kind.shape) == 1
    return not holds_sizes or isinstance(kind.shape[0], int)


def _bodies(node: Node) -> list[Graph]:
    return [body for body in node.attributes.values() if isinstance(body, Graph)]


@dataclass(kw_only=True)
class _Completion:
    """Types and small constants known so far; names are unique over all bodies."""

    inference: Inference
    known: dict[str, Known] = field(default_factory=dict)

    def through(self, graph: Graph) -> None:
        self.known |= {name: constant_known(one) for name, one in graph.initializers.items()}
        for node in graph.nodes:
            self._ask(node)
            for value, found in zip(node.outputs, self._found(graph, node), strict=True):
                if value:
                    self.known[value] = found

    def _found(self, graph: Graph, node: Node) -> Iterator[Known]:
        """The knowledge of each result: what follows where that has a rank, else the file's."""
        followed = self._outputs(graph, node)
        for at, value in enumerate(node.outputs):
            found = followed[at] if at < len(followed) else UNKNOWN
            kept = found.data is not None or (_ranked(found) and not _is_settled(graph, value))
            yield found if kept else Known(type=graph.types.get(value))

    def _ask(self, node: Node) -> None:
        """Gives inputs that are still open the rank that the operator takes."""
        value = node.inputs[0] if node.inputs else ""
        rank = self._taken_rank(node)
        open_kind = self.known.get(value, UNKNOWN).type
        if value and rank and not _ranked(self.known.get(value, UNKNOWN)):
            dtype = open_kind.dtype if isinstance(open_kind, TensorType) else "float32"
            self.known[value] = Known(type=TensorType(dtype=dtype, shape=(None,) * rank))

    def _taken_rank(self, node: Node) -> int | None:
        if node.op_type in RECURRENT:
            return SEQUENCE_AXES
        if node.op_type == "Gemm":
            return MATRIX_AXES
        if node.op_type in ("Conv", "ConvTranspose"):
            kind = self.known.get(node.inputs[1], UNKNOWN).type
            shape = kind.shape if isinstance(kind, TensorType) else None
            return None if shape is None else len(shape)
        return None

    def _outputs(self, graph: Graph, node: Node) -> tuple[Known, ...]:
        if is_spliced(node, graph.opsets):
            return self._control(node)
        if squeezes_all(node):
            return self._squeezed(node)
        inputs = [self.known.get(value, UNKNOWN) for value in node.inputs]
        constant = inputs and all(one.data is not None for one in inputs)
        if not constant and all(_is_settled(graph, value) for value in node.outputs if value):
            return ()
        captured = {
            v: self.known[v] for v in node.reads if v in self.known if v not in node.inputs
        }
        try:
            return self.inference.outputs(node, inputs, captured)
        except InferenceError:
            return ()  # sizes that do not fit are named where they are bound

    def _squeezed(self, node: Node) -> tuple[Known, ...]:
        """The result of a Squeeze of all sizes of one: an open size is taken to be another."""
        kind = self.known.get(node.inputs[0], UNKNOWN).type
        if not isinstance(kind, TensorType) or kind.shape is None:
            return ()
        return (Known(type=replace(kind, shape=tuple(s for s in kind.shape if s != 1))),)

    def _control(self, node: Node) -> tuple[Known, ...]:
        """The results of a node with bodies: of an If what both branches agree on."""
        ends: list[tuple[Known, ...]] = []
        for body in _bodies(node):
            skipped = LOOP_HEAD if node.op_type == "Loop" else 0
            for value, outer in zip(body.inputs[skipped:], node.inputs[skipped:], strict=False):
                kind = body.types.get(value) or _any_size(self.known.get(outer, UNKNOWN))
                self.known[value] = Known(type=kind)
            self.through(body)
            ends.append(tuple(self.known.get(value, UNKNOWN) for value in body.outputs))
        if node.op_type == "If":
            return tuple(_agreed(pair) for pair in zip(*ends, strict=False))
        outputs = ends[0][1:] if node.op_type == "Loop" else ends[0]
        carried = carried_count(node)
        return tuple(_carried(one, stacked=at >= carried) for at, one in enumerate(outputs))

    def applied(self, graph: Graph) -> Graph:
        """The graph and its bodies with what was found."""
        names = [*graph.inputs, *(value for node in graph.nodes for value in node.outputs)]
        found = {
            value: kind
            for value in names
            if not _has_rank(graph, value)
            and isinstance(kind := self.known.get(value, UNKNOWN).type, TensorType)
        }
        nodes = tuple(
            replace(node, attributes=self._within(node.attributes)) if _bodies(node) else node
            for node in graph.nodes
        )
        return replace(graph, nodes=nodes, types={**graph.types, **found})

    def _within(self, attributes: Mapping[str, object]) -> dict[str, object]:
        return {
            name: self.applied(item) if isinstance(item, Graph) else item
            for name, item in attributes.items()
        }


def _ranked(known: Known) -> bool:
    return isinstance(known.type, TensorType) and known.type.shape is not None


def _any_size(known: Known) -> TensorType | None:
    """A type whose sizes another iteration may change."""
    kind = known.type
    if not isinstance(kind, TensorType) or kind.shape is None:
        return None
    return replace(kind, shape=(None,) * len(kind.shape))


def _carried(end: Known, *, stacked: bool) -> Known:
    """The result of a loop for an output of its body: the last, or all along one more axis."""
    kind = _any_size(end)
    if kind is None:
        return UNKNOWN
    return Known(type=replace(kind, shape=(None,) * (len(kind.shape or ()) + stacked)))


def _agreed(pair: Iterable[Known]) -> Known:
    """The common part of the ends of both branches."""
    first, *others = (one.type for one in pair)
    if not isinstance(first, TensorType) or first.shape is None:
        return UNKNOWN
    shape: tuple[Dim, ...] = first.shape
    for other in others:
        if not isinstance(other, TensorType) or len(other.shape or ()) != len(shape):
            return UNKNOWN
        shape = tuple(a if a == b else None for a, b in zip(shape, other.shape or (), strict=True))
    return Known(type=replace(first, shape=shape))
