"""An ONNX file to a `Graph`: the only place that reads model files."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from dse.errors import GraphError, some
from dse.graph.ir.graph import Graph
from dse.graph.ir.initializer import from_proto
from dse.graph.ir.text_link import followed
from dse.graph.onnx.attributes import check_attributes, check_equations
from dse.graph.onnx.complete import completed
from dse.graph.onnx.content import check_content
from dse.graph.onnx.convert import ONNX_DOMAIN, Source, domain_name, graph_of
from dse.graph.onnx.inline import inlined
from dse.graph.onnx.order import bodies, name_nodes, sort_nodes
from dse.graph.onnx.packed_attention import unpack_attentions
from dse.graph.onnx.rank import free_sizes, give_ranks
from dse.graph.onnx.samples import name_samples
from dse.graph.onnx.scopes import qualify
from dse.graph.onnx.unpack_weight import unpack_weights

SMALL_ELEMENTS = 4096
"""Constants up to this size keep their values for the checker and shape inference."""

FOREIGN = {
    b"PK\x03\x04": "a zip archive, as PyTorch's checkpoints and numpy's .npz are",
    b"GGUF": "a GGUF file (make a folder of it: dse import {path} -o {folder})",
    b"\x89HDF": "an HDF5 file, as Keras writes them",
    b"\x80\x02": "a pickle, as old PyTorch checkpoints are",
    b"{": "JSON text",
}
"""The first bytes of other files."""

SHAPE_ERROR = "[ShapeInferenceError]"
"""The mark of onnx's messages about sizes, as against element types."""

MAX_BYTES = 2**31 - 1
"""A protobuf message cannot be longer."""


def load(
    path: str | Path, *, data: Path | None = None, ranks: Mapping[str, int] | None = None
) -> Graph:
    """The graph of an ONNX file, checked, inlined, sorted, typed; weights stay in their files.

    External data that is absent makes a graph without weights. A node without a name is called
    `<op_type>_<index in file order>`.

    Args:
        path: the file.
        data: the folder of external data; by default the file's own.
        ranks: the number of axes of inputs that the file gives no shape, by name.

    Raises:
        GraphError: The file is missing or not ONNX, the graph is invalid (a cycle, undefined or
            doubly written values, inputs without shapes), external data leads out of the model's
            folder, or something is not supported (everything that is not, in one message).
    """
    path = Path(path)
    model = _read(path)
    _check_sparse(model, path)
    source = Source(path=path, opsets=_opsets(model), folder=data)
    tensors = _detach_weights(model, source)
    model = inlined(model, where=str(path))
    name_nodes(model.graph)
    qualify(model.graph)
    tensors += _detach_constants(model.graph, model.graph, source)
    unpack_attentions(model.graph, tensors, where=str(path))
    unpack_weights(model.graph, tensors, where=str(path))
    sort_nodes(model.graph, where=str(path))
    _check_operators(model, path)
    free_sizes(model.graph)
    told = give_ranks(model.graph, ranks or {}, where=str(path))
    samples = name_samples(model.graph, {tensor.name for tensor in tensors})
    check_equations(model.graph, where=str(path))
    model = _checked(_typed(model, path), path)
    graph = graph_of(model.graph, replace(source, opsets=_opsets(model)), initializers=tensors)
    check_attributes(graph, where=str(path))
    graph = completed(graph)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    return replace(graph, metadata=metadata, path=path, told_ranks=told, samples=samples)


def model_proto(path: Path) -> onnx.ModelProto:
    """The model of a file as it stands, but inlined and with nodes named as `load` names them.

    Raises:
        GraphError: The file is missing or not ONNX.
    """
    model = inlined(_read(path), where=str(path))
    name_nodes(model.graph)
    qualify(model.graph)
    unpack_attentions(model.graph, model.graph.initializer, where=str(path))
    sort_nodes(model.graph, where=str(path))
    return model


def _read(path: Path) -> onnx.ModelProto:
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise GraphError(f"{path}: {what}; expected an ONNX file")
    size = path.stat().st_size
    if size > MAX_BYTES:
        message = f"{path}: {size} bytes, more than a protobuf file can have"
        raise GraphError(f"{message}; save the model with external data")
    content = followed(path).read_bytes()
    for start, what in FOREIGN.items():
        if content.startswith(start):
            named = what.format(path=shlex.quote(str(path)), folder=shlex.quote(path.stem))
            raise GraphError(
                f"{path}: {named}; expected an ONNX file, as torch.onnx.export writes it"
            )
    try:
        model = onnx.load_model_from_string(content)
    except (DecodeError, ValueError) as error:
        message = f"{path}: not an ONNX file, or truncated ({size} bytes): {error}"
        raise GraphError(f"{message}; export or copy it again") from error
    if not model.ir_version or not model.HasField("graph"):
        message = f"{path}: not an ONNX file, or truncated ({size} bytes): no graph in it"
        raise GraphError(f"{message}; export or copy it again")
    check_content(model, where=str(path))
    return model


def _opsets(model: onnx.ModelProto) -> dict[str, int]:
    return {domain_name(entry.domain): entry.version for entry in model.opset_import}


def _check_sparse(model: onnx.ModelProto, path: Path) -> None:
    names = [tensor.values.name for tensor in model.graph.sparse_initializer]
    if names:
        message = f"{path}: sparse initializers are not supported: {', '.join(names)}"
        raise GraphError(f"{message}; store them dense")


