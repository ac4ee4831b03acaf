"""Products of a mixture of experts: one weight matrix an expert, rows chosen by a router."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from dse.graph.ir.graph import Node
from dse.graph.ir.operators import (
    CONVOLUTIONS,
    ELEMENTWISE,
    LAYOUT,
    MATMULS,
    REPEATS,
    SOFTMAXES,
    TRANSPARENT,
)
from dse.graph.patterns.contraction import Factor, factors, shape
from dse.graph.patterns.flow import Flow
from dse.graph.patterns.masked_experts import Router, masked, scaled_rows
from dse.graph.patterns.routing import choice, chooser

Form = Literal["stacked", "gathered", "listed", "masked"]
STACKED_RANK = 3
"""(experts, in, out), in any order of the last two."""
ROWS = LAYOUT | {"GatherND"}
"""Operators that bring the rows of the tokens to an expert."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Expert:
    """A product with the weights of one expert or of all of them."""

    node: Node
    form: Form
    """`stacked`: all experts times all tokens, with one static (E, K, N) tensor; `gathered`: the
    matrices of each token's experts picked out of it; `listed`: one node an expert, on the rows
    that chose it; `masked`: one node an expert, on all rows."""
    router: Node | None
    """The TopK that chooses the experts; None where every token takes all of them."""
    until: Node | None = None
    """The node that multiplies results of a masked product by zero if they were not chosen."""

    @property
    def is_single(self) -> bool:
        """Whether the node has the weights of one expert."""
        return self.form in ("listed", "masked")


def experts(flow: Flow) -> Mapping[str, Expert]:
    """The products of experts by node name, in graph order.

    A first product reads the tokens that the router of its layer scores, or rows that it chose; a
    second one reads first ones through elementwise nodes. Without a router, stacked products
    that follow each other with as many experts are a mixture all of whose experts are taken.
    """
    products = [node for node in flow.nodes if node.op_type in MATMULS and flow.has_weight(node)]
    chooses = any(node.op_type == "TopK" for node in flow.graph.nodes)
    stacks = {node.name: size for node in products if (size := _stacked(flow, node)) is not None}
    if not chooses and not stacks:
        return {}
    routers = tuple(_routers(flow))
    single = frozenset(node.name for node in products) - stacks.keys()
    found = {
        part.product.name: Expert(
            node=part.product, form="masked", router=part.router.topk, until=part.until
        )
        for part in masked(flow, routers, lambda value: _side_by_side(flow, value, single))
    }
    for node in products:
        if node.name in found:
            continue
        first = _first(flow, node, stacks, routers)
        if first is not None:
            found[node.name] = first
            continue
        behind = [name for name in _behind(flow, node) if name != node.name]
        behind = [n for n in behind if n not in found or found[n].form != "masked"]  # complete
        known = next((found[name] for name in behind if name in found), None)
        size = stacks.get(node.name)
        if known is not None and size == stacks.get(known.node.name):
            found[node.name] = Expert(node=node, form=known.form, router=known.router)
        elif size is not None and known is None:
            firsts = [name for name in behind if stacks.get(name) == size]
            for name in (*firsts, node.name) if firsts else ():
                found[name] = Expert(node=flow.graph.by_name[name], form="stacked", router=None)
    return {name: found[name] for name in sorted(found, key=flow.position.__getitem__)}


def scorers(flow: Flow, found: Mapping[str, Expert]) -> frozenset[str]:
    """The products that score the experts for the routers of `found`."""
    used = {expert.router.name for expert in found.values() if expert.router is not None}
    return frozenset(router.scorer.name for router in _routers(flow) if router.topk.name in used)


def dispatch(flow: Flow, names: Sequence[str]) -> frozenset[str]:
    """The nodes that bring rows and matrices to the products `names`, and nothing else reads.

    Repeating tokens, scaling them by the choice, gathering rows and gathering matrices are done by
    a grouped product itself.
    """
    inside = set(names)
    queue = [flow.graph.by_name[name] for name in names]
    while queue:
        reader = queue.pop()
        for value in flow.signal_inputs(reader):
            node = flow.producer(value)
            if node is None or node.name in inside:
                continue
            if not _dispatches(flow, node) and dispatched(flow, node) is None:
                continue
            if all(other.name in inside for other in flow.readers(node)):
                inside.add(node.name)
                queue.append(node)
    return frozenset(inside - set(names))


