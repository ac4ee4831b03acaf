"""Networks with attention: every tool rounds what their products read, and nothing else."""

from __future__ import annotations

import onnx

PRODUCTS = ["Gemm", "MatMul", "Conv", "ConvTranspose"]


def attends(graph: onnx.GraphProto) -> bool:
    """Whether a network has attention, whose probabilities a softmax makes."""
    return any(node.op_type == "Softmax" for node in graph.node)


def read_by_products(graph: onnx.GraphProto) -> set[str]:
    """Names of the tensors that products read, weights among them."""
    return {name for node in graph.node if node.op_type in PRODUCTS for name in node.input}
