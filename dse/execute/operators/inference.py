"""Operators of training that inference passes through."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from dse.errors import GraphError
from dse.execute.operators.operator import Operator


def _passed(x: Tensor, output_count: int) -> Tensor | tuple[Tensor, Tensor]:
    return x if output_count == 1 else (x, torch.ones_like(x, dtype=torch.bool))


def dropout(
    x: Tensor,
    ratio: Tensor | None = None,
    training_mode: Tensor | None = None,
    *,
    seed: int = 0,
    output_count: int = 1,
) -> Tensor | tuple[Tensor, Tensor]:
    """X itself; the mask keeps everything.

    Raises:
        GraphError: the model asks for training mode with a ratio above zero.
    """
    drops = ratio is None or ratio.item() > 0
    if training_mode is not None and training_mode.item() and drops:
        raise GraphError("Dropout in training mode cannot be executed; export in eval mode")
    return _passed(x, output_count)


def dropout_attribute(
    x: Tensor, *, ratio: float = 0.5, is_test: int = 1, output_count: int = 1
) -> Tensor | tuple[Tensor, Tensor]:
    """Dropout before opset 12."""
    return _passed(x, output_count)


OPERATORS: Mapping[str, Operator] = {
    "Dropout": Operator(versions={1: dropout_attribute, 12: dropout}, host=(1, 2)),
}
