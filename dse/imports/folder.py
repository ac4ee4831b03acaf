"""A Hugging Face folder as an ONNX graph whose weights stay in the folder's files."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import onnx_ir as ir
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from dse.errors import CheckpointError
from dse.files import cache_folder, write_atomically
from dse.graph.ir.graph import Graph
from dse.graph.onnx.load import load
from dse.imports.checkpoint import Checkpoint, StoredTensor, is_shape, read_checkpoint, read_json
from dse.imports.facts import KEY, Facts, with_folder
from dse.imports.latent import leave_compressed
from dse.imports.layers import Stack, shortened, stacks
from dse.imports.names import PAST, PRESENT
from dse.imports.network import CONFIG, build, read_config, refuse_quantised
from dse.imports.parameters import (
    Source,
    aliases,
    assembled,
    check_complete,
    check_stored,
    shape_checkpoint,
    sources,
)
from dse.imports.signature import Assembled, Signature, is_causal, signature
from dse.imports.stamp import UnlikeError, layer_weights, stamp
from dse.imports.tidy import tidy
from dse.imports.trace import optimise, quiet, traced

NETWORK, STORED = "network.", "stored."
"""Attributes of `Assembled`: what names of its parts begin with."""
MOST_LAYERS = 10_000
"""Layers of a network without weights; the deepest that are published have a few hundred."""
NOTICED, SHOWN = 0.01, 3
"""Share of the stored parameters that is worth a word where nothing reads them; names in it."""
REVISION = 7
"""Counts up when the same folder gives another graph."""
TORCH_TYPES = {
    "BOOL": torch.bool, "U8": torch.uint8, "I8": torch.int8, "I16": torch.int16,
    "I32": torch.int32, "I64": torch.int64, "F16": torch.float16, "BF16": torch.bfloat16,
    "F32": torch.float32, "F64": torch.float64, "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}  # fmt: skip


def open_folder(folder: Path, *, served: bool = False) -> Graph:
    """The graph of a folder, with its weights; exported once, then read from the cache.

    Args:
        folder: configuration and weights.
        served: the graph has keys and values of earlier positions as inputs
            (`past_key_values.<layer>.<part>`) and those of the next call as outputs.

    Raises:
        GraphError: Something in the folder cannot be used, or its family cannot be exported.
    """
    checkpoint = _checkpoint(folder)
    path = _kept(checkpoint, served=served)
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, _bytes(export_folder(folder, checkpoint, served=served)))
    return with_folder(load(path, data=folder), folder)


def _kept(checkpoint: Checkpoint, *, served: bool) -> Path:
    """The place of a folder's graph in the cache."""
    form = "-served" if served else ""
    return cache_folder() / "imports" / f"{_digest(checkpoint)}{form}.onnx"


def write_graph(folder: Path, path: Path) -> None:
    """Writes a folder's graph as an ONNX file that refers to the folder's weights.

    Raises:
        CheckpointError: As `open_folder`; or the file would lie where the folder is not beside it.
    """
    home = path.parent.resolve()
    if not folder.resolve().is_relative_to(home):
        raise CheckpointError(
            f"{path}: expected a place in {folder} or in a folder around it: a model's weights "
            "cannot lie outside the folder of its file"
        )
    model = export_folder(folder, _checkpoint(folder))
    prefix = folder.resolve().relative_to(home)
    for value in model.graph.initializers.values():
        tensor = value.const_value
        if isinstance(tensor, ir.ExternalTensor):
            value.const_value = _moved(tensor, str(prefix / tensor.location))
    facts = {**json.loads(model.metadata_props[KEY]), "folder": str(prefix)}
    model.metadata_props[KEY] = json.dumps(facts)
    write_atomically(path, _bytes(model))


def export_folder(folder: Path, checkpoint: Checkpoint, *, served: bool = False) -> ir.Model:
    """The graph of a folder; initialisers refer to its safetensors files, relative to it.

    Raises:
        CheckpointError: Something in the folder cannot be used, or its family cannot be exported.
    """
    config = read_config(folder)
    _check_depth(config, checkpoint)
    for repeated in (partial(stacks, first=True), partial(stacks, first=False)):
        with suppress(UnlikeError):
            return _exported(build(config, folder), checkpoint, repeated, served=served)
    return _exported(build(config, folder), checkpoint, lambda network: (), served=served)


def _check_depth(config: Any, checkpoint: Checkpoint) -> None:
    """Raises `CheckpointError` where there are more layers than tensors: none is built."""
    layers = getattr(config.get_text_config(), "num_hidden_layers", 0)
    most = len(checkpoint.tensors) or MOST_LAYERS
    if isinstance(layers, int) and layers > most:
        known = f"the weights are {most} tensors" if checkpoint.tensors else f"at most {most}"
        raise CheckpointError(
            f"{checkpoint.folder / CONFIG}: num_hidden_layers is {layers}, expected fewer "
            f"({known}); config.json is of another model"
        )


