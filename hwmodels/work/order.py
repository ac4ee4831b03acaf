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
    # By region and place: copies of a block have names of operations in common.
    ops = {
        (index, number): op
        for index, region in enumerate(work.regions)
        for number, op in enumerate(region.ops)
    }
    writer = {value: key for key, op in ops.items() for value in _written(op)}
    reads = {
        key: [writer[value] for value in _read(op) if value in writer] for key, op in ops.items()
    }
    last = [writer[value] for value in work.outputs if value in writer]
    run = _behind([*reversed(last), *ops], lambda key: reads[key][::-1])
    ended = dict.fromkeys(range(len(work.regions)), -1)
    ended |= {index: place for place, (index, _) in enumerate(run)}
    held: Mapping[int, list[int]] = {
        index: sorted(
            {one for number in range(len(region.ops)) for one, _ in reads[index, number]}
            - {index},
            key=ended.__getitem__,
        )
        for index, region in enumerate(work.regions)
    }
    ends = sorted(held, key=ended.__getitem__)
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