def _detach_weights(model: onnx.ModelProto, source: Source) -> list[onnx.TensorProto]:
    """Takes large and external constants out of the model; they become inputs of their type.

    What follows (inlining, checker, shape inference) then neither copies nor opens weights.
    """
    graph = model.graph
    tensors = list(graph.initializer)
    del graph.initializer[:]
    twice = [name for name, count in Counter(t.name for t in tensors).items() if count > 1]
    if twice:
        raise GraphError(f"{source.where}: initializers with the same name: {', '.join(twice)}")
    _stand_in(graph, tensors, source)
    return tensors


def _stand_in(graph: onnx.GraphProto, tensors: Iterable[onnx.TensorProto], source: Source) -> None:
    """Adds what stands for constants: their small values, or inputs of their types."""
    declared = {value.name for value in graph.input}
    for tensor in tensors:
        small = _small(tensor, source)
        if small is not None:
            graph.initializer.append(small)
        elif tensor.name not in declared:
            kind = onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            graph.input.append(kind)


def _detach_constants(
    graph: onnx.GraphProto, model: onnx.GraphProto, source: Source
) -> list[onnx.TensorProto]:
    """Takes large and external constants out of Constant nodes and bodies, as `_detach_weights`.

    They become constants of the whole model, which bodies see too. Names are unique by now.
    """
    found: list[onnx.TensorProto] = []
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        tensor = _detached(node)
        if tensor is not None:
            found.append(tensor)
        else:
            nodes.append(node)
        for body in bodies(node):
            found += _detach_constants(body, model, source)
    if graph is not model:
        found += [tensor for tensor in graph.initializer if _is_detached(tensor)]
        kept = [tensor for tensor in graph.initializer if not _is_detached(tensor)]
        del graph.initializer[:]
        graph.initializer.extend(kept)
    if len(nodes) < len(graph.node):
        del graph.node[:]
        graph.node.extend(nodes)
    if graph is model:
        _stand_in(model, found, source)
    return found


def _detached(node: onnx.NodeProto) -> onnx.TensorProto | None:
    """The large or external tensor of a Constant node, under the name of the node's result."""
    if node.op_type != "Constant" or domain_name(node.domain) != ONNX_DOMAIN:
        return None
    for attribute in node.attribute:
        if attribute.name == "value" and _is_detached(attribute.t):
            tensor = onnx.TensorProto()
            tensor.CopyFrom(attribute.t)
            tensor.name = node.output[0]
            return tensor
    return None


def _is_detached(tensor: onnx.TensorProto) -> bool:
    is_external = onnx.external_data_helper.uses_external_data(tensor)
    return is_external or _elements(tensor) > SMALL_ELEMENTS


def _small(tensor: onnx.TensorProto, source: Source) -> onnx.TensorProto | None:
    if onnx.external_data_helper.uses_external_data(tensor):
        known = from_proto(tensor, source.data, source.where)
        if not known.has_data or _elements(tensor) > SMALL_ELEMENTS:
            return None
        return onnx.TensorProto(
            name=tensor.name,
            data_type=tensor.data_type,
            dims=tensor.dims,
            raw_data=known.tobytes(),
        )
    return tensor if _elements(tensor) <= SMALL_ELEMENTS else None


def _elements(tensor: onnx.TensorProto) -> int:
    total = 1
    for size in tensor.dims:
        total *= size
    return total


def _check_operators(model: onnx.ModelProto, path: Path) -> None:
    opsets = _opsets(model)
    known = onnx.defs.onnx_opset_version()
    version = opsets.get(ONNX_DOMAIN, 1)
    problems = []
    if not 1 <= version <= known:
        problems.append(f"opset {version} (this onnx {onnx.__version__} knows up to {known})")
        version = known  # which operators it has, nobody here can say
    missing: dict[str, list[str]] = {}
    for node in _all_nodes(model.graph):
        domain = domain_name(node.domain)
        if domain == ONNX_DOMAIN and not onnx.defs.has(node.op_type, version, domain):
            missing.setdefault(node.op_type, []).append(node.name)
        if any(attribute.HasField("sparse_tensor") for attribute in node.attribute):
            problems.append(f"sparse tensor in {node.name}")
    for op_type, names in missing.items():
        problems.append(f"operator {op_type} of opset {version} ({some(names)})")
    if problems:
        raise GraphError(f"{path}: not supported: {'; '.join(problems)}")


def _all_nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for body in bodies(node):
            yield from _all_nodes(body)


def _checked(model: onnx.ModelProto, path: Path) -> onnx.ModelProto:
    """The model, if onnx's checker accepts it.

    The checker wants a type and a shape for every output, which runtimes do not: it gets some.
    """
    complete = onnx.ModelProto()
    complete.CopyFrom(model)
    for value in complete.graph.output:
        if value.type.WhichOneof("value") in (None, "tensor_type"):
            kind = value.type.tensor_type
            kind.elem_type = kind.elem_type or onnx.TensorProto.FLOAT
            kind.shape.SetInParent()
    try:
        onnx.checker.check_model(complete)
    except (onnx.checker.ValidationError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise GraphError(f"{path}: not a valid ONNX model: {reason}") from error
    return model


def _typed(model: onnx.ModelProto, path: Path) -> onnx.ModelProto:
    """The model with the types and shapes that follow from its inputs'."""
    try:
        return onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    except (onnx.shape_inference.InferenceError, ValueError) as error:
        if SHAPE_ERROR in str(error):
            raise GraphError(
                f"{path}: shapes do not fit: {' '.join(str(error).split())}"
            ) from error
    # Element types that operators do not take are written by exporters and taken by runtimes.
    try:
        return onnx.shape_inference.infer_shapes(model, strict_mode=False, data_prop=True)
    except (onnx.shape_inference.InferenceError, ValueError) as error:
        raise GraphError(f"{path}: shapes do not fit: {' '.join(str(error).split())}") from error
