"""A torch module in memory as an ONNX file, with its weights and the names of its modules."""

from __future__ import annotations

import hashlib
import inspect
import shutil
import tempfile
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import onnx_ir as ir
import torch
from torch import Tensor, nn

from dse.errors import GraphError
from dse.files import cache_folder
from dse.imports.tidy import tidy
from dse.imports.trace import optimise, traced

Example = Tensor | Sequence[Tensor] | Mapping[str, Tensor]
"""Inputs of one call: the first one, all by position, or by name."""
Dims = Mapping[str, Mapping[int, str]]
"""Names of the free axes of every input."""
BATCH = "batch"
LARGEST_FILE = 100_000_000
"""Bytes of weights above which they lie in a file beside the graph's."""


def write_module(
    module: nn.Module, example: Example, path: Path | None, dims: Dims | None
) -> Path:
    """Writes a module as an ONNX file.

    Args:
        module: exported as it is in evaluation; its state is left as it was.
        example: inputs of one call.
        path: the file to write; None: one in the user's cache, named by its content.
        dims: free axes; None: the first one of every input is the batch.

    Returns:
        The file.

    Raises:
        GraphError: inputs that do not fit the module, or a module that torch cannot export.
    """
    name = type(module).__name__
    if not isinstance(module, nn.Module):
        raise GraphError(f"from_torch: expected a torch.nn.Module, got {name}")
    inputs = _by_name(module, example)
    axes = _axes(name, inputs, dims)
    with _evaluating(module):
        outputs = _outputs(module, inputs)
        model = _exported(module, _enlarged(inputs, axes), axes, outputs)
    parameters = {name for name, _ in module.named_parameters(remove_duplicate=False)}
    with _weights_apart(model.graph, parameters):
        optimise(model)
        tidy(model)
    return _cached(model, name) if path is None else _saved(model, path)


def _by_name(module: nn.Module, example: Example) -> dict[str, Tensor]:
    """The inputs by the names that `forward` gives them."""
    name = type(module).__name__
    names = [
        parameter.name
        for parameter in inspect.signature(module.forward).parameters.values()
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    ]
    if isinstance(example, Mapping):
        found = dict(example)
    else:
        given = (example,) if isinstance(example, Tensor) else tuple(example)
        if len(given) > len(names):
            raise GraphError(
                f"{name}: the example has {len(given)} inputs, forward takes {len(names)}"
            )
        found = dict(zip(names, given, strict=False))
    wrong = [key for key, value in found.items() if not isinstance(value, Tensor)]
    if wrong or not found:
        kind = type(found[wrong[0]]).__name__ if wrong else "nothing"
        where = f" for {wrong[0]!r}" if wrong else ""
        raise GraphError(f"{name}: the example must be tensors, got {kind}{where}")
    return found


def _axes(name: str, inputs: Mapping[str, Tensor], dims: Dims | None) -> Dims:
    """The free axes of every input."""
    if dims is None:
        return {key: {0: BATCH} if value.ndim else {} for key, value in inputs.items()}
    if unknown := [key for key in dims if key not in inputs]:
        raise GraphError(
            f"{name}: dims names {unknown[0]!r}; expected inputs: {', '.join(inputs)}"
        )
    return {key: dims.get(key, {}) for key in inputs}


def _enlarged(inputs: Mapping[str, Tensor], axes: Dims) -> dict[str, Tensor]:
    """Inputs whose free axes are at least 2 long: torch takes a size of 1 for a fixed one."""
    found = {}
    for key, value in inputs.items():
        times = [2 if axis in axes[key] and size == 1 else 1
                 for axis, size in enumerate(value.shape)]  # fmt: skip
        found[key] = value.repeat(times) if any(count > 1 for count in times) else value
    return found


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """The module in evaluation; every part's own mode comes back."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for part, mode in modes:
            part.training = mode


def _outputs(module: nn.Module, inputs: Mapping[str, Tensor]) -> list[str]:
    """Names of the tensors that a call gives."""
    name = type(module).__name__
    try:
        result = module(**inputs)
    except Exception as error:
        reason = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
        raise GraphError(f"{name}: forward fails on the example: {reason}") from error
    if isinstance(result, Tensor):
        return ["output"]
    if isinstance(result, Mapping):
        named = list(result.items())
    elif isinstance(result, tuple | list):
        named = [(f"output_{at}", value) for at, value in enumerate(result)]
    else:
        named = [("", result)]
    wrong = [value for _, value in named if not isinstance(value, Tensor)]
    if wrong:
        raise GraphError(
            f"{name}: gives {type(wrong[0]).__name__}; expected tensors (of a transformers "
            "model: save_pretrained(FOLDER), and give the folder to dse.load)"
        )
    return [str(key) for key, _ in named]


def _exported(
    module: nn.Module, inputs: Mapping[str, Tensor], axes: Dims, outputs: Sequence[str]
) -> ir.Model:
    try:
        model = traced(module, inputs, axes, outputs)
    except Exception as error:
        text = f"{error}\n{error.__cause__ or ''}"
        reason = next((line.strip() for line in text.splitlines() if line.strip()), "")
        raise GraphError(
            f"{type(module).__name__}: torch cannot export it: {reason}; where a size must be "
            "fixed, say which are free: dims={'INPUT': {AXIS: 'NAME'}}, or dims={}"
        ) from error
    return model


@contextmanager
def _weights_apart(graph: ir.Graph, names: Container[str]) -> Iterator[None]:
    """A graph without the content of its weights: folding would copy those that two nodes read."""
    content = {}
    for name, value in graph.initializers.items():
        if name in names:
            content[name], value.const_value = value.const_value, None
    yield
    for name, tensor in content.items():
        if name in graph.initializers:
            graph.initializers[name].const_value = tensor


def _saved(model: ir.Model, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = model.graph.initializers.values()
    size = sum(v.const_value.nbytes for v in values if v.const_value is not None)
    beside = f"{path.name}.data" if size > LARGEST_FILE else None
    ir.save(model, path, external_data=beside)
    return path


def _cached(model: ir.Model, name: str) -> Path:
    """The file in the user's cache, in a folder that its content names."""
    home = cache_folder() / "torch"
    home.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=home) as scratch:
        written = _saved(model, Path(scratch) / "new" / f"{name}.onnx")
        total = hashlib.sha256()
        for file in sorted(written.parent.iterdir()):
            with file.open("rb") as stream:
                total.update(hashlib.file_digest(stream, "sha256").digest())
        folder = home / total.hexdigest()[:32]
        if not (folder / written.name).is_file():
            shutil.rmtree(folder, ignore_errors=True)
            written.parent.replace(folder)
    return folder / written.name
