"""A compiled node: what is called with which values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Protocol, TypeGuard

import torch
from torch import Tensor

from dse.execute.operators.operator import Value

HOST = torch.device("cpu")
ABSENT = 0
"""The slot of a missing optional input; its value is None."""

Quantize = Callable[[Tensor], Tensor]
"""A callable at a site. Equal (`==`) callables compute the same: their results are shared."""


class Sharing(Enum):
    """Knowledge that parts of a tensor need of each other to be quantized as the whole is.

    Parts hold whole slices of the contraction.
    """

    NOTHING = auto()
    LARGEST = auto()
    """The largest magnitude of the whole."""
    EVERYTHING = auto()


class Overwriting(Protocol):
    """A quantizer that can write its results over its input."""

    def __call__(self, x: Tensor) -> Tensor:
        """The quantized values."""

    @property
    def sharing(self) -> Sharing:
        """The knowledge that parts need of each other."""

    @property
    def keeps_zeros(self) -> bool:
        """Whether zeros stay zeros, and more of them at the end of a slice change nothing else."""

    def overwrite(self, x: Tensor, *, largest: Tensor | None = None) -> Tensor:
        """As `__call__`, in the memory of x, which needs no gradient.

        `largest` is the largest magnitude of what x is a part of.
        """


class Summing(Protocol):
    """The sum of a product, formed by something else than the operator.

    Scales of the two operands, and codes of those that are constant, are made from their values
    before they are quantized.
    """

    @property
    def scales(self) -> tuple[Quantize | None, Quantize | None]:
        """The functions that make scales of operands; None where no scale is needed."""

    @property
    def codes(self) -> tuple[Quantize | None, Quantize | None]:
        """Likewise of codes."""

    def applied(
        self,
        step: Step,
        scales: tuple[Tensor | None, Tensor | None],
        codes: tuple[Tensor | None, Tensor | None],
    ) -> Step:
        """The step with its sum formed so."""


def overwrites(quantize: Quantize | None) -> TypeGuard[Overwriting]:
    """Whether a quantizer is `Overwriting`."""
    # Much faster than `isinstance` of a protocol.
    return hasattr(quantize, "overwrite")


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
    streamed: tuple[int, ...] = ()
    """Positions of constants that stay on the host, and are copied for every call."""
    device: torch.device = HOST
    """The place that they are copied to."""
