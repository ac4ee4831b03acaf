"""Single nodes as operations."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

from dse.graph.ir.attribute import integer
from dse.graph.ir.graph import Node
from dse.graph.ir.operators import (
    CONVOLUTIONS,
    COPIES,
    POOLS,
    QUANTIZING,
    REDUCTIONS,
    REPEATS,
    SOFTMAXES,
)
from dse.graph.lower.held import is_weight
from dse.graph.lower.loops import convolution_sizes, loops, sizes
from dse.graph.lower.maps import map_sizes, window_sizes
from dse.graph.lower.operand import Values
from dse.graph.patterns.contraction import Part, factors
from dse.graph.patterns.norm import Norm
from dse.graph.patterns.pointwise import Pointwise, as_written
from hwmodels.work.work import Op, Operand, OperandName, OpKind

SECOND = "/recurrent"
"""The end of the name of a recurrent layer's second product."""


def contraction_ops(values: Values, node: Node) -> Iterator[Op]:
    """The products of a contracting node: one, or two for a recurrent layer."""
    read = list(_factors(values, node))
    operands = [*read, *values.results(node)]
    if node.op_type in CONVOLUTIONS:
        size = convolution_sizes(values.flow.graph, node, values.types)
        yield Op(name=node.name, kind="conv2d", sizes=size, operands=tuple(operands))
        return
    for number, part in enumerate(loops(values.flow.graph, node, values.types)):
        # Rows of a product are those of its activation: W x is computed as (x' W')'.
        rows, columns = (part.n, part.m) if _is_left(values, node) else (part.m, part.n)
        size = {"M": rows, "K": part.k, "N": columns}
        size |= _stacked(values, node, read)
        batched = part.batch > 1 or values.flow.is_product(node)
        yield Op(
            name=f"{node.name}{SECOND}" if number else node.name,
            kind="bmm" if batched else "gemm",
            sizes={"B": part.batch, **size} if batched else size,
            operands=tuple(operands),
        )


def _factors(values: Values, node: Node) -> Iterator[Operand]:
    held: Part = "first" if _is_left(values, node) else "second"
    for factor in factors(values.flow.graph, node):
        name: OperandName = "input"
        if factor.part == "bias":
            name = "bias"
        elif factor.part == held:
            name = "weight"
        value = node.inputs[factor.index]
        has_matrix = name == "weight" and node.op_type not in CONVOLUTIONS
        whole = values.stack(value, factor.axes) if has_matrix else None
        operand = whole or values.operand(name, value, axes=factor.axes)
        yield values.in_format(operand, node, factor.index)


def _stacked(values: Values, node: Node, read: Iterable[Operand]) -> dict[str, int]:
    """E, the matrices of the stack out of which an index picks the weight; empty without one."""
    if node.op_type in CONVOLUTIONS:
        return {}
    tables = [table for value in node.inputs if (table := values.flow.table(value)) is not None]
    stacks = {values.root(table.inputs[0]) for table in tables}
    return dict([("E", operand.shape[0]) for operand in read if operand.value in stacks][:1])


def _is_left(values: Values, node: Node) -> bool:
    """Whether a product's left factor is its weight, and its right one the data."""
    weight = values.flow.weight_index(node)
    found = factors(values.flow.graph, node)
    return any(factor.part == "first" and factor.index == weight for factor in found)


