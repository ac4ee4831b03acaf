"""A walk through a graph and its bodies that makes every size a number."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from onnx.shape_inference import InferenceError

from dse.errors import GraphError
from dse.graph.ir.attribute import integers
from dse.graph.ir.flat import BRANCHES, LOOP_HEAD, carried_count, is_spliced
from dse.graph.ir.graph import Dim, Graph, Initializer, Node, TensorType
from dse.graph.ir.known import UNKNOWN, Known
from dse.graph.ir.operators import INTEGER_FORM, WRITE_PAIRS
from dse.graph.onnx.dimension import bound, dimensions
from dse.graph.onnx.infer import MAX_ELEMENTS, Inference, squeezes_all
from dse.graph.onnx.most import most_sizes
from dse.graph.patterns.contraction import factors, is_contracting
from dse.graph.patterns.routing import expected_rows

ENDLESS = 2**31
"""A trip count from here on means that the condition ends the loop."""

MOST_STEPS = 1_000_000
"""Nodes that are visited before a graph is given up: 30 times those of the largest models."""


class TooNestedError(GraphError):
    """Bodies within bodies that would be visited without end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """Sizes as numbers, and what was decided to get them."""

    types: Mapping[str, TensorType]
    taken: Mapping[str, str]
    """The attribute of the branch that each If takes."""
    trips: Mapping[str, int]
    """Number of runs of each Loop and Scan."""
    notes: tuple[str, ...]
    """Remarks that a reader of a price must know: choices that nobody made."""


