"""Attention as the model's author wrote it out: the kernels of a runtime that fuses nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from dse.graph.ir.graph import Node
from dse.graph.ir.operators import ELEMENTWISE, REPEATS, SOFTMAXES
from dse.graph.lower.node import contraction_ops, other_op, pointwise_op
from dse.graph.lower.operand import Values
from dse.graph.patterns.attention import Attention, is_scaling
from dse.graph.patterns.contraction import is_contracting
from dse.graph.patterns.flow import Flow
from dse.graph.patterns.pointwise import pointwise
from hwmodels.work.work import Op


def written_attention(values: Values, attention: Attention) -> tuple[Op, ...]:
    """The products, the softmax and what stands between them, one op a node.

    Empty for one operator, and for what torch's exporter makes of
    `scaled_dot_product_attention`: it scales queries and keys both, by the root of the scale.

    Source: onnxscript, `function_libs/torch_lib/ops/nn.py`,
    `_aten_scaled_dot_product_attention_no_mask_onnx`.
    """
    if attention.probabilities is None or _is_exported_call(values.flow, attention):
        return ()
    nodes = [node for node in values.flow.nodes if node.name in attention.nodes]
    return tuple(op for node in nodes for op in _ops(values, node))


def _is_exported_call(flow: Flow, attention: Attention) -> bool:
    scaled = [flow.producer(operand.value) for operand in (attention.q, attention.k)]
    return all(
        node is not None and node.op_type in ("Mul", "Div") and is_scaling(flow, node)
        for node in scaled
    )


def _ops(values: Values, node: Node) -> Iterator[Op]:
    if is_contracting(node):
        yield from contraction_ops(values, node)
    elif node.op_type in ELEMENTWISE:
        for group in pointwise(values.flow, [node]):
            op = pointwise_op(values, group)
            # A mask is no bias of the product before it: no epilogue takes it in.
            yield replace(op, detail="add") if op.detail == "bias" else op
    elif node.op_type in SOFTMAXES | REPEATS:
        yield other_op(values, node)
    elif node.op_type == "Transpose":
        # A product of four axes copies operands whose heads are not in front.
        yield _copied(other_op(values, node), node)


def _copied(op: Op, node: Node) -> Op:
    """A transpose that is carried out: its result is a value of its own."""
    return replace(
        op,
        operands=tuple(
            replace(operand, value=node.outputs[0]) if operand.name == "output" else operand
            for operand in op.operands
        ),
    )
