"""Formats that operands come in: codes with scales that the model's author chose.

Two writings: a product of floats that come from DequantizeLinear (Q/DQ, packed weights), and an
operator over integers (QLinearConv, MatMulInteger, ...), whose scales are its own inputs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from dse.graph.ir.attribute import integer, integers
from dse.graph.ir.graph import Node
from dse.graph.ir.operators import PARTS, TRANSPARENT
from dse.graph.patterns.contraction import Factor, factors, is_contracting, shape
from dse.graph.patterns.flow import Flow, is_lookup
from hwmodels.formats import catalog
from hwmodels.formats.quantizer import Quantizer

Key = tuple[str, int]
"""A node's name and the position of one of its inputs."""
FLOAT_ELEMENTS = {
    "float8_e4m3fn": "e4m3", "float8_e5m2": "e5m2", "float4_e2m1fn": "e2m1",
}  # fmt: skip
SCALES = {
    "float32": "fp32", "float16": "fp16", "bfloat16": "bf16", "float8_e4m3fn": "e4m3",
    "float8_e8m0fnu": "e8m0",
}  # fmt: skip
PARAMETERS: Mapping[str, Mapping[int, tuple[int | None, int]]] = {
    "QLinearConv": {0: (1, 2), 3: (4, 5)},
    "QLinearMatMul": {0: (1, 2), 3: (4, 5)},
    "ConvInteger": {0: (None, 2), 1: (None, 3)},
    "MatMulInteger": {0: (None, 2), 1: (None, 3)},
    "DynamicQuantizeLSTM": {1: (8, 9), 2: (10, 11)},
}
"""Inputs that hold the scale and the zero point of an operator's operands; None: it has no scale,
which a product behind it brings in."""
UNSIGNED = "uint"


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """The format that one operand of a product, or a table of rows, comes in."""

    quantizer: Quantizer
    inside: frozenset[str] = field(default_factory=frozenset)
    """Nodes that do nothing else than to state it: a pair of Q and DQ, or DQ alone."""
    is_stored: bool = False
    """Whether the codes come as such: from an operator over integers, or from the caller."""


def given_formats(flow: Flow, attended: frozenset[str]) -> dict[Key, Given]:
    """The formats that products and look-ups come in, by node and input.

    Args:
        flow: of the flat graph.
        attended: nodes of attentions, whose products no runtime fuses in integers; they have none.
    """
    found: dict[Key, Given] = {}
    for node in flow.nodes:
        if node.name not in attended:
            found |= {(node.name, at): given for at, given in _of_node(flow, node).items()}
    return found


def _of_node(flow: Flow, node: Node) -> dict[int, Given]:
    """The formats of a node's operands.

    A rounded input alone makes no product of integers: beside weights in floats, it is a float.
    """
    read = list(_operands(flow, node))
    integers_in = node.op_type in PARAMETERS or any(
        "int" in (_dtype(flow, node.inputs[factor.index]) or "") for factor in read
    )
    of = _of_operator if integers_in else _of_pair
    found = {factor.index: given for factor in read if (given := of(flow, node, factor))}
    if len(found) == len(read) or integers_in:
        return found
    return {at: given for at, given in found.items() if node.inputs[at] in flow.static}


def _operands(flow: Flow, node: Node) -> Iterator[Factor]:
    if is_contracting(node):
        yield from (factor for factor in factors(flow.graph, node) if factor.part != "bias")
    elif node.op_type == "Gather" and is_lookup(flow.graph, node, flow.static):
        yield Factor(index=0, part="second", axes=(1,))


def _of_operator(flow: Flow, node: Node, factor: Factor) -> Given | None:
    """The format of an operand that its operator takes as integers."""
    if node.op_type not in PARAMETERS:
        return None
    value = node.inputs[factor.index]
    parameters = PARAMETERS[node.op_type].get(factor.index)
    if parameters is None:  # the floats of DynamicQuantizeLSTM, rounded inside
        return Given(quantizer=catalog.quantizer("uint8"))
    scale, zero = (node.inputs[at] if at and at < len(node.inputs) else "" for at in parameters)
    dtype = _dtype(flow, value)
    if dtype is None:
        return None
    element = _element(flow, dtype, zero)
    if element is None:
        return None
    shared = max(_count(flow, scale), _count(flow, zero)) <= 1
    name = element if shared else f"{element}_channel"
    if value in flow.static:
        return Given(quantizer=catalog.quantizer(name), is_stored=True)
    return Given(quantizer=_timed(flow, name, scale or zero), is_stored=True)


