"""Sites: every operand that can take a number format, with role and contraction axes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from dse.graph.ir.graph import Graph, Node
from dse.graph.ir.operators import TRANSPARENT
from dse.graph.ir.site import Site
from dse.graph.patterns.attention import Attention
from dse.graph.patterns.contraction import Factor, factors, is_contracting, shape
from dse.graph.patterns.flow import FLOATS, Flow, is_lookup


def other_sites(flow: Flow) -> Iterator[Site]:
    """The float operands and results of all nodes that carry the signal but do not contract."""
    for node in flow.nodes:
        if not is_contracting(node):
            yield from _inputs(flow, node)
            yield from _outputs(flow, node)


def contraction_sites(flow: Flow, found: Sequence[Attention]) -> Iterator[Site]:
    """The sites of contracting nodes, given the attentions of the graph.

    Operands that are integers have a number format already: they are no sites, nor is what meets
    such a weight, which its operator rounds.
    """
    roles = _attention_roles(found)
    for node in flow.nodes:
        if is_contracting(node) and not is_quantized(flow.graph, node):
            for factor in factors(flow.graph, node):
                yield _factor_site(flow, node, factor, roles)
            yield from _outputs(flow, node)


def quantized_nodes(flow: Flow) -> tuple[str, ...]:
    """The contracting nodes whose operands are integers: quantized before, and left so."""
    return tuple(n.name for n in flow.nodes if is_contracting(n) and is_quantized(flow.graph, n))


def dequantized_nodes(flow: Flow) -> tuple[str, ...]:
    """The contracting nodes that multiply floats from an activation that was quantized."""
    return tuple(n.name for n in flow.nodes if is_contracting(n) and _reads_dequantized(flow, n))


def _reads_dequantized(flow: Flow, node: Node) -> bool:
    """Whether a signal that a node multiplies comes from DequantizeLinear, moved about or not."""
    for factor in factors(flow.graph, node):
        made = flow.producer(node.inputs[factor.index])
        while made is not None and made.op_type in TRANSPARENT:
            made = flow.producer(made.inputs[0])
        if made is not None and made.op_type == "DequantizeLinear":
            return True
    return False


def is_quantized(graph: Graph, node: Node) -> bool:
    """Whether a contracting node multiplies integers."""
    kinds = [
        graph.types.get(node.inputs[factor.index])
        for factor in factors(graph, node)
        if factor.part != "bias"
    ]
    return any(kind is not None and "int" in kind.dtype for kind in kinds)


def _attention_roles(found: Sequence[Attention]) -> dict[tuple[str, int], str]:
    roles: dict[tuple[str, int], str] = {}
    for attention in found:
        roles[attention.q.node.name, attention.q.index] = "q"
        roles[attention.k.node.name, attention.k.index] = "k_cache"
        roles[attention.v.node.name, attention.v.index] = "v_cache"
        if attention.probabilities is not None:
            operand = attention.probabilities
            roles[operand.node.name, operand.index] = "probabilities"
    return roles


def _factor_site(
    flow: Flow, node: Node, factor: Factor, roles: dict[tuple[str, int], str]
) -> Site:
    value = node.inputs[factor.index]
    role = "activation"
    if factor.part == "bias":
        role = "bias"
    elif (node.name, factor.index) in roles:
        role = roles[node.name, factor.index]
    elif value in flow.static or flow.table(value) is not None:
        role = "weight"
    return Site(
        node=node.name,
        operand=f"in{factor.index}",
        value=value,
        role=role,
        shape=shape(flow.graph, node, factor.index),
        contraction_axes=factor.axes,
    )


def _inputs(flow: Flow, node: Node) -> Iterator[Site]:
    for index, value in enumerate(node.inputs):
        kind = flow.graph.types.get(value)
        if kind is not None and kind.dtype.startswith(FLOATS):
            yield Site(
                node=node.name,
                operand=f"in{index}",
                value=value,
                role="weight" if value in flow.static else "activation",
                shape=kind.shape or (),
                # A row of a table is what a product would sum over: scales lie along it.
                contraction_axes=(1,) if index == 0 and _is_table(flow, node) else (),
            )


def _is_table(flow: Flow, node: Node) -> bool:
    """Whether a node looks rows of a table up."""
    return node.op_type == "Gather" and is_lookup(flow.graph, node, flow.static)


def _outputs(flow: Flow, node: Node) -> Iterator[Site]:
    for index, value in enumerate(node.outputs):
        kind = flow.graph.types.get(value)
        if value and kind is not None and kind.dtype.startswith(FLOATS):
            yield Site(
                node=node.name,
                operand=f"out{index}",
                value=value,
                role="output",
                shape=kind.shape or (),
                contraction_axes=(),
            )
