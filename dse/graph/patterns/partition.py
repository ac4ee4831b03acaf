"""A partition of all nodes into what a compiling runtime executes as one kernel."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain

import networkx as nx

from dse.graph.ir.graph import Dim, Node
from dse.graph.ir.operators import (
    CONVOLUTIONS,
    COPIES,
    ELEMENTWISE,
    LAYOUT,
    POOLS,
    REDUCTIONS,
    REPEATS,
    SOFTMAXES,
    TRANSPARENT,
)
from dse.graph.patterns.attention import Attention
from dse.graph.patterns.experts import Expert
from dse.graph.patterns.flow import Flow, is_lookup
from dse.graph.patterns.norm import Norm
from dse.graph.patterns.projection import projections
from dse.graph.patterns.rotary import rotary

FUSIBLE = (ELEMENTWISE | LAYOUT) - REPEATS
"""Operators that a kernel can apply to its result before it writes it."""
LAYOUT_ONLY = ("attention",)
"""Kinds of kernels that take no arithmetic at their end."""


@dataclass(slots=True, kw_only=True)
class Draft:
    """A region in the making: its main nodes, and what is fused into it."""

    kind: str
    role: str
    core: tuple[str, ...]
    """The nodes that make it what it is."""
    fused: list[str] = field(default_factory=list)
    attention: int | None = None
    """Index of the attention that it belongs to."""

    @property
    def nodes(self) -> list[str]:
        """All nodes, core first."""
        return [*self.core, *self.fused]


@dataclass(frozen=True, kw_only=True)
class Partition:
    """Drafts in an order of execution, and the patterns that they come from."""

    flow: Flow
    drafts: tuple[Draft, ...]
    attentions: tuple[Attention, ...]


def partition(
    flow: Flow,
    attentions: Sequence[Attention],
    norms: Sequence[Norm],
    experts: Mapping[str, Expert],
    *,
    apart: bool = False,
) -> Partition:
    """Every signal node in exactly one draft; drafts do not wait for each other in a circle.

    `apart`: products of one input are drafts of their own.
    """
    drafts = _cores(flow, attentions, norms, experts, apart=apart)
    owner = {name: draft for draft in drafts for name in draft.core}
    for node in flow.nodes:
        if node.name not in owner:
            draft = _absorbing(flow, node, owner)
            if draft is None:
                draft = _own(node)
                drafts.append(draft)
            else:
                draft.fused.append(node.name)
            owner[node.name] = draft
        _join_embeddings(flow, node, owner, drafts)
    ordered = _ordered(flow, _without_cycles(flow, drafts))
    _mark_query_key_norms(flow, ordered)
    return Partition(flow=flow, drafts=ordered, attentions=tuple(attentions))


def _cores(
    flow: Flow,
    found: Sequence[Attention],
    norms: Sequence[Norm],
    experts: Mapping[str, Expert],
    *,
    apart: bool,
) -> list[Draft]:
    """The drafts around which everything else is arranged."""
    taken: set[str] = set()
    candidates = chain(
        _of_attention(flow, found),
        (Draft(kind=norm.kind, role="norm", core=norm.nodes) for norm in norms),
        _rotations(flow, found, taken),
        _projected(flow, found, norms, experts, apart=apart),
        (draft for node in flow.nodes if (draft := _single(flow, node)) is not None),
    )
    drafts: list[Draft] = []
    for draft in candidates:
        if not taken & set(draft.core):
            drafts.append(draft)
            taken.update(draft.core)
    return drafts


def _of_attention(flow: Flow, found: Sequence[Attention]) -> Iterator[Draft]:
    for index, attention in enumerate(found):
        core = tuple(sorted(attention.nodes, key=flow.position.__getitem__))
        yield Draft(kind="attention", role="attention", core=core, attention=index)


def _rotations(flow: Flow, found: Sequence[Attention], taken: set[str]) -> Iterator[Draft]:
    for index, attention in enumerate(found):
        core = tuple(sorted(rotary(flow, attention, taken), key=flow.position.__getitem__))
        if core:
            yield Draft(kind="elementwise", role="rotary", core=core, attention=index)


def _projected(
    flow: Flow,
    found: Sequence[Attention],
    norms: Sequence[Norm],
    experts: Mapping[str, Expert],
    *,
    apart: bool,
) -> Iterator[Draft]:
    inside = frozenset(name for norm in norms for name in norm.nodes)
    for group in projections(flow, found, inside, experts, apart=apart):
        yield Draft(kind=group.kind, role=group.role, core=group.nodes, attention=group.attention)


def _single(flow: Flow, node: Node) -> Draft | None:
    """The draft that one node always starts."""
    core = (node.name,)
    if is_lookup(flow.graph, node, flow.static):
        return Draft(kind="embedding", role="embedding", core=core)
    if flow.is_product(node):
        return Draft(kind="bmm", role="bmm", core=core)
    kinds = (
        (CONVOLUTIONS, "conv2d", "conv"),
        (POOLS, "pool", "pool"),
        (REDUCTIONS, "reduce", "reduce"),
        (SOFTMAXES, "softmax", "softmax"),
        (COPIES, "copy", "copy"),
    )
    for op_types, kind, role in kinds:
        if node.op_type in op_types:
            return Draft(kind=kind, role=role, core=core)
    return None


def _own(node: Node) -> Draft:
    """The draft of a node that nothing takes."""
    core = (node.name,)
    if node.op_type == "BatchNormalization":
        return Draft(kind="elementwise", role="norm", core=core)
    if node.op_type in TRANSPARENT:
        return Draft(kind="copy", role="copy", core=core)
    kind = "elementwise" if node.op_type in FUSIBLE else "other"
    return Draft(kind=kind, role=kind, core=core)


def _absorbing(flow: Flow, node: Node, owner: dict[str, Draft]) -> Draft | None:
    """The draft whose kernel can do `node` at its end, the best fitting first."""
    folds = node.op_type == "BatchNormalization"
    if node.op_type not in FUSIBLE and not folds:
        return None
    sources = [(value, flow.producer(value)) for value in flow.signal_inputs(node)]
    producers = [(value, source) for value, source in sources if source is not None]
    producers.sort(key=lambda pair: _preference(flow, node, *pair), reverse=True)
    for _, source in producers:
        draft = owner[source.name]
        if folds and (draft.kind != "conv2d" or len(list(flow.readers(source))) > 1):
            continue
        if draft.kind in LAYOUT_ONLY and node.op_type not in LAYOUT:
            continue
        if draft.kind == "other" or _grows(flow, node, source):
            continue
        others = [other for _, other in producers if owner[other.name] is not draft]
        if not _depends(flow, others, draft):
            return draft
    return None


def _preference(flow: Flow, node: Node, value: str, source: Node) -> tuple[bool, int]:
    """Same shape as the result first, then the latest."""
    before, after = (_shape(flow, name) for name in (value, node.outputs[0]))
    return before == after, flow.position[source.name]


def _grows(flow: Flow, node: Node, source: Node) -> bool:
    """Whether the result is known to have more elements than what the draft makes."""
    before, after = _shape(flow, source.outputs[0]), _shape(flow, node.outputs[0])
    if node.op_type in LAYOUT or before is None or after is None or len(before) != len(after):
        return False
    return any(a == 1 and b != 1 for a, b in zip(before, after, strict=True))


def _shape(flow: Flow, value: str) -> tuple[Dim, ...] | None:
    kind = flow.graph.types.get(value)
    return kind.shape if kind else None


def _depends(flow: Flow, nodes: Sequence[Node], draft: Draft) -> bool:
    """Whether any of `nodes` needs something that the draft computes."""
    if not nodes:
        return False
    inside = set(draft.nodes)
    first = min(flow.position[name] for name in inside)
    queue, seen = list(nodes), set[str]()
    while queue:
        node = queue.pop()
        if node.name in inside:
            return True
        if node.name in seen or flow.position[node.name] < first:
            continue
        seen.add(node.name)
        sources = (flow.producer(value) for value in flow.signal_inputs(node))
        queue += [source for source in sources if source is not None]
    return False


def _join_embeddings(flow: Flow, node: Node, owner: dict[str, Draft], drafts: list[Draft]) -> None:
    """Makes one draft of look-ups that are added up: tokens, positions, segments."""
    draft = owner[node.name]
    for value in flow.signal_inputs(node):
        source = flow.producer(value)
        other = owner[source.name] if source else draft
        if other is not draft and draft.kind == other.kind == "embedding":
            other.core = (*other.core, *draft.core)
            other.fused += draft.fused
            owner |= dict.fromkeys(draft.nodes, other)
            drafts[:] = [kept for kept in drafts if kept is not draft]
            draft = other


def _mark_query_key_norms(flow: Flow, drafts: Sequence[Draft]) -> None:
    """Norms of queries and keys belong to their attention, not to the residual stream."""
    owner = {name: draft for draft in drafts for name in draft.nodes}
    for draft in drafts:
        readers = [
            owner[reader.name]
            for name in draft.nodes
            for reader in flow.readers(flow.graph.by_name[name])
            if owner[reader.name] is not draft
        ]
        inside = [reader for reader in readers if reader.role in ("rotary", "attention")]
        if draft.role == "norm" and readers and len(inside) == len(readers):
            draft.role, draft.attention = "qk_norm", inside[0].attention


def _without_cycles(flow: Flow, drafts: list[Draft]) -> list[Draft]:
    """Takes fused nodes out of drafts that would wait for each other."""
    while True:
        dag = _dependencies(flow, drafts)
        loops = [loop for loop in nx.strongly_connected_components(dag) if len(loop) > 1]
        loose = [drafts[at] for loop in loops for at in sorted(loop) if drafts[at].fused]
        if not loose:
            return drafts
        for draft in loose:
            drafts += [_own(flow.graph.by_name[name]) for name in draft.fused]
            draft.fused.clear()


def _dependencies(flow: Flow, drafts: Sequence[Draft]) -> nx.DiGraph:
    owner = {name: at for at, draft in enumerate(drafts) for name in draft.nodes}
    dag = nx.DiGraph()
    dag.add_nodes_from(range(len(drafts)))
    for node in flow.nodes:
        for reader in flow.readers(node):
            if owner[node.name] != owner[reader.name]:
                dag.add_edge(owner[node.name], owner[reader.name])
    return dag


def _ordered(flow: Flow, drafts: list[Draft]) -> tuple[Draft, ...]:
    for draft in drafts:
        draft.fused.sort(key=flow.position.__getitem__)
        draft.core = tuple(sorted(draft.core, key=flow.position.__getitem__))
    first = [min(flow.position[name] for name in draft.nodes) for draft in drafts]
    order = nx.lexicographical_topological_sort(_dependencies(flow, drafts), first.__getitem__)
    return tuple(drafts[at] for at in order)