@dataclass(kw_only=True)
class Walk:
    """The knowledge so far."""

    model: Graph
    dims: dict[str, int]
    inference: Inference
    said: Mapping[str, int] = field(default_factory=dict)
    """Those of `dims` that no input has: what only a run would tell, as the user says it."""
    known: dict[str, Known] = field(default_factory=dict)
    taken: dict[str, str] = field(default_factory=dict)
    trips: dict[str, int] = field(default_factory=dict)
    notes: dict[str, None] = field(default_factory=dict)
    steps: Counter[str] = field(default_factory=Counter)
    """Nodes visited in all, those of trials too: bodies in bodies are visited again and again."""

    def bound(self) -> Bound:
        """The findings."""
        types = {v: k.type for v, k in self.known.items() if isinstance(k.type, TensorType)}
        return Bound(types=types, taken=self.taken, trips=self.trips, notes=tuple(self.notes))

    def through(self, graph: Graph) -> None:
        """Adds what a graph's constants and nodes make of what is known.

        Raises:
            GraphError: sizes that do not fit, or that nothing bounds.
        """
        self.known.update(
            {name: constant_known(item) for name, item in graph.initializers.items()}
        )
        for node in graph.nodes:
            self._count(node)
            for value, item in zip(node.outputs, self._outputs(graph, node), strict=True):
                if value:
                    self.known[value] = self._complete(graph, node, value, item)

    def _count(self, node: Node) -> None:
        """One more node; a growing loop takes its body twice, a loop in it four times, ..."""
        self.steps[""] += 1
        if self.steps[""] > MOST_STEPS:
            raise TooNestedError(
                f"{self._where(node)}: bodies are nested too deep to follow: {MOST_STEPS} nodes "
                "were visited; say how often the loops run and which branches are taken (--dim)"
            )

    def _outputs(self, graph: Graph, node: Node) -> tuple[Known, ...]:
        if is_spliced(node, self.model.opsets):
            return {"If": self._branch, "Loop": self._loop, "Scan": self._scan}[node.op_type](node)
        inputs = [self.known.get(value, UNKNOWN) for value in node.inputs]
        captured = {v: self.known[v] for v in node.reads if v not in node.inputs}
        try:
            found = expected_rows(graph, node, self.known) or self._squeezed(graph, node)
            return found or self.inference.outputs(node, inputs, captured)
        except InferenceError as error:
            raise GraphError(self._misfit(node, error)) from error

    def _squeezed(self, graph: Graph, node: Node) -> tuple[Known, ...] | None:
        """The result of a Squeeze without axes where an open size is one: it stays an axis."""
        declared = graph.types.get(node.inputs[0]) if squeezes_all(node) else None
        given = self.known.get(node.inputs[0], UNKNOWN) if declared else UNKNOWN
        if declared is None or given.data is not None or not isinstance(given.type, TensorType):
            return None
        sizes, names = given.type.shape, declared.shape
        if sizes is None or names is None or len(sizes) != len(names):
            return None
        kept = tuple(size for size, name in zip(sizes, names, strict=True) if name != 1)
        return (Known(type=replace(given.type, shape=kept)),)

    def _branch(self, node: Node) -> tuple[Known, ...]:
        """The outputs of the branch that an If takes: the one that is said, else the dearer."""
        bodies = {
            name: body for name in BRANCHES if isinstance(body := node.attributes[name], Graph)
        }
        said = self._said(node)
        if said is not None:
            self.taken[node.name] = said
            self.through(bodies[said])
            return self._ends(bodies[said].outputs)
        tried = {name: self._tried(body) for name, body in bodies.items()}
        if not any(tried.values()):
            self.through(bodies[BRANCHES[0]])  # raises what is wrong with it
        macs = {name: _macs(bodies[name], walk) for name, walk in tried.items() if walk}
        dearer = max(macs, key=macs.__getitem__)
        walk = tried[dearer]
        assert walk is not None
        self.known, self.taken, self.trips, self.notes, self.dims = (
            walk.known, walk.taken, walk.trips, walk.notes, walk.dims,
        )  # fmt: skip
        self.taken[node.name] = dearer
        if any(macs.values()):
            other = 0 if dearer == BRANCHES[0] else 1
            self.notes[
                f"{node.name} (If): the dearer branch is priced, {dearer}; "
                f"--dim {node.name}={other} takes the other"
            ] = None
        return self._ends(bodies[dearer].outputs)

    def _said(self, node: Node) -> str | None:
        """The branch that the condition's value or the user names."""
        value = node.inputs[0]
        data = self.known.get(value, UNKNOWN).data
        for given in (self.dims.get(node.name), self.dims.get(value)):
            if given is not None:
                return BRANCHES[0 if given else 1]
        return None if data is None else BRANCHES[0 if self._scalar(node, data) else 1]

    def _tried(self, body: Graph) -> Walk | None:
        """A walk through a branch on copies of what is known; None where sizes do not fit it."""
        walk = replace(
            self,
            dims=dict(self.dims),
            known=dict(self.known),
            taken=dict(self.taken),
            trips=dict(self.trips),
            notes=dict(self.notes),
        )
        try:
            walk.through(body)
        except TooNestedError:
            raise
        except GraphError:
            return None
        return walk

    def _ends(self, outputs: tuple[str, ...]) -> tuple[Known, ...]:
        return tuple(self.known.get(value, UNKNOWN) for value in outputs)

    def _loop(self, node: Node) -> tuple[Known, ...]:
        """The outputs of a Loop at its trip count."""
        body = node.attributes["body"]
        assert isinstance(body, Graph)
        trips = self.trips[node.name] = self._trip_count(node)
        head = (TensorType(dtype="int64", shape=()), TensorType(dtype="bool", shape=()))
        for value, kind in zip(body.inputs, head, strict=False):
            self.known[value] = Known(type=kind)
        first = [self.known.get(value, UNKNOWN) for value in node.inputs[LOOP_HEAD:]]
        carried = body.inputs[LOOP_HEAD:]
        ends = self._pass(body, carried, first)[1:]
        last = tuple(_grown(a, b, trips) for a, b in zip(first, ends, strict=False))
        if any(a.type != b.type for a, b in zip(first, ends, strict=False)):
            middle = [_grown(a, b, trips / 2) for a, b in zip(first, ends, strict=False)]
            ends = self._pass(body, carried, middle)[1:]
            self.notes[
                f"{node.name} (Loop): what it carries grows; every iteration is priced as the one "
                "in the middle"
            ] = None
        return (*last, *(_stacked(end, trips, 0) for end in ends[len(first) :]))

    def _pass(self, body: Graph, values: tuple[str, ...], given: list[Known]) -> tuple[Known, ...]:
        """One iteration: the body's outputs."""
        for value, item in zip(values, given, strict=False):
            self.known[value] = Known(type=item.type)  # data are those of one iteration only
        self.through(body)
        return self._ends(body.outputs)

    def _trip_count(self, node: Node) -> int:
        if node.name in self.dims:
            return self.dims[node.name]
        head = (*node.inputs, "", "")[:LOOP_HEAD]
        data = [self.known.get(value, UNKNOWN).data if value else None for value in head]
        most, goes_on = (None if d is None else self._scalar(node, d) for d in data)
        if goes_on is not None and not goes_on:
            return 0
        if most is not None and most < ENDLESS:
            if _may_end_early(node):
                self.notes[
                    f"{node.name} (Loop): priced with all of its {most} iterations, "
                    f"which its condition may end before; --dim {node.name}=N says how many"
                ] = None
            return max(0, most)
        raise GraphError(
            f"{self._where(node)}: how often it runs is known only when it runs; "
            f"say it: --dim {node.name}=N (dims in a space)"
        )

    def _scan(self, node: Node) -> tuple[Known, ...]:
        """The outputs of a Scan: slices in, states carried, results stacked."""
        body = node.attributes["body"]
        assert isinstance(body, Graph)
        count = carried_count(node)
        given = [self.known.get(value, UNKNOWN) for value in node.inputs]
        axes = integers(node, "scan_input_axes") or (0,) * (len(given) - count)
        kinds = [item.type for item in given[count:]]
        shapes = [kind.shape or () for kind in kinds if isinstance(kind, TensorType)]
        sizes = [shape[axis] for shape, axis in zip(shapes, axes, strict=True)]
        trips = self.trips[node.name] = sizes[0] if isinstance(sizes[0], int) else 1
        slices = [_sliced(item, axis) for item, axis in zip(given[count:], axes, strict=True)]
        ends = self._pass(body, body.inputs, [*given[:count], *slices])
        out = integers(node, "scan_output_axes") or (0,) * (len(ends) - count)
        stacks = (_stacked(end, trips, axis) for end, axis in zip(ends[count:], out, strict=True))
        return (*ends[:count], *stacks)

    def _complete(self, graph: Graph, node: Node, value: str, item: Known) -> Known:
        """`item`, or what the file, the user or the operator's limits say where sizes are open."""
        if item.complete:
            self._check_said(graph, node, value, item)
            return item
        inferred = item.type if isinstance(item.type, TensorType) else None
        declared = graph.types.get(value)
        kind = _agreed(inferred, declared)
        if kind is None or kind.shape is None:
            is_integer = node.op_type.startswith(INTEGER_FORM)
            hint = WRITE_PAIRS if is_integer else "declare its shape in the model (value_info)"
            raise GraphError(
                f"{self.model.path or self.model.name}: the shape of {value!r} cannot be derived "
                f"from the input shapes: {node.op_type} {node.name} depends on data or is not an "
                f"ONNX operator; {hint}"
            )
        most = most_sizes(node, self.known, len(kind.shape))
        sizes = tuple(
            self._size(node, value, axis, size, most[axis]) for axis, size in enumerate(kind.shape)
        )
        return Known(type=TensorType(dtype=kind.dtype, shape=sizes))

    def _size(self, node: Node, value: str, axis: int, size: Dim, most: int | None) -> int:
        found = bound(size, self.dims)
        name = size if isinstance(size, str) and size.isidentifier() else f"{value}.{axis}"
        found = self.dims.get(f"{value}.{axis}", self.dims.get(name) if found is None else found)
        if found is not None:
            key = next((one for one in (f"{value}.{axis}", name) if one in self.said), "")
            if most is not None and key and found > most:
                raise GraphError(
                    f"{self._where(node)}: {key}={found} is more than there can be, {most}"
                )
            return found
        if most is None:
            raise GraphError(
                f"{self._where(node)}: size {axis} of {value!r} is known only when it runs; "
                f"say it: --dim {name}=N (dims in a space)"
            )
        self.dims[name] = most
        self.notes[
            f"{node.name} ({node.op_type}): {name} is known only when it runs; priced with "
            f"{most}, the most there can be; --dim {name}=N says otherwise"
        ] = None
        return most

    def _check_said(self, graph: Graph, node: Node, value: str, item: Known) -> None:
        """Raises `GraphError` where a size that the user says follows from others, and differs."""
        if graph is not self.model or not self.said or not isinstance(item.type, TensorType):
            return
        declared = graph.types.get(value)
        names = declared.shape if declared is not None else None
        for axis, size in enumerate(item.type.shape or ()):
            name = names[axis] if names is not None and axis < len(names) else None
            for one in (name, f"{value}.{axis}"):
                if isinstance(one, str) and self.said.get(one, size) != size:
                    first = "".join(f"; say --dim {open_}=N" for open_ in self._assumed())
                    raise GraphError(
                        f"{self._where(node)}: size {axis} of {value!r} follows from other sizes "
                        f"and is {size}, not {one}={self.said[one]}{first}"
                    )

    def _assumed(self) -> list[str]:
        """Names of sizes that are the most there can be, since nobody said them."""
        told = {*dimensions(self.model), *self.said}
        return [name for name in self.dims if name not in told]

    def _scalar(self, node: Node, data: np.ndarray) -> int:
        if data.size != 1:
            raise GraphError(
                f"{self._where(node)}: its condition or count has {data.size} elements; expected 1"
            )
        if data.dtype.kind not in "biu":
            raise GraphError(
                f"{self._where(node)}: its condition or count is of {data.dtype}; expected a "
                "boolean or an integer"
            )
        return int(data.item())

    def _where(self, node: Node) -> str:
        return f"{self.model.path or self.model.name}: node {node.name} ({node.op_type})"

    def _misfit(self, node: Node, error: Exception) -> str:
        inputs = ", ".join(f"{v}: {self.known[v].type}" for v in node.reads if v in self.known)
        reason = " ".join(str(error).split())
        return f"{self._where(node)}: shapes do not fit: {reason}; inputs: {inputs}"


