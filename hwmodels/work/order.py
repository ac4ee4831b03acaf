"""Order in which a compiler runs the regions of a network.

A compiler that goes backwards from the outputs puts each operation behind all that it reads, last
operands first, so that what a sum reads first is computed right before it. What a branch leaves
time for, and what is alive beside it, follow from that order.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import TypeVar

from hwmodels.work.work import Op, Work

Node = TypeVar("Node", bound=Hashable)


def backwards(work: Work) -> tuple[int, ...]:
    """Regions of a network by index, as they run if they are gathered from its outputs.

    A region comes where its last operation does. Regions that no output needs come last, as the
    network has them.
    """
    region_of = {op.name: index for index, region in enumerate(work.regions) for op in region.ops}
    ops = {op.name: op for region in work.regions for op in region.ops}
    writer = {value: op.name for op in ops.values() for value in _written(op)}
    reads = {
        name: [writer[value] for value in _read(op) if value in writer] for name, op in ops.items()
    }
    last = [writer[value] for value in work.outputs if value in writer]
    place = {
        name: index
        for index, name in enumerate(_behind([*reversed(last), *ops], lambda op: reads[op][::-1]))
    }
    held: Mapping[int, list[int]] = {
        index: sorted(
            {region_of[one] for op in region.ops for one in reads[op.name]} - {index},
            key=lambda other: max(place[op.name] for op in work.regions[other].ops),
        )
        for index, region in enumerate(work.regions)
    }
    ends = sorted(held, key=lambda index: max((place[op.name] for op in work.regions[index].ops),
                                              default=-1))  # fmt: skip
    return tuple(_behind(ends, lambda index: held[index]))


def _behind(starts: Iterable[Node], needs: Callable[[Node], Iterable[Node]]) -> list[Node]:
    """Nodes, each behind all that it needs, depth first."""
    found: dict[Node, None] = {}
    begun: set[Node] = set()
    stack = [(start, False) for start in reversed([*starts])]
    while stack:
        node, complete = stack.pop()
        if complete:
            found.setdefault(node)
        elif node not in begun:
            begun.add(node)
            stack.append((node, True))
            stack += [(other, False) for other in reversed([*needs(node)])]
    return [*found]


def _written(op: Op) -> list[str]:
    return [operand.value for operand in op.operands if operand.name == "output"]


def _read(op: Op) -> list[str]:
    return [operand.value for operand in op.operands if operand.name != "output"]