def _exported(
    network: Any,
    checkpoint: Checkpoint,
    find_stacks: Callable[[Any], tuple[Stack, ...]],
    *,
    served: bool = False,
) -> ir.Model:
    """The network's graph.

    Args:
        network: of `transformers`, on the meta device.
        checkpoint: its weights.
        find_stacks: which layers of the network are copied instead of traced.
        served: with keys and values of earlier positions.

    Raises:
        UnlikeError: Layers that look alike are not.
    """
    if not checkpoint.tensors:
        checkpoint = shape_checkpoint(network, checkpoint.folder)
    made_from = sources(network, checkpoint)
    check_stored(checkpoint, made_from)
    tied = aliases(network)
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    with mode:
        stored = {
            name: _empty(checkpoint.tensors[name]) for made in made_from for name in made.names
        }
        made = assembled(network, stored, made_from, tied)
        check_complete(network, made, str(checkpoint.folder))
    repeated = find_stacks(network)
    for stack in repeated:
        shortened(network, stack)
    kept = [source for source in made_from if not _is_dropped(source.target, repeated)]
    asked = signature(network)
    heard: list[str] = []
    module = Assembled(network, _of(stored, kept), kept, tied, asked.keywords, tell=heard.append)
    _forget_parameters(network)
    if served:
        asked = _with_cache(module, asked, mode, checkpoint.folder)
    model = _traced(module, asked, mode, checkpoint.folder)
    model.graph.outputs[0].name = heard[-1]
    _name_weights(model.graph, module.names)
    if served:
        from dse.imports.cache import ask_one  # noqa: PLC0415

        ask_one(model.graph)
    with _refusals(module, checkpoint.folder):
        optimise(model)
        tidy(model, root=NETWORK)
    for stack in repeated:
        pairs = [(source.target, tuple(source.names)) for source in made_from]
        stamp(model, stack, layer_weights(stack, pairs))
    _refer(model.graph, checkpoint)
    facts = _facts(network, heard[-1])
    names = {name for made in made_from for name in made.names}
    unread = _unread({name: checkpoint.tensors[name].shape for name in names}, model.graph)
    model.metadata_props[KEY] = replace(facts, unread=unread).text
    return model


def _unread(stored: Mapping[str, Sequence[int]], graph: ir.Graph) -> str:
    """Stored tensors that no node reads: a pooler beside the output, attention to no encoder."""
    counts = {name: math.prod(shape) for name, shape in stored.items()}
    left = [name for name in counts if name not in graph.initializers]
    share = sum(counts[name] for name in left) / max(sum(counts.values()), 1)
    if share < NOTICED:
        return ""
    shown = ", ".join(sorted(left, key=lambda name: (-counts[name], name))[:SHOWN])
    more = f" and {len(left) - SHOWN} more" if len(left) > SHOWN else ""
    return f"{shown}{more}: {share:.1%} of the stored parameters"


def _is_dropped(parameter: str, repeated: Sequence[Stack]) -> bool:
    """Whether a parameter is of a layer that is not traced."""
    for stack in repeated:
        if parameter.startswith(f"{stack.path}."):
            number = parameter.removeprefix(f"{stack.path}.").partition(".")[0]
            return int(number) >= stack.traced
    return False


def _of(stored: Mapping[str, Tensor], kept: Sequence[Source]) -> dict[str, Tensor]:
    return {name: stored[name] for source in kept for name in source.names}


def _checkpoint(folder: Path) -> Checkpoint:
    if not (folder / CONFIG).is_file():
        what = "has no" if folder.is_dir() else "is no folder with"
        raise CheckpointError(
            f"{folder}: {what} {CONFIG}; expected an ONNX file or a Hugging Face folder"
        )
    # Files beside the configuration are in no digest, so they are looked at every time.
    refuse_quantised(read_json(folder / CONFIG), folder)
    return Checkpoint(folder=folder, tensors={}) if is_shape(folder) else read_checkpoint(folder)


def _facts(network: Any, output: str) -> Facts:
    config = network.config
    text = config.get_text_config()
    return Facts(
        family=config.model_type,
        architecture=type(network).__name__,
        context=getattr(text, "max_position_embeddings", None),
        causal=is_causal(network) and output == "logits",
        output=output,
    )