def norm_op(values: Values, norm: Norm) -> Op:
    """A norm of rows."""
    shape = sizes(values.types, norm.input)
    cols = _normalised(values, norm, shape)
    gain = [values.operand("weight" if i == 0 else "bias", v) for i, v in enumerate(norm.gain)]
    return Op(
        name=norm.nodes[-1],
        kind="rmsnorm" if norm.kind == "rmsnorm" else "layernorm",
        sizes={"rows": math.prod(shape) // max(cols, 1), "cols": cols},
        operands=(
            values.operand("input", norm.input),
            *gain,
            *values.outputs(norm.output),
        ),
    )


def _normalised(values: Values, norm: Norm, shape: tuple[int, ...]) -> int:
    """The number of elements that share one mean."""
    node = values.flow.graph.by_name[norm.nodes[-1]]
    match node.op_type:
        case "GroupNormalization" | "GroupNorm":
            groups = integer(node, "num_groups", integer(node, "groups", 1))
            return math.prod(shape[1:]) // groups
        case "InstanceNormalization":
            return math.prod(shape[2:])
        case "LayerNormalization" | "RMSNormalization" if norm.nodes == (node.name,):
            return math.prod(shape[integer(node, "axis", -1) % len(shape) :])
        case _:
            return shape[-1]


def lookup_op(values: Values, node: Node) -> Op:
    """An embedding: reads only the rows of its tokens."""
    vocabulary, depth = sizes(values.types, node.inputs[0])
    return Op(
        name=node.name,
        kind="embedding",
        sizes={
            "vocab": vocabulary,
            "dim": depth,
            "tokens": math.prod(sizes(values.types, node.inputs[1])),
        },
        operands=(
            values.operand("input", node.inputs[1]),
            values.in_format(values.operand("weight", node.inputs[0], axes=(1,)), node, 0),
            *values.outputs(node.outputs[0]),
        ),
    )


def pointwise_op(values: Values, group: Pointwise) -> Op:
    """An elementwise operation."""
    first, *rest = group.inputs
    written = as_written(values.flow, group)
    return Op(
        name=group.nodes[-1].name,
        kind="elementwise",
        sizes=_rows(sizes(values.types, group.output)),
        operands=(
            values.operand("input", first),
            *(values.operand("other", value) for value in rest),
            *values.outputs(group.output),
        ),
        detail=group.detail,
        decomposition=tuple(pointwise_op(values, single) for single in written),
    )


KINDS: tuple[tuple[frozenset[str], OpKind], ...] = (
    (SOFTMAXES, "softmax"),
    (REDUCTIONS, "reduce"),
    (POOLS, "pool"),
    (COPIES, "copy"),
    (REPEATS, "copy"),
    (QUANTIZING, "quantize"),
)


def other_op(values: Values, node: Node) -> Op:
    """A node that neither contracts nor works element by element."""
    kind: OpKind = next((kind for names, kind in KINDS if node.op_type in names), "other")
    if node.op_type in ("BatchNormalization", "Transpose"):
        kind = "elementwise" if node.op_type == "BatchNormalization" else "copy"
    shape = sizes(values.types, values.result(node))
    if kind in ("reduce", "pool"):
        before = sizes(values.types, values.flow.signal_inputs(node)[0])
        rows = math.prod(shape)
        size = {"rows": rows, "cols": math.prod(before) // max(rows, 1)}
        size |= window_sizes(node, before, shape)
    else:
        size = _rows(shape)
    constants = _constants(values, node) if kind != "other" else ()
    signal = [part for v in values.flow.signal_inputs(node) for part in values.members(v)]
    reads = (*signal, *constants)
    return Op(
        name=node.name,
        kind=kind,
        sizes=size,
        operands=(
            *(values.operand("other" if i else "input", v) for i, v in enumerate(reads)),
            *values.results(node),
        ),
        detail=node.op_type.lower(),
    )


def _constants(values: Values, node: Node) -> tuple[str, ...]:
    """Constants that a node's kernel reads in full: scales of a batch norm, a class token."""
    if node.op_type.startswith("Gather"):  # only rows of it are read
        return ()
    return tuple(
        value
        for value in dict.fromkeys(node.inputs)
        if value in values.flow.static
        and is_weight(values.types[values.root(value)], beside=False)
    )


def _rows(shape: tuple[int, ...]) -> dict[str, int]:
    cols = shape[-1] if shape else 1
    return {"rows": math.prod(shape) // max(cols, 1), "cols": cols} | map_sizes(shape)
