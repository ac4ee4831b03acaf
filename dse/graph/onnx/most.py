"""The most elements that operators can find whose number of results depends on data."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from dse.graph.ir.attribute import integer
from dse.graph.ir.graph import Node, TensorType
from dse.graph.ir.known import UNKNOWN, Known


def most_sizes(node: Node, known: Mapping[str, Known], rank: int) -> Sequence[int | None]:
    """The largest that each size of a node's results can be; None where nothing bounds it."""
    nothing: list[int | None] = [None] * rank
    shape = _shape(known, node.inputs[0]) if node.inputs else None
    if shape is None:
        return nothing
    total = math.prod(shape)
    match node.op_type:
        case "NonZero":
            return [len(shape), total][:rank]
        case "NonMaxSuppression":
            return [_boxes(node, known), 3][:rank]
        case "Compress" | "Unique":
            if "axis" in node.attributes and len(shape) == rank:
                axis = integer(node, "axis", 0) % rank
                return [shape[axis] if at == axis else size for at, size in enumerate(shape)]
            return [total] * rank
        case "TopK" | "Slice" if len(shape) == rank:
            return list(shape)
    return nothing


def _boxes(node: Node, known: Mapping[str, Known]) -> int | None:
    """Boxes that are kept at most: of every class in every image, no more than there are.

    Source: ONNX, operator NonMaxSuppression.
    """
    boxes, scores = _shape(known, node.inputs[0]), _shape(known, node.inputs[1])
    if boxes is None or scores is None:
        return None
    limit: np.ndarray | None = np.array(0)
    if len(node.inputs) > 2 and node.inputs[2]:
        limit = known.get(node.inputs[2], UNKNOWN).data
    each = boxes[1] if limit is None else min(int(limit.reshape(-1)[0]), boxes[1])
    return scores[0] * scores[1] * each


def _shape(known: Mapping[str, Known], value: str) -> list[int] | None:
    kind = known.get(value, UNKNOWN).type
    if not isinstance(kind, TensorType) or kind.shape is None:
        return None
    sizes = [size for size in kind.shape if isinstance(size, int)]
    return sizes if len(sizes) == len(kind.shape) else None
