"""Canonical regions: repeated blocks, which differ in names only, are planned and priced once."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, replace

from hwmodels.work.work import Op, Operand, RegionWork


@dataclass(frozen=True, slots=True, kw_only=True)
class Structure:
    """Everything about a region but its names."""

    key: Hashable
    """Equal for regions that differ in the names of values and operations only."""
    values: tuple[str, ...]
    """The real name of canonical value `i`, in order of appearance."""


def structure_of(region: RegionWork) -> Structure:
    """The structure of a region.

    The key holds the operands themselves, so that whatever they have counts; only the name of a
    value is replaced, by its place in the order of appearance.
    """
    places: dict[str, int] = {}
    key = (
        region.kind,
        tuple(_op_key(op, places) for op in region.ops),
        _operands_key(region.reads, places),
        _operands_key(region.writes, places),
    )
    return Structure(key=key, values=tuple(places))


def canonical_region(region: RegionWork, structure: Structure) -> RegionWork:
    """The region with values named `0`, `1`, ... and operations by position."""
    names = {value: str(place) for place, value in enumerate(structure.values)}
    return replace(
        region,
        name="",
        ops=tuple(_renamed_op(op, str(index), names) for index, op in enumerate(region.ops)),
        reads=_renamed(region.reads, names),
        writes=_renamed(region.writes, names),
    )


def _op_key(op: Op, places: dict[str, int]) -> tuple[Hashable, ...]:
    return (
        op.kind,
        op.detail,
        op.accumulator,
        tuple(sorted(op.sizes.items())),
        _operands_key(op.operands, places),
        tuple(_op_key(part, places) for part in op.decomposition),
    )


def _operands_key(operands: tuple[Operand, ...], places: dict[str, int]) -> tuple[Hashable, ...]:
    return tuple(
        (places.setdefault(operand.value, len(places)), *operand.traits) for operand in operands
    )


def _renamed_op(op: Op, name: str, names: dict[str, str]) -> Op:
    return replace(
        op,
        name=name,
        operands=_renamed(op.operands, names),
        decomposition=tuple(
            _renamed_op(part, f"{name}.{index}", names)
            for index, part in enumerate(op.decomposition)
        ),
    )


def _renamed(operands: tuple[Operand, ...], names: dict[str, str]) -> tuple[Operand, ...]:
    return tuple(replace(operand, value=names[operand.value]) for operand in operands)
