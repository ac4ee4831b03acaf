"""The repeated block that a region belongs to: transformer blocks, residual stages."""

from __future__ import annotations

from collections.abc import Mapping

from dse.graph.ir.graph import Node
from dse.graph.patterns.flow import Flow
from dse.graph.patterns.partition import Draft, Partition
from dse.graph.patterns.projection import multiplied
from hwmodels.work.role import region_role

JOINS = ("Add", "Concat", "Sum")
QKV = frozenset("qkv")
"""Letters of the roles of what makes an attention's operands."""


def blocks(parts: Partition) -> Mapping[int, int]:
    """Block index by position of the draft; drafts outside of every block are left out.

    With attention, a block is a self-attention and what follows until the next one. Without, it
    is a stretch of the network where branches run in parallel until a sum or concatenation.
    """
    if parts.attentions:
        return _transformer(parts)
    return _residual(parts)


def _transformer(parts: Partition) -> dict[int, int]:
    owner = {name: at for at, draft in enumerate(parts.drafts) for name in draft.nodes}
    found = _projection_blocks(parts)
    found |= _norm_blocks(parts, owner, found)
    for at, draft in enumerate(parts.drafts):
        if at not in found and draft.kind not in ("embedding", "gemm") and draft.role != "norm":
            around = {found.get(other) for other in _sources(parts.flow, draft, owner)}
            if len(around) == 1 and None not in around:
                found[at] = next(block for block in around if block is not None)
    return found


def _projection_blocks(parts: Partition) -> dict[int, int]:
    """Blocks of what belongs to an attention, and of the feed-forward part behind it."""
    flow = parts.flow
    of_attention = _attention_blocks(parts)
    starts = [flow.position[attention.mix.name] for attention in parts.attentions]
    found: dict[int, int] = {}
    for at, draft in enumerate(parts.drafts):
        place = flow.position[draft.core[0]]
        before = [of_attention[i] for i, start in enumerate(starts) if start < place]
        if draft.attention is not None:
            found[at] = of_attention[draft.attention]
        elif region_role(draft.role).is_feed_forward and before:
            found[at] = before[-1]
    return found


def _norm_blocks(
    parts: Partition, owner: Mapping[str, int], found: Mapping[int, int]
) -> dict[int, int]:
    """Blocks of norms: that of what reads it, or of what it reads on the residual stream."""
    norms = [at for at, draft in enumerate(parts.drafts) if draft.role == "norm"]
    readers = {at: _readers(parts.flow, parts.drafts[at], owner) for at in norms}
    on_stream = {at for at in norms if any(_joins(parts.flow, r) for r in readers[at])}
    blocks: dict[int, int] = {}
    for at in norms:
        # The last norm of a post-norm network is read by nothing that tells.
        last = not readers[at] and len(on_stream) > len(norms) / 2
        if at in on_stream or last:
            near = _sources(parts.flow, parts.drafts[at], owner)
        else:
            near = {owner[reader.name] for reader in readers[at]}
        known = [found[other] for other in near if other in found]
        if known:
            blocks[at] = min(known)
    return blocks


def _attention_blocks(parts: Partition) -> list[int]:
    """Block of each attention; cross-attention belongs to the self-attention before it."""
    read: dict[int, dict[str, str]] = {}
    for draft in parts.drafts:
        if draft.attention is not None and draft.kind == "gemm" and set(draft.role) <= QKV:
            product = parts.flow.graph.by_name[draft.core[0]]
            inputs = read.setdefault(draft.attention, {})
            inputs[draft.role] = multiplied(parts.flow, product)
    found: list[int] = []
    for index in range(len(parts.attentions)):
        inputs = read.get(index, {})
        queries, others = inputs.pop("q", None), set(inputs.values())
        whole = set("".join(inputs)) >= {"k", "v"}
        crosses = queries is not None and whole and queries not in others
        last = found[-1] if found else -1
        found.append(last if crosses and found else last + 1)
    return found


def _readers(flow: Flow, draft: Draft, owner: Mapping[str, int]) -> list[Node]:
    """The nodes of other drafts that read a draft."""
    return [
        reader
        for name in draft.nodes
        for reader in flow.readers(flow.graph.by_name[name])
        if owner[reader.name] != owner[name]
    ]


def _sources(flow: Flow, draft: Draft, owner: Mapping[str, int]) -> set[int]:
    own = owner[draft.core[0]]
    values = (v for name in draft.nodes for v in flow.signal_inputs(flow.graph.by_name[name]))
    producers = (flow.producer(value) for value in values)
    return {owner[node.name] for node in producers if node is not None} - {own}


def _joins(flow: Flow, node: Node) -> bool:
    return node.op_type in JOINS and len(flow.signal_inputs(node)) > 1


def _residual(parts: Partition) -> dict[int, int]:
    flow = parts.flow
    segment = _segments(flow)
    return {
        at: block
        for at, draft in enumerate(parts.drafts)
        if (block := segment.get(draft.core[0])) is not None
    }


def _segments(flow: Flow) -> dict[str, int]:
    """Block by node: a stretch between places where one value alone is alive."""
    last_read = {
        value: max((flow.position[reader.name] for reader in flow.consumers(value)), default=-1)
        for node in flow.nodes
        for value in node.outputs
    }
    found: dict[str, int] = {}
    alive: dict[str, int] = {}
    stretch: list[Node] = []
    count = 0
    for node in flow.nodes:
        stretch.append(node)
        here = flow.position[node.name]
        alive |= {value: last_read[value] for value in node.outputs}
        alive = {value: end for value, end in alive.items() if end > here}
        if len(alive) <= 1:
            if any(_joins(flow, member) for member in stretch):
                found |= {member.name: count for member in stretch}
                count += 1
            stretch = []
    return found
