"""Work of a block that a network holds several times, one copy after the other.

Every copy has weights and caches of its own. What the network hands on (`feeds`) is written by one
copy and read by the next; inputs beside that, such as masks and rotary tables, are the same for
all. So kernels at the border of two copies follow each other as within one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from hwmodels.work.memory import is_activation
from hwmodels.work.work import Op, Operand, RegionWork, Work


def repeated_work(work: Work, count: int, feeds: Mapping[str, str]) -> Work:
    """The work of `count` copies in a chain; regions are in the order of execution.

    Args:
        work: Of one block.
        count: Number of copies.
        feeds: Input of a copy by the output of the copy before that it reads.
    """
    copies = [_Copy(index=index, feeds=feeds, shared=_shared(work)) for index in range(count)]
    fed = set(feeds)
    kept = [
        copy.named(value)
        for copy in copies
        for value in work.outputs
        if value not in fed or copy.index == count - 1
    ]
    return replace(
        work,
        regions=tuple(copy.region(region) for copy in copies for region in work.regions),
        outputs=tuple(dict.fromkeys(kept)),
    )


def copy_name(name: str, index: int) -> str:
    """The name of a region or value in a copy, counted from 0."""
    return name if index == 0 else f"{name}@{index + 1}"


def _shared(work: Work) -> frozenset[str]:
    """Activations that the block reads and does not write: its inputs."""
    written = {o.value for r in work.regions for op in r.ops for o in _outputs(op)}
    read = {o.value for r in work.regions for op in r.ops for o in op.operands if is_activation(o)}
    return frozenset(read - written)


def _outputs(op: Op) -> list[Operand]:
    inner = [operand for part in op.decomposition for operand in _outputs(part)]
    return [*(operand for operand in op.operands if operand.name == "output"), *inner]


class _Copy:
    """One copy, and the names of its values."""

    def __init__(self, *, index: int, feeds: Mapping[str, str], shared: frozenset[str]) -> None:
        self.index = index
        self.inputs = {input_: output for output, input_ in feeds.items()} if index else {}
        self.shared = shared

    def named(self, value: str) -> str:
        if value in self.inputs:
            return copy_name(self.inputs[value], self.index - 1)
        return value if value in self.shared else copy_name(value, self.index)

    def operands(self, operands: tuple[Operand, ...]) -> tuple[Operand, ...]:
        return tuple(replace(one, value=self.named(one.value)) for one in operands)

    def op(self, op: Op) -> Op:
        return replace(
            op,
            operands=self.operands(op.operands),
            decomposition=tuple(self.op(part) for part in op.decomposition),
        )

    def region(self, region: RegionWork) -> RegionWork:
        return replace(
            region,
            name=copy_name(region.name, self.index),
            ops=tuple(self.op(op) for op in region.ops),
            reads=self.operands(region.reads),
            writes=self.operands(region.writes),
        )
