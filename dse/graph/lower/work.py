"""A graph at bound sizes as `hwmodels` work."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import replace
from typing import cast

from dse.errors import GraphError, some
from dse.graph.ir.graph import Node
from dse.graph.ir.operators import ELEMENTWISE, PARTS, TRANSPARENT
from dse.graph.ir.site import Region
from dse.graph.lower.attention import appended, attention_op, is_cached
from dse.graph.lower.course import Course, stored_ops
from dse.graph.lower.experts import expert_ops, routed_types
from dse.graph.lower.held import unpriced_weights
from dse.graph.lower.latent import in_cheaper_form
from dse.graph.lower.node import (
    SECOND,
    contraction_ops,
    lookup_op,
    norm_op,
    other_op,
    pointwise_op,
)
from dse.graph.lower.operand import Values
from dse.graph.lower.written import written_attention
from dse.graph.onnx.shapes import bind_sizes
from dse.graph.patterns.analysis import Analysis
from dse.graph.patterns.attention import Attention
from dse.graph.patterns.contraction import is_contracting
from dse.graph.patterns.flow import is_lookup
from dse.graph.patterns.pointwise import pointwise
from dse.graph.patterns.regions import SHAPE_REGION
from hwmodels.work.memory import is_activation
from hwmodels.work.work import CONTRACTING, Op, Operand, OpKind, RegionWork, Work

SHOWN = 8
"""Nodes that a remark names."""


def lower(analysis: Analysis, dims: Mapping[str, int], *, float_bits: int = 16) -> Work:
    """One `RegionWork` a region, in the order of the graph's, the `shape` region left out.

    Floats of 16 bits and more count `float_bits`; constants count as they are stored (an int8
    weight behind DequantizeLinear 8 bits). An embedding's table is an operand in full; that a
    look-up reads only the rows of its tokens is in its sizes. A key-value cache is one operand
    with all positions; its growth is not a second one.

    Raises:
        GraphError: Sizes that are not bound, or shapes that do not fit.
    """
    graph = analysis.graph
    bound = bind_sizes(graph, dims)
    course = Course.of(analysis.flat, analysis.flow, bound)
    values = _values(analysis, course, float_bits)
    by_region, latent = in_cheaper_form(_operations(values, analysis, course))
    caches = _caches(values, analysis.attentions)
    outputs = tuple(dict.fromkeys(values.root(v) for v in graph.outputs))
    kept = {*outputs, *_appended(values, analysis.attentions)}
    works = _bordered(analysis.regions, by_region, kept, course)
    return Work(
        name=graph.path.stem if graph.path else graph.name,
        regions=works,
        outputs=tuple(value for value in outputs if value not in caches),
        notes=(
            *bound.notes,
            *((latent,) if latent else ()),
            *_quantized(analysis),
            *unpriced_weights(values, (op for ops in by_region.values() for op in ops)),
        ),
    )


def _values(analysis: Analysis, course: Course, float_bits: int) -> Values:
    return Values(
        flow=course.flow,
        types=routed_types(course.flow, analysis.experts, course.types),
        owner={node: region.name for region in analysis.regions for node in region.nodes},
        float_bits=float_bits,
        given=analysis.given,
    )


def chain_of(analysis: Analysis, work: Work, dims: Mapping[str, int]) -> dict[str, str]:
    """The input that each output feeds where copies of the graph follow each other.

    Outputs feed, in the file's order, the first input of their shape and type that the graph
    computes with and that no other feeds. Keys and values of a cache are a copy's own. Names are
    those of `work`, which is `lower(analysis, dims)`, or a share of it.

    Raises:
        GraphError: No output is like any input.
    """
    graph = analysis.graph
    bound = bind_sizes(graph, dims)
    types, values = (
        bound.types,
        _values(analysis, Course.of(analysis.flat, analysis.flow, bound), 16),
    )
    read = {o.value for region in work.regions for o in region.reads if is_activation(o)}
    feeds: dict[str, str] = {}
    for output in graph.outputs:
        root = values.root(output)
        free = (one for one in graph.inputs if one in read and one not in (*feeds.values(), root))
        fits = next((one for one in free if types[one] == types[output]), None)
        if fits is not None and root in work.outputs:
            feeds.setdefault(root, fits)
    if not feeds:
        said = "; ".join(
            some([f"{one} {types[one].dtype} {list(types[one].shape or ())}" for one in named], 8)
            for named in (graph.inputs, graph.outputs)
        )
        raise GraphError(
            f"{graph.path or graph.name}: --repeat: expected a block with an output that the next "
            f"copy reads, but no output has the shape and type of an input: {said}"
        )
    return feeds


def _quantized(analysis: Analysis) -> Iterator[str]:
    """Says which products were quantized before, and in which formats."""
    if analysis.quantized:
        yield f"quantized already, priced as it is: {some(analysis.quantized, SHOWN)}"
    packed = dict.fromkeys(name for name, _ in analysis.given)
    for name in (*analysis.quantized, *analysis.dequantized):
        packed.pop(name, None)
    for formats, names in _by_format(analysis, analysis.dequantized):
        yield (
            f"quantized before (Q/DQ), priced in the formats that it comes with ({formats}), "
            f"which searches and --format leave as they are: {some(names, SHOWN)}"
        )
    for formats, names in _by_format(analysis, tuple(packed)):
        yield (
            f"weights come quantized ({formats}), priced so where no format is chosen for them: "
            f"{some(names, SHOWN)}"
        )
    if analysis.rounded:
        yield (
            "reads what was quantized before (Q/DQ), but multiplies no integers (weights in "
            "floats, scales of another layout, or inside of an attention); priced in the formats "
            "given here, with QuantizeLinear and DequantizeLinear as kernels of their own: "
            f"{some(analysis.rounded, SHOWN)}"
        )


def _by_format(analysis: Analysis, names: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(_formats(analysis, name), []).append(name)
    yield from found.items()


def _formats(analysis: Analysis, name: str) -> str:
    """The formats that a node's operands come in, as words."""
    node = analysis.flow.graph.by_name[name]
    return ", ".join(
        f"{'weight' if node.inputs[index] in analysis.flow.static else 'input'} "
        f"{given.quantizer.name}"
        for (owner, index), given in analysis.given.items()
        if owner == name
    )