def _of_pair(flow: Flow, node: Node, factor: Factor) -> Given | None:
    """The format of a float that comes from DequantizeLinear, moved about or not."""
    path = _path(flow, node.inputs[factor.index])
    if path is None:
        return None
    dequantize, moves = path
    codes, scale = dequantize.inputs[:2]
    zero = dequantize.inputs[2] if len(dequantize.inputs) > 2 else ""
    dtype, scaled = _dtype(flow, codes), _scale(flow, scale)
    element = _element(flow, dtype, zero) if dtype else None
    granularity = _granularity(flow, node, factor, dequantize, moves)
    if element is None or scaled is None or granularity is None:
        return None
    name = _name(element, granularity, scaled)
    if node.inputs[factor.index] in flow.static:
        return Given(quantizer=catalog.quantizer(name))
    quantize = _quantize(flow, codes)
    pair = {dequantize.name} if quantize is None else _chain(flow, quantize)
    return Given(
        quantizer=_timed(flow, name, scale),
        inside=frozenset(pair),
        is_stored=quantize is None,
    )


def _path(flow: Flow, value: str) -> tuple[Node, list[Node]] | None:
    """The DequantizeLinear behind a value, and what moves its elements since, in their order."""
    moves: list[Node] = []
    made = flow.graph.producer.get(value)
    while made is not None and made.op_type in TRANSPARENT:
        moves.insert(0, made)
        made = flow.graph.producer.get(made.inputs[0])
    return (made, moves) if made is not None and made.op_type == "DequantizeLinear" else None


def _quantize(flow: Flow, codes: str) -> Node | None:
    """The QuantizeLinear that makes codes which nothing but DequantizeLinear reads."""
    value = flow.back(codes, TRANSPARENT)
    made = flow.producer(value)
    if made is None or made.op_type != "QuantizeLinear":
        return None
    return made if _pair(flow, made) else None


def _chain(flow: Flow, quantize: Node) -> set[str]:
    """A pair, and those before it that only move the same numbers on."""
    found = _pair(flow, quantize)
    path = _path(flow, quantize.inputs[0])
    before = _quantize(flow, path[0].inputs[0]) if path is not None else None
    return found if before is None else found | _chain(flow, before)


def _pair(flow: Flow, quantize: Node) -> set[str]:
    """A QuantizeLinear and all that read it; empty where something else does."""
    found, queue = {quantize.name}, list(quantize.outputs)
    while queue:
        value = queue.pop()
        if value in flow.graph.outputs:
            return set()
        for reader in flow.graph.consumers.get(value, ()):
            if reader.op_type in TRANSPARENT:
                queue += reader.outputs
            elif reader.op_type == "DequantizeLinear":
                found.add(reader.name)
            else:
                return set()
    return found


def _granularity(
    flow: Flow, node: Node, factor: Factor, dequantize: Node, moves: list[Node]
) -> str | None:
    """`tensor`, `channel` or `g<elements>`; None for scales that no format here has."""
    scale = flow.back(dequantize.inputs[1], PARTS | TRANSPARENT | {"DequantizeLinear"})
    sizes = _sizes(flow, scale)
    if sizes is None:
        return None
    if math.prod(sizes) == 1:
        return "tensor"
    if node.inputs[factor.index] not in flow.static:
        return None  # scales of tokens or channels that are data: nobody writes them
    whole = shape(flow.graph, node, factor.index)
    if not all(isinstance(size, int) for size in whole):
        return None
    dims = [size for size in whole if isinstance(size, int)]
    depth = math.prod(dims[axis] for axis in factor.axes)
    rows = math.prod(dims) // depth
    axis = _axis(flow, dequantize, moves)
    if integer(dequantize, "block_size", 0):
        blocks = math.prod(sizes) // max(rows, 1)
        if axis not in (None, *factor.axes) or not blocks or math.prod(sizes) % rows:
            return None
        block = integer(dequantize, "block_size", 0)
        return f"g{block if block > 1 else -(-depth // blocks)}"
    if axis in factor.axes or math.prod(sizes) != rows:
        return None
    return "channel"


