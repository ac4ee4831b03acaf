"""Pairs of weights between which channels can be scaled: what one produces, only the other reads.

A factor per channel passes through ReLU and its kin, pooling and bias unchanged (a shift takes the
factor itself). So the first weight can be divided by it and the second multiplied.

Source: Nagel et al., Data-Free Quantization, arXiv 1906.04721, section 4.1 (positive scaling
equivariance).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dse.execute.weights.product import Product
from dse.graph.ir.graph import Graph, Node
from dse.graph.ir.operators import VIEWS

_VIEWS = VIEWS - {"Identity"}
_HOMOGENEOUS = VIEWS | {
    "AveragePool", "Dropout", "GlobalAveragePool", "GlobalMaxPool", "LeakyRelu", "MaxPool",
    "PRelu", "Relu",
}  # fmt: skip
"""f(s x) = s f(x) for s > 0 by channel."""
_SHAPE_READERS = frozenset({"Shape", "Size"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Site keys of two weights, and the nodes whose values the factors change."""

    first: str
    second: str
    inside: frozenset[str]
    """The first weight's node and what follows it, up to the second's."""


def pairs_of(
    graph: Graph, products: Mapping[str, Product]
) -> tuple[dict[str, Pair], dict[str, str]]:
    """Pairs by their second weight, and for every other weight what stands before it instead."""
    by_node = {product.node.name: key for key, product in products.items()}
    found: dict[str, Pair] = {}
    refused: dict[str, str] = {}
    for key in products:
        try:
            found[key] = _pair(graph, products, by_node, key)
        except ValueError as error:
            refused[key] = str(error)
    return found, refused


def _pair(
    graph: Graph, products: Mapping[str, Product], by_node: Mapping[str, str], key: str
) -> Pair:
    """The pair that a weight ends; ValueError says what is in its way."""
    product = products[key]
    value, inside, viewed = product.node.inputs[0], set[str](), ""
    while (node := _only_source(graph, value)).name not in by_node:
        inside.add(node.name)
        viewed = node.inputs[0] if node.op_type in _VIEWS else viewed
        value = _through(graph, node)
    first = products[by_node[node.name]]
    _check_channels(graph, first, product, viewed)
    return Pair(first=by_node[node.name], second=key, inside=frozenset({node.name, *inside}))


def _only_source(graph: Graph, value: str) -> Node:
    """The node that computes a value which only one node reads."""
    node = graph.producer.get(value)
    if node is None:
        raise ValueError(f"it reads the model's own {value!r}")
    readers = [r for r in graph.consumers[value] if r.op_type not in _SHAPE_READERS]
    if len(readers) > 1 or value in graph.outputs:
        others = f"{len(readers)} nodes" if len(readers) > 1 else "the model's output"
        raise ValueError(f"{value!r} before it goes to {others}")
    return node


def _check_channels(graph: Graph, first: Product, second: Product, viewed: str) -> None:
    """ValueError unless what the first weight makes is what the second one sums over.

    `viewed` is the value before the first change of shape between them.
    """
    name = first.node.name
    if first.outputs != second.channels:
        raise ValueError(f"{name!r} makes {first.outputs} channels, it reads {second.channels}")
    if second.is_convolution and (viewed or not first.is_convolution):
        raise ValueError(f"what {name!r} makes changes its shape before it")
    if first.is_convolution and not second.is_convolution:
        kind = graph.types.get(viewed)
        spatial = (kind.shape or (0,) * 3)[2:] if kind else (0,)
        if any(size != 1 for size in spatial):
            raise ValueError(f"channels of {name!r} are not alone in its rows")


def _through(graph: Graph, node: Node) -> str:
    """The value behind a node that factors pass; ValueError where they do not."""
    computed = [v for v in node.reads if v not in graph.initializers]
    shifts = node.op_type == "Add" and len(computed) == 1
    folded = node.op_type == "BatchNormalization"
    # Zero stays zero at any scale; an upper end does not.
    rectifies = node.op_type == "Clip" and _bounds(graph, node) == (0.0, None)
    if node.op_type in _HOMOGENEOUS or shifts or folded or rectifies:
        return computed[0] if shifts else node.inputs[0]
    raise ValueError(f"{node.name!r} ({node.op_type}) stands before it, which no factor passes")


def _bounds(graph: Graph, node: Node) -> tuple[float | None, float | None]:
    """Both ends of a Clip; None where there is none or it is computed."""
    ends: list[float | None] = []
    for index, name in enumerate(("min", "max"), start=1):
        value = node.inputs[index] if len(node.inputs) > index else ""
        given = node.attributes.get(name)
        if value:
            known = graph.initializers.get(value)
            ends.append(float("nan") if known is None else float(known.numpy()))
        else:
            ends.append(float(given) if isinstance(given, int | float) else None)
    return ends[0], ends[1]
