"""Sequences of tensors of different sizes, which onnx's inference merges into one open type."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dse.graph.ir.attribute import integer
from dse.graph.ir.graph import Node, TensorType
from dse.graph.ir.known import Known, Sizes, is_concrete


def sequence_output(node: Node, inputs: Sequence[Known]) -> Known | None:
    """The output of a sequence operator where all sizes are known, else None."""
    match node.op_type:
        case "SequenceConstruct":
            parts = tuple(known.type for known in inputs if isinstance(known.type, TensorType))
            return Known(type=parts) if len(parts) == len(inputs) else None
        case "SplitToSequence":
            return _split(node, inputs)
        case "SequenceAt":
            kinds, index = inputs[0].type, inputs[1].data
            if isinstance(kinds, tuple) and index is not None:
                return Known(type=kinds[int(index)])
        case "ConcatFromSequence":
            if isinstance(inputs[0].type, tuple):
                return _concatenated(node, inputs[0].type)
    return None


def _split(node: Node, inputs: Sequence[Known]) -> Known | None:
    kind = inputs[0].type
    if not isinstance(kind, TensorType) or kind.shape is None or not is_concrete(kind):
        return None
    axis = integer(node, "axis", 0) % len(kind.shape)
    before, total, after = kind.shape[:axis], kind.shape[axis], kind.shape[axis + 1 :]
    if not isinstance(total, int):
        return None
    if len(inputs) == 1:
        part = (1,) if integer(node, "keepdims", 1) else ()
        return Known(type=(TensorType(dtype=kind.dtype, shape=before + part + after),) * total)
    if inputs[1].data is None:
        return None
    parts = _parts(total, inputs[1].data)
    shapes = [(*before, part, *after) for part in parts]
    return Known(type=tuple(TensorType(dtype=kind.dtype, shape=shape) for shape in shapes))


def _parts(total: int, lengths: np.ndarray) -> list[int]:
    """The sizes of the parts; a single length is repeated, the last part may be shorter."""
    if lengths.ndim:
        return [int(length) for length in lengths]
    length = int(lengths)
    return [min(length, total - start) for start in range(0, total, length)]


def _concatenated(node: Node, kinds: Sizes) -> Known | None:
    shapes = [kind.shape for kind in kinds if kind.shape is not None]
    if not shapes or len(shapes) < len(kinds):
        return None
    first = list(shapes[0])
    if integer(node, "new_axis", 0):
        axis = integer(node, "axis", 0) % (len(first) + 1)
        first.insert(axis, len(shapes))
    else:
        axis = integer(node, "axis", 0) % len(first)
        sizes = [shape[axis] for shape in shapes]
        first[axis] = sum(size for size in sizes if isinstance(size, int))
    return Known(type=TensorType(dtype=kinds[0].dtype, shape=tuple(first)))
