"""Regions that differ in names only: repeated blocks are planned and priced once."""

from __future__ import annotations

from dataclasses import dataclass, replace

from hwmodels.work.work import Op, Operand, RegionWork


@dataclass(frozen=True, slots=True, kw_only=True)
class Canonical:
    """A region with its values renamed in order of appearance."""

    region: RegionWork
    key: str
    """Equal for regions that differ in names only."""
    values: tuple[str, ...]
    """The real name of canonical value `i`."""


def canonical(region: RegionWork) -> Canonical:
    """The region with values named `0`, `1`, ... and ops by position."""
    names: dict[str, str] = {}
    ops = tuple(_renamed_op(op, str(index), names) for index, op in enumerate(region.ops))
    renamed = replace(
        region,
        name="",
        ops=ops,
        reads=_renamed(region.reads, names),
        writes=_renamed(region.writes, names),
    )
    key = repr((renamed.kind, [_op_key(op) for op in ops], renamed.reads, renamed.writes))
    return Canonical(region=renamed, key=key, values=tuple(names))


def _renamed_op(op: Op, name: str, names: dict[str, str]) -> Op:
    return replace(
        op,
        name=name,
        operands=_renamed(op.operands, names),
        written=tuple(
            _renamed_op(part, f"{name}.{index}", names) for index, part in enumerate(op.written)
        ),
    )


def _renamed(operands: tuple[Operand, ...], names: dict[str, str]) -> tuple[Operand, ...]:
    return tuple(
        replace(operand, value=names.setdefault(operand.value, str(len(names))))
        for operand in operands
    )


def _op_key(op: Op) -> tuple[object, ...]:
    parts = [_op_key(part) for part in op.written]
    return op.kind, op.detail, sorted(op.sizes.items()), op.operands, parts