def _operations(values: Values, analysis: Analysis, course: Course) -> dict[str, list[Op]]:
    """The operations of every region that is executed or stores something, by its name."""
    priced = [region for region in analysis.regions if region.name != SHAPE_REGION]
    regions = [region for region in priced if course.takes(region)]
    patterns, inside = _patterns(values, analysis, course)
    for region in regions:
        if region.kind == "grouped_gemm":
            grouped, covered = expert_ops(values, region.nodes, analysis.experts)
            patterns |= {op.name: op for op in grouped}
            inside |= covered
    found: dict[str, list[Op]] = {}
    for region in regions:
        if region.role == "rotary":
            found[region.name] = [_rotary(values, region)]
            continue
        nodes = [values.flow.graph.by_name[name] for name in region.nodes]
        free = [node for node in nodes if node.name not in inside]
        ops = [patterns[node.name] for node in nodes if node.name in patterns]
        ops += _free_operations(values, free, starts=not ops)
        found[region.name] = sorted(ops, key=lambda op: _place(values, op))
    beside = [region for region in priced if not course.takes(region)]
    found |= {region.name: stored_ops(values, region) for region in beside}
    seams = {region.name for region in priced if course.is_seam(region)}
    seams |= {region.name for region in priced if values.pairs.issuperset(region.nodes)}
    # Every phase of a scenario has the same regions, whichever branch it takes.
    return {name: ops for name, ops in found.items() if name not in seams}


def _patterns(
    values: Values, analysis: Analysis, course: Course
) -> tuple[dict[str, Op], set[str]]:
    """Operations of attentions and norms that are executed, and all nodes inside of them."""
    patterns: dict[str, Op] = {}
    inside: set[str] = set()
    for attention in analysis.attentions:
        if course.runs(attention.mix.name):
            patterns[attention.mix.name] = replace(
                attention_op(values, attention),
                decomposition=written_attention(values, attention),
            )
            inside |= attention.nodes
    for norm in analysis.norms:
        if course.runs(norm.nodes[-1]) and not inside & set(norm.nodes):
            patterns[norm.nodes[-1]] = norm_op(values, norm)
            inside |= set(norm.nodes)
    return patterns, inside


def _place(values: Values, op: Op) -> tuple[bool, int]:
    """Products first, so that those which share their input are neighbours; then graph order."""
    position = values.flow.position.get(op.name)
    if position is None:  # the second product of a recurrent layer
        position = values.flow.position[op.name.removesuffix(SECOND)]
    return op.kind not in CONTRACTING, position


