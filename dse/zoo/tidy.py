"""Makes an exported graph readable: names that say where a node stands, no shape arithmetic.

Site identifiers are node names, so they must survive a new version of the exporter: a node is
named after the torch module it came from, not after a running number of the whole graph.
"""

from __future__ import annotations

import ast
import re
from collections import Counter

import numpy
import onnx_ir as ir
from onnx_ir.passes import common

SCOPES_KEY = "pkg.torch.onnx.name_scopes"
# What the exporter writes for nodes that no module made, such as the input's shape.
ROOT_SCOPE = "_empty_nn_module_stack_from_metadata_hook"


def tidy(model: ir.Model) -> None:
    """Simplifies reshapes, drops what became unused, renames and strips exporter metadata."""
    graph = model.graph
    for node in graph:
        if node.op_type == "Reshape":
            _reshape_by_constant(graph, node)
    common.RemoveUnusedNodesPass()(model)
    _name_nodes(graph)
    _name_constants(graph)
    _order_sums(graph)
    for node in graph:
        node.metadata_props.clear()
        node.doc_string = None
        for value in node.outputs:
            value.metadata_props.clear()
    for value in (*graph.inputs, *graph.outputs, *graph.initializers.values()):
        value.metadata_props.clear()
    graph.metadata_props.clear()
    model.metadata_props.clear()


def _reshape_by_constant(graph: ir.Graph, node: ir.Node) -> None:
    """Replaces a computed target shape by [0, 0, 8, 32]: zero keeps the input's dimension."""
    source, target = node.inputs[0], node.outputs[0]
    if source is None or source.shape is None or target.shape is None:
        return
    if node.inputs[1] is None or node.inputs[1].const_value is not None:
        return
    dims: list[int] = []
    for index, dim in enumerate(target.shape):
        if isinstance(dim, int):
            dims.append(dim)
        elif index < len(source.shape) and source.shape[index] == dim:
            dims.append(0)
        else:
            dims.append(-1)
    if dims.count(-1) > 1:
        return
    name = "shape_" + "_".join(str(dim).replace("-1", "rest") for dim in dims)
    if name not in graph.initializers:
        tensor = ir.tensor(numpy.array(dims, dtype=numpy.int64), name=name)
        graph.register_initializer(
            ir.Value(
                name=name, const_value=tensor, shape=tensor.shape, type=ir.TensorType(tensor.dtype)
            )
        )
    node.replace_input_with(1, graph.initializers[name])
    # With allowzero a zero would mean an empty dimension.
    node.attributes.pop("allowzero", None)


def _name_nodes(graph: ir.Graph) -> None:
    """`<module>` for a module that is one node, `<module>.<operation>` for the others."""
    modules: list[str] = []
    for node in graph:
        scopes = ast.literal_eval(node.metadata_props.get(SCOPES_KEY, "['', '']"))
        scopes = ["" if scope == ROOT_SCOPE else scope for scope in scopes]
        # An optimiser's own node has no scope: it stands where the node before it stands.
        known = SCOPES_KEY in node.metadata_props or not modules
        modules.append(scopes[-2] if known else modules[-1])
    members = Counter(modules)
    taken: Counter[str] = Counter()
    outputs = {id(value) for value in graph.outputs}
    for node, module in zip(graph, modules, strict=True):
        alone = members[module] == 1 and module
        name = module if alone else ".".join(filter(None, (module, _label(node))))
        taken[name] += 1
        node.name = name if taken[name] == 1 else f"{name}_{taken[name] - 1}"
        for index, value in enumerate(node.outputs):
            if id(value) not in outputs:
                value.name = node.name if len(node.outputs) == 1 else f"{node.name}:{index}"


def _label(node: ir.Node) -> str:
    """Operation in snake case; attention's two products by their role."""
    if node.op_type == "MatMul" and all(
        v is not None and v.const_value is None for v in node.inputs
    ):
        producer = node.inputs[0].producer() if node.inputs[0] is not None else None
        return "mix" if producer is not None and producer.op_type == "Softmax" else "scores"
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", node.op_type).lower()


def _order_sums(graph: ir.Graph) -> None:
    """Writes `sequence + past` as `past + sequence` everywhere: one size, one name."""
    values = [*graph.inputs, *graph.outputs, *(v for node in graph for v in node.outputs)]
    for value in values:
        if value.shape is None:
            continue
        dims = [
            dim if isinstance(dim, int) or dim.value is None
            else " + ".join(sorted(str(dim.value).split(" + ")))
            for dim in value.shape
        ]  # fmt: skip
        value.shape = ir.Shape(dims)


def _name_constants(graph: ir.Graph) -> None:
    """`constant_<n>` for the exporter's `val_<n>`; parameters keep their torch names."""
    count = 0
    for name, value in list(graph.initializers.items()):
        if re.fullmatch(r"val_\d+", name):
            value.name = f"constant_{count}"
            count += 1
