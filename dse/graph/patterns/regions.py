"""Regions: the partition of a graph with readable names, blocks and sites."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from dse.graph.ir.graph import Graph
from dse.graph.ir.site import Region, Site
from dse.graph.patterns.depth import blocks
from dse.graph.patterns.flow import Flow, analyse
from dse.graph.patterns.partition import Draft, Partition, partition
from dse.graph.patterns.sites import contraction_sites

SHAPE_REGION = "shape"
"""The region of everything that prepares sizes, masks and positions, and costs nothing."""


def regions(graph: Graph) -> tuple[Region, ...]:
    """What a compiling runtime executes as one kernel, in an order of execution.

    Every node is in exactly one region. Side computation (sizes, masks, rotary tables, folded
    weights) is the last region, `shape`, if there is any.

    Raises:
        GraphError: The rank of a contracting node's operand is unknown.
    """
    flow = analyse(graph)
    parts = partition(flow)
    places = blocks(parts)
    names = _names(parts.drafts, [places.get(at) for at in range(len(parts.drafts))])
    sites = _sites_by_node(parts)
    last = max(len(parts.drafts) - 1, 1)
    found = [
        Region(
            name=name,
            kind=draft.kind,
            role=draft.role,
            block=places.get(at),
            relative_depth=at / last,
            nodes=tuple(sorted(draft.nodes, key=flow.position.__getitem__)),
            sites=tuple(site for node in draft.nodes for site in sites.get(node, ())),
        )
        for at, (name, draft) in enumerate(zip(names, parts.drafts, strict=True))
    ]
    return (*found, *_side(flow))


def _side(flow: Flow) -> tuple[Region, ...]:
    nodes = tuple(node.name for node in flow.graph.nodes if node.name not in flow.signal)
    if not nodes:
        return ()
    return (
        Region(
            name=SHAPE_REGION,
            kind="other",
            role=SHAPE_REGION,
            block=None,
            relative_depth=0.0,
            nodes=nodes,
            sites=(),
        ),
    )


def _names(drafts: Sequence[Draft], places: Sequence[int | None]) -> list[str]:
    """`blocks.<block>/<role>`, or the role alone; numbered from 1 where that is not unique.

    Convolutions, and norms of blocks, always have a number.
    """
    bases = [
        draft.role if place is None else f"blocks.{place}/{draft.role}"
        for draft, place in zip(drafts, places, strict=True)
    ]
    total = Counter(bases)
    seen: Counter[str] = Counter()
    names = []
    for draft, place, base in zip(drafts, places, bases, strict=True):
        seen[base] += 1
        always = draft.role == "conv" or (draft.role == "norm" and place is not None)
        names.append(f"{base}_{seen[base]}" if always or total[base] > 1 else base)
    return names


def _sites_by_node(parts: Partition) -> dict[str, list[Site]]:
    found: dict[str, list[Site]] = {}
    for site in contraction_sites(parts.flow, parts.attentions):
        found.setdefault(site.node, []).append(site)
    return found