def _free_operations(values: Values, nodes: Sequence[Node], *, starts: bool) -> Iterator[Op]:
    """Operations of nodes outside of attention and norms.

    Copies and parts are no work where they follow a kernel; `starts` says that none is before.
    """
    for group in pointwise(values.flow, nodes):
        yield pointwise_op(values, group)
    alone = starts and all(node.op_type in TRANSPARENT | PARTS for node in nodes)
    for node in nodes:
        if is_contracting(node):
            yield from contraction_ops(values, node)
        elif is_lookup(values.flow.graph, node, values.flow.static):
            yield lookup_op(values, node)
        elif node.name in values.pairs or values.is_sequence(node):
            continue
        elif node.op_type in TRANSPARENT | PARTS:
            if alone and node.op_type == "Transpose":
                yield other_op(values, node)
        elif node.op_type not in ELEMENTWISE:
            yield other_op(values, node)


def _rotary(values: Values, region: Region) -> Op:
    """A rotation of queries and keys is one operation: each read and written once."""
    inside = set(region.nodes)
    nodes = [values.flow.graph.by_name[name] for name in region.nodes]
    reads = [
        value
        for node in nodes
        for value in values.flow.signal_inputs(node)
        if (source := values.flow.producer(value)) is None or source.name not in inside
    ]
    writes = [
        value
        for node in nodes
        for value in node.outputs
        if value in values.flow.graph.outputs
        or any(reader.name not in inside for reader in values.flow.consumers(value))
    ]
    inputs = {values.root(v): values.operand("input", v) for v in reads}
    outputs = {values.root(v): values.operand("output", v) for v in writes}
    cols = max((operand.shape[-1] for operand in outputs.values()), default=1)
    total = sum(operand.elements for operand in outputs.values())
    return Op(
        name=region.name,
        kind="elementwise",
        sizes={"rows": total // max(cols, 1), "cols": cols},
        operands=(*inputs.values(), *outputs.values()),
        detail="rope",
    )


def _caches(values: Values, attentions: Sequence[Attention]) -> set[str]:
    """Outputs that are caches: they persist between calls, so they are not results."""
    found: set[str] = set()
    for attention in attentions:
        for operand in (attention.k, attention.v):
            if is_cached(values, attention, operand.value):
                found.add(values.root(operand.value))
        found |= {values.root(value) for value in attention.mix.outputs[1:] if value}
    return found


def _appended(values: Values, attentions: Sequence[Attention]) -> set[str]:
    """Keys and values that grow a cache: written although only the cache is read."""
    return {value for attention in attentions for value in appended(values, attention)}


def _bordered(
    regions: Sequence[Region],
    by_region: Mapping[str, Sequence[Op]],
    kept: Set[str],
    course: Course,
) -> tuple[RegionWork, ...]:
    """Region work with what crosses each border; `kept` values are written in any case."""
    read_in: dict[str, set[str]] = {}
    for name, ops in by_region.items():
        for op in ops:
            for operand in op.operands:
                if operand.name != "output":
                    read_in.setdefault(operand.value, set()).add(name)
    return tuple(
        RegionWork(
            name=region.name,
            kind=cast(OpKind, region.kind),
            role=region.role,
            ops=tuple(by_region[region.name]),
            reads=_reads(by_region[region.name]),
            writes=tuple(
                operand
                for operand in _written(by_region[region.name])
                if operand.value in kept or read_in.get(operand.value, set()) - {region.name}
            ),
            repeats=course.repeats(region),
        )
        for region in regions
        if region.name in by_region
    )


def _reads(ops: Sequence[Op]) -> tuple[Operand, ...]:
    made = {operand.value for operand in _written(ops)}
    found: dict[str, Operand] = {}
    for op in ops:
        for operand in op.operands:
            if operand.name == "output" or operand.value in made or not operand.value:
                continue
            if op.kind == "embedding" and operand.is_weight:
                rows = replace(operand, shape=(op.sizes["tokens"], op.sizes["dim"]))
                found.setdefault(operand.value, rows)
            found.setdefault(operand.value, operand)
    return tuple(found.values())


def _written(ops: Sequence[Op]) -> list[Operand]:
    return [operand for op in ops for operand in op.operands if operand.name == "output"]