def _digest(checkpoint: Checkpoint) -> str:
    """Of everything that the graph depends on; contents of weights do not count."""
    versions = [metadata.version(name) for name in ("torch", "transformers", "onnxscript")]
    total = hashlib.sha256(repr((REVISION, versions)).encode())
    total.update((checkpoint.folder / CONFIG).read_bytes())
    for tensor in checkpoint.tensors.values():
        total.update(repr(tensor).encode())
    return total.hexdigest()[:32]


def _bytes(model: ir.Model) -> bytes:
    # `ir.save` would copy the weights; the proto only names their files.
    content: bytes = ir.to_proto(model).SerializeToString()
    return content


def _moved(tensor: ir.ExternalTensor, location: str) -> ir.ExternalTensor:
    return ir.ExternalTensor(
        location,
        tensor.offset,
        tensor.length,
        tensor.dtype,
        shape=tensor.shape,
        name=tensor.name,
    )


def _empty(tensor: StoredTensor) -> Tensor:
    return torch.empty(tensor.shape, dtype=TORCH_TYPES[tensor.dtype])


def _forget_parameters(network: Any) -> None:
    """The network's own parameters must not become initialisers of the graph."""
    for module in network.modules():
        for name in module._parameters:
            module._parameters[name] = None


def _with_cache(
    module: Assembled, asked: Signature, mode: FakeTensorMode, folder: Path
) -> Signature:
    """The signature with the keys and values of earlier positions, as one run leaves them.

    Raises:
        CheckpointError: The network keeps none, or something else beside them.
    """
    from dse.imports.cache import DIMS, example, new_cache  # noqa: PLC0415

    network = module.network
    cache = new_cache(network) if is_causal(network) else None
    leave_compressed(network)
    with _refusals(module, folder), _as_it_was(network), mode, quiet():
        inputs = {name: mode.from_tensor(value) for name, value in asked.inputs.items()}
        module.result(inputs, cache)
    past = example(cache) if cache is not None else {}
    if not past:
        raise CheckpointError(
            f"{folder}: {type(network).__name__} keeps no keys and values between calls, so it "
            "has no past; leave --dim past and --prompt out"
        )
    return Signature(
        inputs={**asked.inputs, **past},
        dims={**asked.dims, **dict.fromkeys(past, DIMS)},
        keywords=asked.keywords,
    )


@contextmanager
def _as_it_was(network: Any) -> Iterator[None]:
    """Takes back what a run leaves on modules.

    Frequencies that depend on the length (LongRoPE) are kept as attributes, here without data.
    """
    modules = list(network.modules())
    before = [({**vars(module)}, dict(module._buffers)) for module in modules]
    try:
        yield
    finally:
        for module, (attributes, buffers) in zip(modules, before, strict=True):
            vars(module).clear()
            vars(module).update({**attributes, "_buffers": buffers})


def _traced(module: Assembled, asked: Signature, mode: FakeTensorMode, folder: Path) -> ir.Model:
    past = [name for name in asked.inputs if name.startswith(PAST)]
    outputs = ("output", *(name.replace(PAST, PRESENT, 1) for name in past))
    with _refusals(module, folder):
        fake = {name: mode.from_tensor(value) for name, value in asked.inputs.items()}
        model = traced(module, {"inputs": fake}, {"inputs": dict(asked.dims)}, outputs)
    for value, name in zip(model.graph.inputs, asked.inputs, strict=True):
        value.name = name
    return model


@contextmanager
def _refusals(module: Assembled, folder: Path) -> Iterator[None]:
    """Says of whatever the exporter raises which network it was."""
    try:
        yield
    except Exception as error:
        reason = str(error).strip().partition("\n")[0]
        raise CheckpointError(
            f"{folder}: {type(module.network).__name__} cannot be exported: {reason}"
        ) from error


def _name_weights(graph: ir.Graph, names: Sequence[str]) -> None:
    """Calls the stored tensors' initialisers as the checkpoint does, and empties them.

    They stay empty up to the end, because optimisation would read the small ones.
    """
    for place, name in enumerate(names):
        value = graph.initializers.pop(f"{STORED}{place}", None)
        if value is not None:
            value.const_value = None
            value.name = name
            graph.initializers[name] = value


def _refer(graph: ir.Graph, checkpoint: Checkpoint) -> None:
    """Lets the empty initialisers refer to bytes of the checkpoint's files."""
    for name, value in graph.initializers.items():
        if value.const_value is not None:
            continue
        tensor = checkpoint.tensors[name]
        value.const_value = ir.ExternalTensor(
            tensor.file,
            tensor.offset,
            tensor.length,
            value.dtype,
            shape=ir.Shape(tensor.shape),
            name=name,
            base_dir=checkpoint.folder,
        )
