"""The region of one network that plays the part of a region of another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

from dse.graph.ir.site import Region, Site

Item = TypeVar("Item")


def correspond(source: Sequence[Region], target: Sequence[Region]) -> Mapping[str, str | None]:
    """For every target region the source region of the same kind, role and relative place.

    Block j of the n target blocks that have a role maps to block floor(j * m / n) of the m source
    blocks that have it, and equally for several such regions in a block. Where one network has
    the role inside of blocks and the other outside, the nearest relative depth decides. None
    where the source has no region of that kind and role.
    """
    found: dict[str, str | None] = {}
    for part in {(region.kind, region.role): None for region in target}:
        wanted = [region for region in target if (region.kind, region.role) == part]
        given = [region for region in source if (region.kind, region.role) == part]
        found |= _within_role(given, wanted)
    return {region.name: found[region.name] for region in target}


def correspond_by_name(
    source: Sequence[Region], target: Sequence[Region]
) -> Mapping[str, str | None]:
    """For every region of a network the region of another form of it.

    Products have the names of their modules in every form, so that they find each other whatever
    stands around them; None for products that only one form has. Other regions go by role.
    """
    owner = {site.node: region.name for region in source for site in _weights(region)}
    found = dict(correspond(source, target))
    for region in target:
        nodes = [site.node for site in _weights(region)]
        if nodes:
            found[region.name] = next((owner[node] for node in nodes if node in owner), None)
    return found


def _weights(region: Region) -> list[Site]:
    return [site for site in region.sites if site.role == "weight"]


def _within_role(given: Sequence[Region], wanted: Sequence[Region]) -> dict[str, str | None]:
    if not given:
        return dict.fromkeys((region.name for region in wanted), None)
    source_blocks, target_blocks = _by_block(given), _by_block(wanted)
    found: dict[str, str | None] = {}
    for region in wanted:
        if region.block is not None and source_blocks:
            place = list(target_blocks).index(region.block)
            same = _scaled(list(source_blocks.values()), place, len(target_blocks))
            place = target_blocks[region.block].index(region)
            match = _scaled(same, place, len(target_blocks[region.block]))
        else:
            outside = [other for other in given if other.block is None]
            nearest = outside if region.block is None and outside else given
            match = min(nearest, key=lambda r: abs(r.relative_depth - region.relative_depth))
        found[region.name] = match.name
    return found


def _by_block(regions: Sequence[Region]) -> dict[int, list[Region]]:
    found: dict[int, list[Region]] = {}
    for region in regions:
        if region.block is not None:
            found.setdefault(region.block, []).append(region)
    return dict(sorted(found.items()))


def _scaled(items: Sequence[Item], place: int, count: int) -> Item:
    return items[place * len(items) // count]
