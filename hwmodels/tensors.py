"""The tensors of a contraction: what memories hold and traffic is counted by."""

from __future__ import annotations

from typing import Literal

TensorName = Literal["input", "weight", "output"]
TENSORS: tuple[TensorName, ...] = ("input", "weight", "output")
"""The first operand, the second one (weight, key), the result."""
