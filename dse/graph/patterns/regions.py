"""Regions: the partition of a graph with readable names, blocks and sites."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence

from dse.graph.ir.site import Region, Site
from dse.graph.patterns.depth import blocks
from dse.graph.patterns.flow import Flow
from dse.graph.patterns.partition import Draft, Partition

SHAPE_REGION = "shape"
"""The region of everything that prepares sizes, masks and positions, and costs nothing."""


def regions(
    parts: Partition, sites: Sequence[Site], given: Collection[str] = ()
) -> tuple[Region, ...]:
    """The drafts of a partition with names, blocks and their sites; side computation last.

    `given`: nodes whose products come quantized.
    """
    flow = parts.flow
    places = blocks(parts)
    names = _names(parts.drafts, [places.get(at) for at in range(len(parts.drafts))])
    by_node: dict[str, list[Site]] = {}
    for site in sites:
        by_node.setdefault(site.node, []).append(site)
    last = max(len(parts.drafts) - 1, 1)
    found = [
        Region(
            name=name,
            kind=draft.kind,
            role=draft.role,
            block=places.get(at),
            relative_depth=at / last,
            nodes=tuple(sorted(draft.nodes, key=flow.position.__getitem__)),
            sites=tuple(site for node in draft.nodes for site in by_node.get(node, ())),
            is_given=any(node in given for node in draft.core),
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
