"""Blocks of a network: parts that one value leads into and one leads out of.

What a weight computes matters as far as its block's end shows it: activations cut, branches add.

Source: Li et al., BRECQ, arXiv 2102.05426, section 3.2.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from dse.execute.weights.product import Product
from dse.graph.ir.graph import Graph, Node

WEIGHTS = 3
"""A block has at least so many: an inverted bottleneck's, or a gated MLP's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A part of a graph as a graph: its weights are inputs, beside the value that leads in."""

    graph: Graph
    source: str | None
    """The value that leads in; None where that is the model's inputs."""
    weights: Mapping[str, str]
    """The value of every weight by its site key."""


def blocks_of(
    graph: Graph, products: Mapping[str, Product], values: Mapping[str, str]
) -> tuple[Block, ...]:
    """The blocks of a graph in order; every product's weight is in one.

    A block ends at the last value before the next product that alone leads on. What depends on no
    weight (masks, rotary tables) leads nowhere: each block computes it anew.

    Args:
        graph: the model.
        products: by the site key of the weight.
        values: of the weights, by site key.
    """
    by_node: dict[str, list[str]] = {}
    for key, product in products.items():
        by_node.setdefault(product.node.name, []).append(key)
    found: list[Block] = []
    source: str | None = None
    alone: str | None = None
    inside: list[str] = []
    """Weights up to the value that alone leads on."""
    beyond: list[str] = []
    live: dict[str, int] = {}
    touched: set[str] = set()
    for node in graph.nodes:
        here = by_node.get(node.name, [])
        if not here and touched.isdisjoint(node.reads):
            continue
        if here and alone is not None and len(inside) >= WEIGHTS:
            found.append(_block(graph, source, (alone,), inside, values))
            source, inside, alone = alone, [], None
        beyond += here
        touched.update(node.outputs)
        _advance(graph, node, live)
        if len(live) == 1:
            (alone,) = live
            inside, beyond = [*inside, *beyond], []
    ends = tuple(value for value in graph.outputs if value in touched)
    if ends and (inside or beyond):
        found.append(_block(graph, source, ends, [*inside, *beyond], values))
    return tuple(found)


def _advance(graph: Graph, node: Node, live: dict[str, int]) -> None:
    """Counts down what a node reads; what it makes is live while somebody is to read it."""
    for value in node.reads:
        if value in live:
            live[value] -= 1
            if not live[value]:
                del live[value]
    for value in node.outputs:
        readers = len(graph.consumers.get(value, ())) + (value in graph.outputs)
        if value and readers:
            live[value] = readers


def _block(
    graph: Graph,
    source: str | None,
    ends: tuple[str, ...],
    keys: Iterable[str],
    values: Mapping[str, str],
) -> Block:
    weights = {key: values[key] for key in keys}
    given = {*weights.values(), *([] if source is None else [source])}
    wanted, nodes = set(ends), list[Node]()
    for node in reversed(graph.nodes):
        if not wanted.isdisjoint(node.outputs) and given.isdisjoint(node.outputs):
            nodes.append(node)
            wanted.update(node.reads)
    leads = [value for value in graph.inputs if value in wanted]
    part = replace(
        graph,
        nodes=tuple(reversed(nodes)),
        inputs=tuple(dict.fromkeys([*leads, *([source] if source else []), *weights.values()])),
        outputs=ends,
        initializers={
            name: constant
            for name, constant in graph.initializers.items()
            if name in wanted and name not in given
        },
    )
    return Block(graph=part, source=source, weights=weights)
