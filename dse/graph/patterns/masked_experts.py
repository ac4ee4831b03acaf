"""Experts that are computed for every token, their results multiplied by zero where not chosen.

Exporters write a mixture out like that where a loop over experts is unrolled without gathering
rows: expert by expert x -> f(x), times the column of a mask that a TopK made. What is multiplied
by such a column belongs to an expert.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from dse.graph.ir.graph import Node
from dse.graph.ir.operators import SOFTMAXES
from dse.graph.patterns.flow import Flow
from dse.graph.patterns.routing import INDEXING

MASKING = INDEXING | SOFTMAXES | {"GatherElements", "ReduceSum", "ScatterElements", "ScatterND"}
"""Operators that make weights of all experts out of those that were chosen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Router:
    """A TopK over scores of experts."""

    topk: Node
    scorer: Node
    tokens: str
    """The value whose rows it scores, before any change of layout."""
    experts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Masked:
    """A product of one expert, and where its results meet the mask."""

    product: Node
    router: Router
    until: Node


def masked(
    flow: Flow, routers: Sequence[Router], behind: Callable[[str], Sequence[Node]]
) -> Iterator[Masked]:
    """The products whose results a router's mask multiplies, last ones of an expert first.

    Args:
        flow: of the graph.
        routers: whose masks count.
        behind: the products with weights that a value is made of by elementwise nodes.
    """
    for node in flow.nodes:
        if node.op_type != "Mul" or not routers:
            continue
        for mask, result in (node.inputs[:2], node.inputs[1::-1]):
            router = maker(flow, mask, routers)
            if router is not None:
                for product in behind(result):
                    yield from _of_expert(flow, product, router, node, behind)


def _of_expert(
    flow: Flow, last: Node, router: Router, until: Node, behind: Callable[[str], Sequence[Node]]
) -> Iterator[Masked]:
    """The products of the expert that ends with `last`, if it begins with the router's tokens."""
    firsts = [] if _reads(flow, last, router) else behind(last.inputs[0])
    if all(_reads(flow, first, router) for first in firsts or [last]):
        for product in (last, *firsts):
            yield Masked(product=product, router=router, until=until)


def _reads(flow: Flow, product: Node, router: Router) -> bool:
    return flow.back(product.inputs[0]) == router.tokens


def scaled_rows(flow: Flow, node: Node, routers: Sequence[Router]) -> tuple[str, Router] | None:
    """The rows that a Mul scales by a router's choice before the experts, as Llama 4's do.

    Rows that were not chosen become zeros there, and zeros pass through experts without biases.
    """
    if node.op_type != "Mul":
        return None
    for mask, rows in (node.inputs[:2], node.inputs[1::-1]):
        router = maker(flow, mask, routers)
        if router is not None:
            return rows, router
    return None


def maker(flow: Flow, value: str, routers: Sequence[Router]) -> Router | None:
    """The router that a value is made of, and of no other signal; None without one."""
    by_topk = {router.topk.name: router for router in routers}
    scorers = {router.scorer.name for router in routers}
    found: dict[str, Router] = {}
    queue, seen = [value], set[str]()
    while queue:
        node = flow.producer(current := queue.pop())
        if node is None and flow.is_signal(current):
            return None
        if node is None or node.name in seen or node.name in scorers:
            continue
        seen.add(node.name)
        if node.name in by_topk:
            found[node.name] = by_topk[node.name]
        elif node.op_type in MASKING:
            queue += flow.signal_inputs(node)
        else:
            return None
    return next(iter(found.values())) if len(found) == 1 else None
