"""Makes an exported graph readable: names that say where a node stands, no shape arithmetic.

Site identifiers are node names, so they must survive a new version of the exporter: a node is
named after the torch module it came from, not after a running number of the whole graph.
"""

from __future__ import annotations

import ast
import itertools
import re
from collections import Counter
from collections.abc import Container, Mapping

import numpy
import onnx_ir as ir
from onnx_ir.passes import common

SCOPES_KEY = "pkg.torch.onnx.name_scopes"
# Smaller initialisers are constants of an operation, not weights.
SMALLEST_WEIGHT = 1024
PRODUCTS = ("Conv", "Gemm", "MatMul")
# What the exporter writes for nodes that no module made, such as the input's shape.
ROOT_SCOPE = "_empty_nn_module_stack_from_metadata_hook"


def tidy(model: ir.Model, *, root: str = "") -> None:
    """Simplifies reshapes, drops what became unused, renames and strips exporter metadata.

    Args:
        model: changed in place.
        root: what names of modules begin with, and is left out.
    """
    graph = model.graph
    for node in graph:
        if node.op_type == "Reshape":
            _reshape_by_constant(graph, node)
    common.RemoveUnusedNodesPass()(model)
    modules = {node: name.removeprefix(root) for node, name in _modules(graph).items()}
    _name_constants(graph, modules)
    _name_nodes(graph, modules)
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


def _modules(graph: ir.Graph) -> dict[ir.Node, str]:
    """The torch module that every node came from; empty for nodes that no module made.

    What is done to a weight before any module sees it (a cast) is named after the weight.
    """
    modules: dict[ir.Node, str] = {}
    weights = _weights(graph)
    last = ""
    for node in graph:
        # An optimiser's own node has no scope: it stands where the node before it stands.
        if SCOPES_KEY in node.metadata_props:
            scope = ast.literal_eval(node.metadata_props[SCOPES_KEY])[-2]
            last = "" if scope == ROOT_SCOPE else scope
        modules[node] = _owner(node) or last or weights.get(node, "")
    return modules


def _owner(node: ir.Node) -> str:
    """The module whose weight a convolution or product reads; a folded norm is not it."""
    if node.op_type not in PRODUCTS or node.inputs[1] is None:
        return ""
    name = str(node.inputs[1].name)
    owned = node.inputs[1].is_initializer() and name.endswith(".weight")
    return name.removesuffix(".weight") if owned else ""


def _weights(graph: ir.Graph) -> dict[ir.Node, str]:
    """The first initialiser behind every node that computes with initialisers alone."""
    found: dict[ir.Node, str] = {}
    for node in graph:
        names = [_weight(value, found) for value in node.inputs if value is not None]
        if names and all(names):
            found[node] = names[0]
    return found


def _weight(value: ir.Value, found: Mapping[ir.Node, str]) -> str:
    producer = value.producer()
    if producer is not None:
        return found.get(producer, "")
    return str(value.name) if value.is_initializer() else ""


def _products(modules: Mapping[ir.Node, str], weighted: Container[ir.Node]) -> set[ir.Node]:
    """The products that are what their module is for: one with a weight in each."""
    found: dict[str, list[ir.Node]] = {}
    for node, module in modules.items():
        if node in weighted:
            found.setdefault(module, []).append(node)
    return {nodes[0] for module, nodes in found.items() if module and len(nodes) == 1}


def _weighted(graph: ir.Graph) -> set[ir.Node]:
    """Products with a weight, or with what is computed from weights."""
    weights = _weights(graph)
    return {
        node
        for node in graph
        if node.op_type in PRODUCTS
        and any(_weight(value, weights) for value in node.inputs if value is not None)
    }


def _name_nodes(graph: ir.Graph, modules: Mapping[ir.Node, str]) -> None:
    """`<module>` for a module's product or only node, `<module>.<operation>` for the others."""
    members = Counter(modules.values())
    weighted = _weighted(graph)
    products = _products(modules, weighted)
    holders = {modules[node] for node in products}
    outputs = {id(value) for value in graph.outputs}
    taken = {str(value.name) for value in (*graph.inputs, *graph.outputs)} | set(
        graph.initializers
    )
    for node, module in modules.items():
        alone = members[module] == 1 and module and module not in graph.initializers
        is_it = node in products if module in holders else alone
        name = module if is_it else ".".join(filter(None, (module, _label(node, weighted))))
        node.name = _free(name, taken)
        for index, value in enumerate(node.outputs):
            if id(value) not in outputs:
                value.name = node.name if len(node.outputs) == 1 else f"{node.name}:{index}"


def _free(name: str, taken: set[str]) -> str:
    """The name, or with the first number that makes it new; marks it as taken."""
    candidates = itertools.chain([name], (f"{name}_{count}" for count in itertools.count(1)))
    free = next(candidate for candidate in candidates if candidate not in taken)
    taken.add(free)
    return free


def _label(node: ir.Node, weighted: Container[ir.Node]) -> str:
    """Operation in snake case; attention's two products by their role."""
    if node.op_type == "MatMul" and node not in weighted:
        producer = node.inputs[0].producer() if node.inputs[0] is not None else None
        return "mix" if producer is not None and producer.op_type == "Softmax" else "scores"
    if node.op_type == "MatMul":
        return "matmul"
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


def _name_constants(graph: ir.Graph, modules: Mapping[ir.Node, str]) -> None:
    """`constant_<n>` for the exporter's temporary names; parameters keep their torch names.

    A folded weight (transposed, say) has lost its name and gets `<module>.weight` back.
    """
    taken = set(graph.initializers)
    for name, value in list(graph.initializers.items()):
        users = value.consumers()
        size = value.const_value.size if value.const_value is not None else 0
        # One without a value is a stored tensor, whose name says which.
        if "." in name or name.startswith("shape_") or value.const_value is None:
            continue
        if len(users) == 1 and size >= SMALLEST_WEIGHT and modules[users[0]]:
            value.name = _free(f"{modules[users[0]]}.weight", taken)
        else:
            value.name = _free("constant", taken)
