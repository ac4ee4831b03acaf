"""The values that a caller feeds, checked against the graph's inputs."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from dse.errors import DataError, nearest
from dse.execute.operators.dtype import BY_NAME
from dse.execute.operators.operator import Value
from dse.graph.ir.graph import Graph, TensorType


def checked(graph: Graph, feeds: Mapping[str, Value], device: torch.device) -> dict[str, Value]:
    """The feeds on the device in the graph's element types.

    Raises:
        DataError: a feed is missing, unknown or of another shape than the input (all at once).
    """
    wrong = [f"input {name!r} is not fed" for name in graph.inputs if name not in feeds]
    wrong += [
        f"feed {name!r} is no input of the graph{nearest(name, graph.inputs)}"
        for name in feeds
        if name not in graph.inputs
    ]
    for name in graph.inputs:
        kind, value = graph.types.get(name), feeds.get(name)
        if kind is not None and isinstance(value, Tensor) and not _fits(kind, value):
            wrong.append(f"input {name!r} has shape {_text(kind)}, fed {list(value.shape)}")
    if wrong:
        raise DataError("; ".join(wrong))
    return {name: _placed(value, graph.types.get(name), device) for name, value in feeds.items()}


def _fits(kind: TensorType, value: Tensor) -> bool:
    if kind.shape is None:
        return True
    return len(kind.shape) == value.dim() and all(
        not isinstance(wanted, int) or wanted == size
        for wanted, size in zip(kind.shape, value.shape, strict=True)
    )


def _text(kind: TensorType) -> str:
    return "[" + ", ".join("?" if size is None else str(size) for size in kind.shape or ()) + "]"


def _placed(value: Value, kind: TensorType | None, device: torch.device) -> Value:
    if isinstance(value, list):
        return [x.to(device) for x in value]
    if value is None:
        return None
    element = BY_NAME.get(kind.dtype) if kind is not None else None
    return value.to(device, element.carrier if element is not None else value.dtype)
