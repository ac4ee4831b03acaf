"""Types of the results of ONNX Runtime's own operators, for which onnx has no inference.

Source: ONNX Runtime 1.31, docs/ContribOperators.md, com.microsoft.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import zip_longest

from dse.graph.ir.attribute import integer, text
from dse.graph.ir.graph import Dim, Node, TensorType
from dse.graph.ir.known import UNKNOWN, Known
from dse.graph.onnx.convert import MICROSOFT

SKIP_SUM = 3
"""Index of the output of a skip norm that is the sum of its inputs."""

Types = Sequence[TensorType | None]
"""Of all inputs; None: nothing is known."""
Rule = Callable[[Node, Types], Sequence[TensorType | None]]


def contrib_outputs(node: Node, inputs: Sequence[Known]) -> tuple[Known, ...] | None:
    """The types of a node's results; None for an operator that is not listed here."""
    rule = RULES.get(node.op_type) if node.domain == MICROSOFT else None
    if rule is None:
        return None
    kinds = [known.type if isinstance(known.type, TensorType) else None for known in inputs]
    if not kinds or kinds[0] is None or kinds[0].shape is None:
        return (UNKNOWN,) * len(node.outputs)
    found = [Known(type=kind) for kind in rule(node, kinds)]
    return (*found, *(UNKNOWN for _ in node.outputs))[: len(node.outputs)]


def _same(node: Node, kinds: Types) -> Types:
    return (kinds[0],)


def _skip_norm(node: Node, kinds: Types) -> Types:
    """The norm and the sum before it; mean and deviation have one entry a row."""
    first = kinds[0]
    assert first is not None
    assert first.shape
    rows = TensorType(dtype="float32", shape=(*first.shape[:-1], 1))
    return (first, rows, rows, first)[: SKIP_SUM + 1]


def _of_scale(node: Node, kinds: Types) -> Types:
    """Numbers behind codes have the type of their scale."""
    return (_typed(kinds[0], kinds[1] if len(kinds) > 1 else None, "float32"),)


def _of_zero_point(node: Node, kinds: Types) -> Types:
    return (_typed(kinds[0], kinds[2] if len(kinds) > 2 else None, "uint8"),)


def _typed(kind: TensorType | None, other: TensorType | None, usual: str) -> TensorType | None:
    return kind and replace(kind, dtype=other.dtype if other else usual)


def _product(node: Node, kinds: Types) -> Types:
    """A product whose operands may be transposed in their last two axes."""
    a, b = _turned(kinds[0], node, "transA"), _turned(kinds[1], node, "transB")
    if a is None or b is None or len(a) < 2 or len(b) < 2:
        return (None,)
    first = kinds[0]
    assert first is not None
    pairs = zip_longest(reversed(a[:-2]), reversed(b[:-2]), fillvalue=1)
    batch = tuple(_broadcast(left, right) for left, right in pairs)[::-1]
    return (replace(first, shape=(*batch, a[-2], b[-1])),)


def _turned(kind: TensorType | None, node: Node, name: str) -> tuple[Dim, ...] | None:
    if kind is None or kind.shape is None or not integer(node, name, 0):
        return None if kind is None else kind.shape
    return (*kind.shape[:-2], *kind.shape[:-3:-1])


def _broadcast(left: Dim, right: Dim) -> Dim:
    if right in (left, 1):
        return left
    return right if left == 1 else None


def _attention(node: Node, kinds: Types) -> Types:
    """Of separate queries, keys and values (batch, positions, channels), without a cache."""
    query, value = kinds[0], kinds[2] if len(kinds) > 2 else None
    assert query is not None
    if value is None or value.shape is None or len(query.shape or ()) != 3:
        return (None,)
    if len(value.shape) == 3:
        return (replace(query, shape=(*(query.shape or ())[:2], value.shape[2])),)
    heads, width = value.shape[1], value.shape[3]  # (batch, heads, positions, channels)
    if isinstance(heads, int) and isinstance(width, int):
        return (replace(query, shape=(*(query.shape or ())[:2], heads * width)),)
    return (None,)


def _grouped_attention(node: Node, kinds: Types) -> Types:
    """As many channels as queries have; packed ones have keys and values behind them."""
    query = kinds[0]
    assert query is not None
    assert query.shape is not None
    if len(node.inputs) > 1 and node.inputs[1]:
        return (query,)
    heads, groups = integer(node, "num_heads", 1), integer(node, "kv_num_heads", 1)
    width = query.shape[-1]
    own = width * heads // (heads + 2 * groups) if isinstance(width, int) else None
    return (replace(query, shape=(*query.shape[:-1], own)),)


def _recurrent(node: Node, kinds: Types) -> Types:
    """All hidden states, the last hidden and the last cell state."""
    first = kinds[0]
    assert first is not None
    assert first.shape is not None
    steps, batch = first.shape[:2]
    directions = 2 if text(node, "direction", "forward") == "bidirectional" else 1
    hidden = integer(node, "hidden_size", 0) or None
    last = replace(first, shape=(directions, batch, hidden))
    return (replace(first, shape=(steps, directions, batch, hidden)), last, last)


RULES: Mapping[str, Rule] = {
    "BiasGelu": _same, "FastGelu": _same, "Gelu": _same, "QuickGelu": _same,
    "RotaryEmbedding": _same, "SimplifiedLayerNormalization": _same,
    "SkipLayerNormalization": _skip_norm, "SkipSimplifiedLayerNormalization": _skip_norm,
    "DequantizeLinear": _of_scale, "QuantizeLinear": _of_zero_point,
    "FusedMatMul": _product, "MultiHeadAttention": _attention,
    "GroupQueryAttention": _grouped_attention, "DynamicQuantizeLSTM": _recurrent,
}  # fmt: skip