def _agreed(inferred: TensorType | None, declared: TensorType | None) -> TensorType | None:
    """The inferred type, with what the file declares for its open sizes."""
    if inferred is None or inferred.shape is None:
        return declared
    if declared is None or declared.shape is None or len(declared.shape) != len(inferred.shape):
        return inferred
    pairs = zip(inferred.shape, declared.shape, strict=True)
    return replace(inferred, shape=tuple(a if isinstance(a, int) else b for a, b in pairs))


def constant_known(initializer: Initializer) -> Known:
    """The type of a constant, and its data where it is small."""
    size = math.prod(size for size in initializer.type.shape or () if isinstance(size, int))
    small = initializer.has_data and size <= MAX_ELEMENTS
    return Known(type=initializer.type, data=initializer.numpy() if small else None)


def _may_end_early(node: Node) -> bool:
    """Whether the body computes a condition, instead of handing on that it goes on."""
    body = node.attributes["body"]
    assert isinstance(body, Graph)
    if not body.outputs:
        raise GraphError(
            f"{node.name}: the body of a Loop returns a condition, this returns nothing"
        )
    value = body.outputs[0]
    while (source := body.producer.get(value)) is not None and source.op_type == "Identity":
        value = source.inputs[0]
    constant = body.initializers.get(value)
    if constant is not None and constant.has_data:
        return not bool(np.all(constant.numpy()))
    return value in body.producer


