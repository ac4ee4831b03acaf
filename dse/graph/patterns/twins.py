"""Regions of branches that multiply the same weights: a merged decoder has each product twice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from dse.graph.ir.flat import Flat, Scope
from dse.graph.ir.site import Region
from dse.graph.patterns.flow import Flow

Key = tuple[str, tuple[tuple[str, tuple[int, ...]], ...]]
"""Kind of a region, and the constants that it multiplies with their contraction axes."""


def with_twins(regions: Sequence[Region], flat: Flat, flow: Flow) -> tuple[Region, ...]:
    """The regions, each with the first one that is its like in another branch of the same If.

    Exporters merge the decoder with a cache and the one without into the branches of one If, with
    one copy of the weights: what is decided about a weight is decided for both.
    """
    if not flat.scopes:
        return tuple(regions)
    found: list[Region] = []
    first: dict[Key, list[Region]] = {}
    for region in regions:
        key = _key(region, flow)
        scope = flat.scopes.get(region.nodes[0], ())
        alike = first.setdefault(key, []) if key is not None and scope else []
        twin = next((one for one in alike if _is_other_branch(flat, one, scope)), None)
        if twin is None:
            alike.append(region)
        found.append(region if twin is None else replace(region, twin=twin.name))
    return tuple(found)


def _key(region: Region, flow: Flow) -> Key | None:
    """The part of a region that twins have in common; None without weights."""
    weights = tuple(
        (flow.back(site.value), site.contraction_axes)
        for site in region.sites
        if site.role == "weight"
    )
    return (region.kind, weights) if weights else None


def _is_other_branch(flat: Flat, region: Region, scope: Scope) -> bool:
    """Whether a region stands in the other branch of an If that a scope is in."""
    other = flat.scopes.get(region.nodes[0], ())
    apart = next((pair for pair in zip(scope, other, strict=False) if pair[0] != pair[1]), None)
    return apart is not None and apart[0][0] == apart[1][0]
