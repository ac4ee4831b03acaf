"""A compiled node: what is called with which values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor

from dse.execute.operators.operator import Value

ABSENT = 0
"""The slot of a missing optional input; its value is None."""

Quantize = Callable[[Tensor], Tensor]
"""What stands at a site. Equal (`==`) callables compute the same: their results are shared."""


@runtime_checkable
class Overwriting(Protocol):
    """A quantizer that can write its results over its input."""

    @property
    def separable(self) -> bool:
        """Whether parts of a tensor that hold whole slices of the contraction give the same."""

    def overwrite(self, x: Tensor) -> Tensor:
        """As `__call__`, in the memory of x, which needs no gradient."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One call. Values live in numbered slots."""

    index: int
    """Position in execution order, folded steps included."""
    name: str
    """The node's name; empty for copies between devices."""
    what: str
    """The operator, for messages."""
    call: Callable[..., object]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    """`ABSENT` where nobody reads an output."""
    macs: Callable[[tuple[Value, ...], tuple[Value, ...]], int] | None = None
    nested: bool = False
    """The call runs graphs: it returns its outputs and the MACs spent inside."""
    generates: bool = False
    """See `Operator.generates`."""