def dispatched(flow: Flow, node: Node) -> str | None:
    """The rows that a Mul scales by a router's choice on their way to its experts."""
    found = scaled_rows(flow, node, tuple(_routers(flow))) if node.op_type == "Mul" else None
    return found[0] if found is not None else None


def _dispatches(flow: Flow, node: Node) -> bool:
    if node.op_type in ("Gather", "GatherND"):
        return flow.is_signal(node.inputs[1])
    return node.op_type in TRANSPARENT | REPEATS


def weight_factor(flow: Flow, node: Node) -> Factor:
    """The operand of an expert's product that is the weight."""
    index = flow.weight_index(node)
    return next(factor for factor in factors(flow.graph, node) if factor.index == index)


def token_factor(flow: Flow, node: Node) -> Factor:
    """The operand of an expert's product that is not."""
    index = flow.weight_index(node)
    return next(
        factor
        for factor in factors(flow.graph, node)
        if factor.index != index and factor.part != "bias"
    )


def _routers(flow: Flow) -> Iterator[Router]:
    for topk in flow.nodes:
        sizes = choice(topk, flow.graph.types) if topk.op_type == "TopK" else None
        scorer = next(_products(flow, [topk.inputs[0]], SOFTMAXES), None) if sizes else None
        if sizes is not None and scorer is not None:
            tokens = flow.back(scorer.inputs[token_factor(flow, scorer).index], ROWS)
            yield Router(topk=topk, scorer=scorer, tokens=tokens, experts=sizes[0])


def _first(
    flow: Flow, node: Node, stacks: Mapping[str, int], routers: Sequence[Router]
) -> Expert | None:
    """The expert whose product reads tokens, not the result of another one."""
    table = flow.table(node.inputs[weight_factor(flow, node).index])
    if table is not None:
        topk = chooser(flow.graph, table.inputs[1])
        return Expert(node=node, form="gathered", router=topk) if topk is not None else None
    tokens = node.inputs[token_factor(flow, node).index]
    if node.name not in stacks:
        topk = _rows_chosen_by(flow, tokens)
        return Expert(node=node, form="listed", router=topk) if topk is not None else None
    size, start = stacks[node.name], flow.back(tokens, ROWS)
    scaled = flow.producer(start)
    if scaled is not None and (found := scaled_rows(flow, scaled, routers)) is not None:
        start = flow.back(found[0], ROWS)
        routers = [found[1]]
    for router in routers:
        if (router.tokens, router.experts) == (start, size):
            return Expert(node=node, form="stacked", router=router.topk)
    return None


def _rows_chosen_by(flow: Flow, value: str) -> Node | None:
    """The TopK that chose the rows of a value out of all tokens."""
    while (node := flow.graph.producer.get(value)) is not None and node.op_type in ROWS:
        if node.op_type in ("Gather", "GatherND") and flow.is_signal(node.inputs[1]):
            return chooser(flow.graph, node.inputs[1])
        value = node.inputs[0]
    return None


def _stacked(flow: Flow, node: Node) -> int | None:
    """The number of matrices that the static weight of a product holds; None for one matrix."""
    factor = weight_factor(flow, node)
    if node.inputs[factor.index] not in flow.static or node.op_type not in ("MatMul", "Einsum"):
        return None
    sizes = shape(flow.graph, node, factor.index)
    first = sizes[0] if sizes else None
    if len(sizes) != STACKED_RANK or factor.axes not in ((1,), (2,)) or not isinstance(first, int):
        return None
    return first if first > 1 else None


def _behind(flow: Flow, node: Node) -> list[str]:
    tokens = node.inputs[token_factor(flow, node).index]
    return [product.name for product in _products(flow, [tokens], frozenset())]


def _side_by_side(flow: Flow, value: str, single: frozenset[str]) -> list[Node]:
    """The products of one matrix each behind a value, also where a Concat has them all."""
    found = _products(flow, [value], frozenset({"Concat"}))
    return [node for node in found if node.name in single]


def _products(flow: Flow, values: Sequence[str], also: frozenset[str]) -> Iterator[Node]:
    """Products with weights behind values through elementwise and layout nodes, and `also`."""
    queue, seen = list(values), set[str]()
    while queue:
        node = flow.producer(queue.pop())
        if node is None or node.name in seen:
            continue
        seen.add(node.name)
        if node.op_type not in CONVOLUTIONS and flow.has_weight(node):
            yield node
        elif node.op_type in ELEMENTWISE | LAYOUT | also:
            queue += flow.signal_inputs(node)
