"""Concrete shapes of every value once the symbolic sizes are bound."""

from __future__ import annotations

from collections.abc import Mapping

from dse.graph.ir.graph import Graph, TensorType
from dse.graph.ir.known import Known
from dse.graph.onnx.bound import Bound, Walk
from dse.graph.onnx.dimension import bound, check, dimensions, named_shape
from dse.graph.onnx.infer import Inference


def bound_types(graph: Graph, dims: Mapping[str, int]) -> Mapping[str, TensorType]:
    """The type of every tensor value with all sizes as numbers; see `bind_sizes`."""
    return bind_sizes(graph, dims).types


def bind_sizes(graph: Graph, dims: Mapping[str, int]) -> Bound:
    """The type of every tensor value with all sizes as numbers, and what was decided for them.

    Sequences of tensors have no entry, nor has what stands in a branch that is not taken. Works
    on graphs without weights as long as constants that are shapes have their data, which
    exporters keep in the model file.

    Args:
        graph: the model.
        dims: sizes by name. Besides those of the inputs they may say: 1 or 0 for the branch that
            an If (by its name, or that of the input that is its condition) takes; how often a
            Loop runs, by its name; sizes that only a run would tell, by the name that the file
            declares or as `<value>.<axis>`.

    Raises:
        GraphError: Sizes that are not bound or that the graph does not have, sizes that do not
            fit an operator, a shape or a number of iterations that depends on data in a way that
            leaves no bound. The rows that a router sends to an expert do, and are bound to their
            mean.
    """
    check(graph, dims)
    own = set(dimensions(graph))
    said = {name: size for name, size in dims.items() if name not in own}
    walk = Walk(model=graph, dims=dict(dims), inference=Inference(graph.opsets), said=said)
    for value in graph.inputs:
        shape = named_shape(graph, value)
        if shape is not None:
            sizes = tuple(bound(size, dims) for size in shape)
            walk.known[value] = Known(type=TensorType(dtype=graph.types[value].dtype, shape=sizes))
    walk.through(graph)
    return walk.bound()