def _axis(flow: Flow, dequantize: Node, moves: list[Node]) -> int | None:
    """The axis of the scales, as the product sees it; None where a reshape leaves it open."""
    rank = len(flow.graph.shape(dequantize.inputs[0]) or ())
    axis = integer(dequantize, "axis", 1)
    axis += rank if axis < 0 else 0
    for move in moves:
        if move.op_type == "Transpose":
            order = integers(move, "perm") or tuple(reversed(range(rank)))
            axis = order.index(axis)
        elif move.op_type not in ("Cast", "CastLike", "Identity", "Dropout"):
            return None
    return axis


def _name(element: str, granularity: str, scaled: tuple[str, bool]) -> str:
    """The catalogue's name of a format where it has one, else one that spells it out."""
    scale, has_level = scaled
    level = "+fp32" if has_level else ""
    point = f"~{element}" if element.startswith(UNSIGNED) else ""
    spelled = f"{element}@{granularity}/{scale}{level}{point}"
    plain = element if granularity == "tensor" and "int" in element else f"{element}_{granularity}"
    known = ("nvfp4", "mxfp4", "mxfp8", plain)
    wanted = catalog.quantizer(spelled).format
    for name in known:
        found = catalog.FORMATS.get(name)
        if found is not None and _layout(catalog.quantizer(name)) == (
            wanted.element.name,
            wanted.granularity,
            wanted.group,
            scale,
            has_level,
            bool(point),
        ):
            return name
    return spelled


def _layout(quantizer: Quantizer) -> tuple[object, ...]:
    fmt = quantizer.format
    return (
        fmt.element.name,
        fmt.granularity,
        fmt.group,
        fmt.scale.encoding.name if fmt.scale else "",
        fmt.tensor_scale is not None,
        fmt.zero_point is not None,
    )


def _element(flow: Flow, dtype: str, zero: str) -> str | None:
    """The catalogue's element of codes.

    Integers around a zero point of their own are unsigned ones there, signed or not; around the
    middle of their range they are signed.
    """
    if dtype in FLOAT_ELEMENTS:
        return FLOAT_ELEMENTS[dtype]
    bits = dtype.removeprefix("u").removeprefix("int")
    if not dtype.lstrip("u").startswith("int") or not bits.isdigit():
        return None
    middle = 1 << int(bits) - 1 if dtype.startswith("u") else 0
    return f"int{bits}" if _is_all(flow, zero, middle) else f"{UNSIGNED}{bits}"


def _is_all(flow: Flow, value: str, number: int) -> bool:
    """Whether a zero point is this number everywhere; left out it is 0."""
    if not value:
        return number == 0
    constant = flow.graph.initializers.get(flow.back(value, TRANSPARENT))
    if constant is None or not constant.has_data:
        return False
    return bool(np.all(constant.numpy().astype(np.int64) == number))


def _scale(flow: Flow, value: str) -> tuple[str, bool] | None:
    """The encoding of scales, and whether a scale for all of them multiplies them."""
    root = flow.back(value, PARTS | TRANSPARENT)
    made = flow.graph.producer.get(root)
    if made is not None and made.op_type == "DequantizeLinear":
        inner = SCALES.get(_dtype(flow, made.inputs[0]) or "")
        return (inner, True) if inner else None
    found = SCALES.get(_dtype(flow, root) or "")
    return (found, False) if found else None


def _timed(flow: Flow, name: str, scale: str) -> Quantizer:
    """A quantizer of activations: static where its scale is known before the call."""
    return catalog.quantizer(f"{name}:static" if scale in flow.static else name)


def _dtype(flow: Flow, value: str) -> str | None:
    kind = flow.graph.types.get(value)
    return kind.dtype if kind is not None else None


def _count(flow: Flow, value: str) -> int:
    return math.prod(_sizes(flow, value) or ()) if value else 1


def _sizes(flow: Flow, value: str) -> tuple[int, ...] | None:
    found = flow.graph.shape(value)
    if found is None or not all(isinstance(size, int) for size in found):
        return None
    return tuple(size for size in found if isinstance(size, int))
