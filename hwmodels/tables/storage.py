"""Tensor-side Q/DQ: the region that decides in which format a tensor is stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hwmodels.work.memory import is_activation
from hwmodels.work.work import RegionWork, Work


def storage_owners(work: Work, decided: Sequence[bool]) -> Mapping[str, int]:
    """The region whose choice decides in which format each activation is stored.

    It is the first region with a choice (`decided`) that reads the value; a region without one
    passes the question on to those that read what it writes; where no reader has a choice, the
    region that writes the value decides, or what that one reads. Values that nothing decides are
    left out.
    """
    readers: dict[str, list[int]] = {}
    writer: dict[str, int] = {}
    for index, region in enumerate(work.regions):
        for operand in filter(is_activation, region.reads):
            readers.setdefault(operand.value, []).append(index)
        for operand in region.writes:
            writer[operand.value] = index
    forward = _forward_owners(work.regions, readers, decided)
    found: dict[str, int] = {}
    for region_index, region in enumerate(work.regions):
        inherited = next(
            (found[operand.value] for operand in region.reads if operand.value in found), None
        )
        own = region_index if decided[region_index] else inherited
        for operand in filter(is_activation, region.reads):
            if operand.value not in writer and operand.value in forward:
                found.setdefault(operand.value, forward[operand.value])
        for operand in region.writes:
            owner = forward.get(operand.value, own)
            if owner is not None:
                found[operand.value] = owner
    return found


def _forward_owners(
    regions: Sequence[RegionWork],
    readers: Mapping[str, Sequence[int]],
    decided: Sequence[bool],
) -> dict[str, int]:
    """By the readers alone, last region first, so that a passed-on question is answered."""
    found: dict[str, int] = {}
    values = {o.value: None for region in reversed(regions) for o in reversed(region.writes)}
    inputs = {value: None for value in readers if value not in values}
    for value in (*values, *inputs):
        for index in readers.get(value, ()):
            if decided[index]:
                found[value] = index
                break
            passed = next(
                (found[o.value] for o in regions[index].writes if o.value in found), None
            )
            if passed is not None:
                found[value] = passed
                break
    return found
