"""A Hugging Face folder as an ONNX graph whose weights stay in the folder's files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx_ir as ir
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from dse.errors import CheckpointError
from dse.imports.checkpoint import Checkpoint, StoredTensor, read_checkpoint
from dse.imports.experts import register
from dse.imports.network import build, read_config
from dse.imports.parameters import aliases, check_complete, assembled, sources
from dse.imports.signature import Assembled, signature
from dse.imports.tidy import tidy
from dse.imports.trace import optimise, traced

TORCH_TYPES = {
    "BOOL": torch.bool, "U8": torch.uint8, "I8": torch.int8, "I16": torch.int16,
    "I32": torch.int32, "I64": torch.int64, "F16": torch.float16, "BF16": torch.bfloat16,
    "F32": torch.float32, "F64": torch.float64, "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}  # fmt: skip


STORED = "stored"
"""What the exporter calls the tensors of a checkpoint, with a number."""


def export_folder(folder: Path) -> ir.Model:
    """The graph of a folder; initialisers refer to its safetensors files, relative to it.

    Raises:
        CheckpointError: Something in the folder cannot be used, or its family cannot be exported.
    """
    register()
    config = read_config(folder)
    checkpoint = read_checkpoint(folder)
    network = build(config, folder)
    made_from = sources(network, checkpoint)
    tied = aliases(network)
    used = [name for source in made_from for name in source.names]
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    with mode:
        stored = {name: _empty(checkpoint.tensors[name]) for name in used}
        check_complete(network, assembled(network, stored, made_from, tied), str(folder))
    asked = signature(network)
    module = Assembled(network, stored, made_from, tied, asked.keywords)
    _forget_parameters(network)
    model = _traced(module, asked.inputs, asked.dims, mode, folder)
    references = _forget_weights(model.graph, module.names, checkpoint)
    optimise(model)
    for name, tensor in references.items():
        if name in model.graph.initializers:
            model.graph.initializers[name].const_value = tensor
    tidy(model)
    return model


def _forget_weights(
    graph: ir.Graph, names: Sequence[str], checkpoint: Checkpoint
) -> dict[str, ir.ExternalTensor]:
    """Empties the stored tensors' initialisers, names them, and gives what they refer to.

    The references go in after optimisation, which would read the small ones.
    """
    found = {}
    for place, name in enumerate(names):
        value = graph.initializers.pop(f"{STORED}.{place}", None)
        if value is None:
            continue
        tensor = checkpoint.tensors[name]
        value.const_value = None
        value.name = name
        graph.initializers[name] = value
        found[name] = ir.ExternalTensor(
            tensor.file,
            tensor.offset,
            tensor.length,
            value.dtype,
            shape=ir.Shape(tensor.shape),
            name=name,
            base_dir=checkpoint.folder,
        )
    return found


def _empty(tensor: StoredTensor) -> Tensor:
    return torch.empty(tensor.shape, dtype=TORCH_TYPES[tensor.dtype])


def _forget_parameters(network: Any) -> None:
    """The network's own parameters must not become initialisers of the graph."""
    for module in network.modules():
        for name in module._parameters:
            module._parameters[name] = None


def _traced(module: Assembled, inputs: Any, dims: Any, mode: Any, folder: Path) -> ir.Model:
    try:
        with mode:
            fake = {name: mode.from_tensor(value) for name, value in inputs.items()}
        model = traced(module, {"inputs": fake}, {"inputs": dims}, ("output",))
    except Exception as error:
        raise CheckpointError(
            f"{folder}: {type(module.network).__name__} cannot be exported: {error}"
        ) from error
    for value, name in zip(model.graph.inputs, inputs, strict=True):
        value.name = name
    return model
