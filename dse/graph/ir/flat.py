"""A graph with its bodies spliced in: one list of nodes in which products of branches are found.

Every value that enters or leaves a body passes through a *seam*: a node with the operator of the
control-flow node that copies it under another name. No pattern looks through seams, so that what
is found lies on one side, as kernels do: a runtime launches nothing across them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from dse.graph.ir.attribute import integer
from dse.graph.ir.graph import Graph, Initializer, Node, TensorType

BRANCHES = ("then_branch", "else_branch")
LOOP_HEAD = 2
"""The leading inputs of a Loop and of its body: trip count and condition."""
SCAN_SINCE = 9
"""The first opset whose Scan has no batch axis."""

Scope = tuple[tuple[str, str], ...]
"""Place of a node: (control-flow node, attribute) of every body around it, outermost first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Flat:
    """A graph without bodies, and where its nodes come from."""

    graph: Graph
    scopes: Mapping[str, Scope]
    """By node name; nodes of the model itself are left out."""
    aliases: Mapping[str, str]
    """Seams that copy nothing, with their control-flow node: the result is the input, of an If's
    end that of the branch taken."""


def is_spliced(node: Node, opsets: Mapping[str, int]) -> bool:
    """Whether the bodies of a node are part of the flat graph."""
    if node.domain or not any(isinstance(value, Graph) for value in node.attributes.values()):
        return False
    is_scan = node.op_type == "Scan" and opsets.get("", 1) >= SCAN_SINCE
    return node.op_type in ("If", "Loop") or is_scan


def flatten(graph: Graph) -> Flat:
    """The flat form of a model; the graph itself where it has no bodies to splice in."""
    if not any(is_spliced(node, graph.opsets) for node in graph.nodes):
        return Flat(graph=graph, scopes={}, aliases={})
    found = _Splice(graph.opsets)
    found.add(graph, (), {})
    flat = replace(
        graph,
        nodes=tuple(found.nodes),
        types=found.types,
        initializers=found.initializers,
    )
    return Flat(graph=flat, scopes=found.scopes, aliases=found.aliases)


@dataclass(slots=True)
class _Splice:
    """A flat graph in the making."""

    opsets: Mapping[str, int]
    nodes: list[Node] = field(default_factory=list)
    types: dict[str, TensorType] = field(default_factory=dict)
    initializers: dict[str, Initializer] = field(default_factory=dict)
    scopes: dict[str, Scope] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)

    def add(self, graph: Graph, scope: Scope, names: Mapping[str, str]) -> None:
        """Appends the nodes of a graph; `names` are what values from outside are called in it."""
        self.types.update(graph.types)
        self.initializers.update(graph.initializers)
        for node in graph.nodes:
            inputs = tuple(names.get(value, value) for value in node.inputs)
            if is_spliced(node, self.opsets):
                self._splice(replace(node, inputs=inputs), scope, names)
            else:
                self._append(replace(node, inputs=inputs), scope)

    def _append(self, node: Node, scope: Scope) -> None:
        self.nodes.append(node)
        if scope:
            self.scopes[node.name] = scope

    def _splice(self, node: Node, scope: Scope, names: Mapping[str, str]) -> None:
        ends: dict[str, list[str]] = {}
        for attribute, body in node.attributes.items():
            if isinstance(body, Graph):
                ends[attribute] = self._body(node, attribute, body, scope, names)
        if node.op_type == "If":
            self._leave_branches(node, [ends[name] for name in BRANCHES], scope)
        else:
            self._leave_loop(node, ends["body"], scope)

    def _body(
        self, node: Node, attribute: str, body: Graph, scope: Scope, names: Mapping[str, str]
    ) -> list[str]:
        """Splices a body in; the names of its outputs."""
        inside: dict[str, str] = {}
        prefix = f"{node.name}/{attribute}"
        for value in body.captured:
            outer = names.get(value, value)
            if outer in self.initializers:
                continue
            inside[value] = f"{prefix}/from/{outer}"
            self._seam(node, f"{prefix}/in/{outer}", (outer,), inside[value], scope)
            if outer in self.types:
                self.types[inside[value]] = self.types[outer]
        for name, (outer, value) in _fed(node, body):
            self._seam(node, f"{prefix}/in/{name}", (outer,), value, scope)
        self.add(body, (*scope, (node.name, attribute)), inside)
        return [inside.get(value, value) for value in body.outputs]

    def _leave_branches(self, node: Node, ends: list[list[str]], scope: Scope) -> None:
        for at, value in enumerate(node.outputs):
            if value:
                self._seam(node, _end(node, at), tuple(end[at] for end in ends), value, scope)

    def _leave_loop(self, node: Node, ends: list[str], scope: Scope) -> None:
        ends = ends[1:] if node.op_type == "Loop" else ends
        carried = carried_count(node)
        for at, value in enumerate(node.outputs):
            if value:
                self._seam(node, _end(node, at), (ends[at],), value, scope, stack=at >= carried)

    def _seam(
        self,
        node: Node,
        name: str,
        inputs: tuple[str, ...],
        output: str,
        scope: Scope,
        *,
        stack: bool = False,
    ) -> None:
        seam = Node(name=name, op_type=node.op_type, domain="", inputs=inputs, outputs=(output,))
        self._append(seam, scope)
        if not stack:
            self.aliases[name] = node.name


def carried_count(node: Node) -> int:
    """The values that a Loop or Scan hands from one iteration to the next."""
    if node.op_type == "Loop":
        return len(node.inputs) - LOOP_HEAD
    return len(node.inputs) - integer(node, "num_scan_inputs", 0)


def _fed(node: Node, body: Graph) -> Iterator[tuple[str, tuple[str, str]]]:
    """(a name, (value outside, value inside)) of what a loop hands to its body."""
    if node.op_type == "If":
        return
    skip = LOOP_HEAD if node.op_type == "Loop" else 0
    for outer, value in zip(node.inputs[skip:], body.inputs[skip:], strict=False):
        yield value, (outer, value)


def _end(node: Node, at: int) -> str:
    """The name of an output's seam; the first one has the node's own."""
    return f"{node.name}/out{at}" if at else node.name
