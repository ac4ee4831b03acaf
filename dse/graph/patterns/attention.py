"""Attention found by structure: scores, a softmax, a weighted sum of values."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from dse.graph.ir.graph import Node
from dse.graph.ir.operators import (
    ELEMENTWISE,
    FUSED_ATTENTION,
    LAYOUT,
    QUANTIZING,
    REDUCTIONS,
    REPEATS,
    SOFTMAXES,
    TRANSPARENT,
)
from dse.graph.patterns.contraction import factors, is_contracting
from dse.graph.patterns.flow import Flow

WITHIN = ELEMENTWISE | LAYOUT | REDUCTIONS | SOFTMAXES
"""Operators between the scores and the weighted sum: scale, mask, softmax, dropout."""
CACHE_WRITES = frozenset({"Concat", "ScatterND", "ScatterElements", "TensorScatter"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Operand:
    """Input `index` of a node."""

    node: Node
    index: int

    @property
    def value(self) -> str:
        """The value that is read."""
        return self.node.inputs[self.index]


@dataclass(frozen=True, slots=True, kw_only=True)
class Attention:
    """One attention, decomposed or fused."""

    nodes: frozenset[str]
    """Everything that a fused kernel does: scaling, repeated heads, cache, mask, softmax."""
    scores: Node
    """The node that multiplies queries and keys; the same as `mix` where it is one operator."""
    mix: Node
    """The node that sums the values."""
    q: Operand
    k: Operand
    v: Operand
    probabilities: Operand | None
    """None for one operator, whose probabilities never leave it."""

    @property
    def output(self) -> str:
        """The attention's result."""
        return self.mix.outputs[0]


def attentions(flow: Flow) -> tuple[Attention, ...]:
    """Every attention of a graph in topological order."""
    found: list[Attention] = []
    taken: set[str] = set()
    for node in flow.nodes:
        match = _fused(node) if node.op_type in FUSED_ATTENTION else _decomposed(flow, node)
        if match is not None and not match.nodes & taken:
            taken |= match.nodes
            found.append(_with_prologue(flow, match))
    return tuple(found)


def _fused(node: Node) -> Attention | None:
    if len(node.inputs) < 3 or not all(node.inputs[:3]):
        return None
    q, k, v = (Operand(node=node, index=i) for i in range(3))
    names = frozenset({node.name})
    return Attention(nodes=names, scores=node, mix=node, q=q, k=k, v=v, probabilities=None)


def _decomposed(flow: Flow, mix: Node) -> Attention | None:
    """The attention whose weighted sum is `mix`, if it is one."""
    if not flow.is_product(mix):
        return None
    sides = [factor.index for factor in factors(flow.graph, mix)]
    if len(sides) != 2:  # a Gemm that adds an activation, or a recurrence over one
        return None
    for index, other in (sides, sides[::-1]):
        path = _path_from_scores(flow, mix.inputs[index])
        if path is None:
            continue
        scores, between = path
        scored = [factor.index for factor in factors(flow.graph, scores)]
        if len(scored) != 2:
            continue
        first, second = scored
        return Attention(
            nodes=frozenset({*between, scores.name, mix.name}),
            scores=scores,
            mix=mix,
            q=Operand(node=scores, index=first),
            k=Operand(node=scores, index=second),
            v=Operand(node=mix, index=other),
            probabilities=Operand(node=mix, index=index),
        )
    return None


def _path_from_scores(flow: Flow, value: str) -> tuple[Node, set[str]] | None:
    """The one product that `value` comes from through a softmax, and the nodes between."""
    seen: dict[str, Node] = {}
    products: dict[str, Node] = {}
    queue = [value]
    while queue:
        node = flow.producer(queue.pop())
        if node is None or node.name in seen:
            continue
        if flow.is_product(node):
            products[node.name] = node
        elif node.op_type in WITHIN or _appends_constant(flow, node):
            seen[node.name] = node
            queue += flow.signal_inputs(node)
    exponential = any(node.op_type in SOFTMAXES | {"Exp"} for node in seen.values())
    if len(products) != 1 or not exponential:
        return None
    scores = next(iter(products.values()))
    return scores, set(_descendants(flow, scores, within=seen))


