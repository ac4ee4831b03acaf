"""`dse.from_torch`: a torch module as a model to ask and to search."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dse.api.loaded import LoadedModel, load

if TYPE_CHECKING:
    from torch import nn

    from dse.imports.module import Dims, Example


def from_torch(
    module: nn.Module,
    example: Example,
    *,
    path: str | Path | None = None,
    dims: Dims | None = None,
) -> LoadedModel:
    """Open a torch module, as `dse.load` opens a file.

    The module is exported to ONNX with its weights as they are now; products keep the names of
    their modules, so that a site is called `layers.0.fc1/in1`.

    Args:
        module: as it is in evaluation; it is not changed.
        example: inputs of one call: a tensor, a tuple by position, or a dict by name.
        path: the ONNX file to write; by default one in the user's cache.
        dims: names of the free axes of every input, e.g. `{"tokens": {0: "batch",
            1: "sequence"}}`; by default the first axis of every input is `batch`. `{}` frees none.

    Raises:
        GraphError: inputs that do not fit the module, or a module that torch cannot export.
    """
    from dse.imports.module import write_module  # noqa: PLC0415 (it imports torch)

    return load(write_module(module, example, None if path is None else Path(path), dims))
