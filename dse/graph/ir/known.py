"""Knowledge of a value on the way to concrete shapes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dse.graph.ir.graph import TensorType

Sizes = tuple[TensorType, ...]
"""The types of a sequence's tensors."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """Knowledge of a value: its type (of every element for a sequence) and small data."""

    type: TensorType | Sizes | None
    data: np.ndarray | None = None

    @property
    def complete(self) -> bool:
        """Whether every size is a number."""
        kinds = self.type if isinstance(self.type, tuple) else (self.type,)
        return all(is_concrete(kind) for kind in kinds)


UNKNOWN = Known(type=None)


def is_concrete(kind: TensorType | None) -> bool:
    """Whether every size of a type is a number."""
    if kind is None or kind.shape is None:
        return False
    return all(isinstance(size, int) for size in kind.shape)