def _grown(first: Known, after: Known, times: float) -> Known:
    """A carried value after some iterations, if each adds as much as the first."""
    before, now = first.type, after.type
    if not isinstance(before, TensorType) or not isinstance(now, TensorType):
        return Known(type=now)
    if before.shape is None or now.shape is None or len(before.shape) != len(now.shape):
        return Known(type=now)
    sizes = tuple(
        a + int((b - a) * times) if isinstance(a, int) and isinstance(b, int) else b
        for a, b in zip(before.shape, now.shape, strict=True)
    )
    return Known(type=replace(now, shape=sizes))


def _sliced(item: Known, axis: int) -> Known:
    if not isinstance(item.type, TensorType) or item.type.shape is None:
        return UNKNOWN
    shape = list(item.type.shape)
    del shape[axis]
    return Known(type=replace(item.type, shape=tuple(shape)))


def _stacked(item: Known, count: int, axis: int) -> Known:
    if not isinstance(item.type, TensorType) or item.type.shape is None:
        return UNKNOWN
    shape = list(item.type.shape)
    shape.insert(axis % (len(shape) + 1), count)
    return Known(type=replace(item.type, shape=tuple(shape)))


def _macs(graph: Graph, walk: Walk) -> int:
    """Multiply-accumulates of a body, of its own bodies what is taken, as often as it runs."""
    graph = replace(graph, types=walk.bound().types)
    total = 0
    for node in graph.nodes:
        for attribute, body in node.attributes.items():
            if isinstance(body, Graph) and walk.taken.get(node.name, attribute) == attribute:
                total += walk.trips.get(node.name, 1) * _macs(body, walk)
        if is_contracting(node):
            total += _node_macs(graph, node, walk)
    return total


def _node_macs(graph: Graph, node: Node, walk: Walk) -> int:
    """Results times what each is a sum of; near enough to tell which branch is dearer."""
    second = [factor for factor in factors(graph, node) if factor.part != "bias"][-1]
    shapes = []
    for value in (node.outputs[0], node.inputs[second.index]):
        kind = walk.known.get(value, UNKNOWN).type
        if not isinstance(kind, TensorType) or kind.shape is None:
            return 0
        shapes.append([size if isinstance(size, int) else 1 for size in kind.shape])
    return math.prod(shapes[0]) * math.prod(shapes[1][axis] for axis in second.axes)