def _appends_constant(flow: Flow, node: Node) -> bool:
    """Whether learned scores are put beside the keys' own: attention sinks."""
    return node.op_type == "Concat" and len(flow.signal_inputs(node)) == 1


def _descendants(flow: Flow, start: Node, *, within: Iterable[str]) -> Iterator[str]:
    allowed = set(within)
    queue = [start]
    while queue:
        for reader in flow.readers(queue.pop()):
            if reader.name in allowed:
                allowed.discard(reader.name)
                yield reader.name
                queue.append(reader)


def _with_prologue(flow: Flow, attention: Attention) -> Attention:
    """Adds what prepares the operands and is free in a fused kernel."""
    nodes = set(attention.nodes)
    for operand in (attention.q, attention.k, attention.v):
        nodes |= set(_prologue(flow, operand.value, nodes))
    return Attention(
        nodes=frozenset(nodes),
        scores=attention.scores,
        mix=attention.mix,
        q=attention.q,
        k=attention.k,
        v=attention.v,
        probabilities=attention.probabilities,
    )


def _prologue(flow: Flow, value: str, inside: set[str]) -> Iterator[str]:
    """Scaling, head layout, repeated heads and cache writes right before an operand."""
    while (node := flow.producer(value)) is not None:
        own = all(reader.name in inside for reader in flow.readers(node))
        cache = past(flow, node)
        if cache is None and not (own and _prepares(flow, node)):
            return
        inside.add(node.name)
        yield node.name
        if cache is not None:
            return
        value = flow.signal_inputs(node)[0]


def _prepares(flow: Flow, node: Node) -> bool:
    if node.op_type in TRANSPARENT | REPEATS | QUANTIZING:
        return True
    if node.op_type == "Slice":
        return _keeps_all(flow, node)
    return node.op_type in ("Mul", "Div") and is_scaling(flow, node)


def _keeps_all(flow: Flow, node: Node) -> bool:
    """Whether a slice takes everything, as far as the sizes are known: `x[:, :, None]`."""
    before, after = (flow.graph.types.get(value) for value in (node.inputs[0], node.outputs[0]))
    if before is None or after is None or before.shape is None or after.shape is None:
        return False
    pairs = zip(before.shape, after.shape, strict=True)
    return all(a == b or not (isinstance(a, int) and isinstance(b, int)) for a, b in pairs)


def is_scaling(flow: Flow, node: Node) -> bool:
    """Whether a node multiplies the signal by one number."""
    others = [value for value in node.inputs if not flow.is_signal(value)]
    if len(others) != 1 or len(node.inputs) != 2:
        return False
    kind = flow.graph.types.get(others[0])
    return kind is not None and kind.shape is not None and all(size == 1 for size in kind.shape)


def past(flow: Flow, node: Node) -> str | None:
    """The graph input that holds the cache which `node` extends, if it does that."""
    if node.op_type not in CACHE_WRITES:
        return None
    sources = (flow.back(value) for value in node.inputs)
    return next((value for value in sources if value in flow.graph.inputs), None)


def cache_write(flow: Flow, attention: Attention, operand: Operand) -> Node | None:
    """The node inside the attention that extends the cache of an operand."""
    value = operand.value
    while (node := flow.producer(value)) is not None and node.name in attention.nodes:
        if past(flow, node) is not None:
            return node
        value = flow.signal_inputs(node)[0]
    return None


def source(flow: Flow, attention: Attention, operand: Operand) -> str:
    """The value of an operand before heads are repeated: what has to be read."""
    value = operand.value
    while (node := flow.producer(value)) is not None and node.name in attention.nodes:
        if past(flow, node) is not None or is_contracting(node):
            return value
        value = flow.signal_inputs(node)[0]
    return value
