"""ONNX Runtime's `Attention`, which holds the projections' weights, as a product and an attention.

com.microsoft.Attention multiplies its input by packed weights of queries, keys and values. Written
as MatMul, Split and MultiHeadAttention, which is what it means, the weights are sites like any
others. In place, before types are inferred.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import onnx

from dse.errors import GraphError
from dse.graph.onnx.convert import MICROSOFT, domain_name

DEAD = frozenset({"past_present_share_buffer", "rotary_embedding_dim"})
"""Attributes that say nothing without a cache or a rotation inside."""


def unpack_attentions(
    graph: onnx.GraphProto, tensors: Sequence[onnx.TensorProto], *, where: str
) -> None:
    """Replaces the packed attentions of a graph whose nodes are named.

    Raises:
        GraphError: One that has a cache, a rotation inside or weights that are not constant (all
            of them at once): neither its shapes nor its values would be right.
    """
    weights = {tensor.name: tensor for tensor in tensors}
    packed = [
        node
        for node in graph.node
        if domain_name(node.domain) == MICROSOFT and node.op_type == "Attention"
    ]
    faults = [f"{node.name} ({fault})" for node in packed for fault in _faults(node, weights)]
    if faults:
        message = f"{where}: not supported: {MICROSOFT}.Attention with {', '.join(faults)}"
        raise GraphError(f"{message}; export with MultiHeadAttention or without this fusion")
    if not packed:
        return
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        if node not in packed:
            nodes.append(node)
            continue
        weight = weights[node.input[1]]
        hidden = _hidden(node, weight)
        nodes += _unpacked(node, hidden)
        # Inference knows no operator of this domain.
        sizes = [None, None, hidden[2]]
        graph.value_info.append(
            onnx.helper.make_tensor_value_info(node.output[0], weight.data_type, sizes)
        )
    del graph.node[:]
    graph.node.extend(nodes)


def _faults(node: onnx.NodeProto, weights: Collection[str]) -> list[str]:
    found = []
    if len(node.input) < 2 or node.input[1] not in weights:
        found.append("weights that are no constant")
    if (len(node.input) > 4 and node.input[4]) or any(node.output[1:]):
        found.append("a packed key-value cache")
    if any(attribute.name == "do_rotary" and attribute.i for attribute in node.attribute):
        found.append("a rotation inside")
    return found


def _hidden(node: onnx.NodeProto, weight: onnx.TensorProto) -> list[int]:
    """Channels of queries, keys and values."""
    given = next((list(a.ints) for a in node.attribute if a.name == "qkv_hidden_sizes"), [])
    return given or [weight.dims[1] // 3] * 3


def _unpacked(node: onnx.NodeProto, hidden: list[int]) -> tuple[onnx.NodeProto, ...]:
    """The product with the packed weights, its parts, and the attention over them."""
    inputs = [*node.input, *[""] * (7 - len(node.input))]
    product, sizes = f"{node.name}/qkv", f"{node.name}/sizes"
    parts = [f"{node.name}/{letter}" for letter in "qkv"]
    attention = onnx.helper.make_node(
        "MultiHeadAttention",
        [*parts, inputs[2], inputs[3], inputs[5]],
        node.output[:1],
        name=node.name,
        domain=MICROSOFT,
    )
    attention.attribute.extend(
        a for a in node.attribute if a.name not in DEAD | {"do_rotary", "qkv_hidden_sizes"}
    )
    constant = onnx.numpy_helper.from_array(np.array(hidden, np.int64))
    return (
        onnx.helper.make_node("MatMul", inputs[:2], [product], name=product),
        onnx.helper.make_node("Constant", [], [sizes], name=sizes, value=constant),
        onnx.helper.make_node("Split", [product, sizes], parts, name=f"{node.name}/split", axis=2),
        attention,
    )
