"""Quantisation of activations as a runtime does it: the kernels that it launches, in order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from hwmodels.formats.element import unit_element
from hwmodels.formats.quantizer import Granularity, Quantizer, Timing
from hwmodels.validation import Entry

QUANTISED: Literal["quantised"] = "quantised"
Bits = Annotated[int, Field(ge=0)] | Literal["quantised"]
"""Bits of an element of the tensor, or those of its format, scales included."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantisationKernel(Entry):
    """One kernel launch of a quantisation: what it reads and writes of the tensor."""

    op: str
    """Its name: `abs`, `compute_scale`, `mul`, `clip`, `cast`, ..."""
    kind: Literal["pointwise", "reduce", "quantize"] = "pointwise"
    """`quantize` writes the format, `reduce` the scales."""
    read: Bits = 0
    """Of an element; none for a step on the scales alone, which costs its launch."""
    write: Bits = 0
    """Of an element."""
    fuses: bool = False
    """Whether it runs within the producer of the tensor where that is one of `quantize_into`."""
    broadcasts: bool = False
    """Whether it reads a scale a row or a channel beside the tensor, an address an element."""
    alone: Annotated[int, Field(ge=0)] = 0
    """A reduction of the whole tensor: the elements up to which one block walks along all of
    them; 0 where every row has a block of its own."""
    part: Annotated[int, Field(ge=0)] = 0
    """The elements of each block beyond that. The blocks then count in memory who is the last,
    and a kernel before them zeroes the counter."""

    def __post_init__(self) -> None:
        if (self.alone > 0) != (self.part > 0):
            raise ValueError("`alone` and `part` are given together, for a reduction of a tensor")
        if self.alone and self.kind != "reduce":
            raise ValueError("`alone` and `part` are those of a kernel of the kind reduce")


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantisation(Entry):
    """The kernels that bring a 16-bit activation into formats of one kind.

    An empty list of elements, granularities or timings takes every one.
    """

    name: str
    """For people."""
    elements: Annotated[tuple[str, ...], Field(validation_alias="element")] = ()
    """Elements of the format."""
    granularities: Annotated[tuple[Granularity, ...], Field(validation_alias="granularity")] = ()
    """Extent of one scale."""
    timings: Annotated[tuple[Timing, ...], Field(validation_alias="timing")] = ()
    """Moment at which scales are known."""
    scaled: bool | None = None
    """Whether the format has a scale; either where it is not said."""
    kernels: Annotated[tuple[QuantisationKernel, ...], Field(min_length=1)]
    """Launches, in order."""
    rescale: tuple[QuantisationKernel, ...] = ()
    """Kernels that bring an int32 product of such an activation to 16 bit; none where what reads
    the product does it."""
    source: str
    """The citation; `unverified` where no source was opened."""
    note: str = ""
    """Anything else, for people."""

    def takes(self, quantizer: Quantizer) -> bool:
        """Whether this is how activations of that format are quantised."""
        fmt = quantizer.format
        return (
            _among(unit_element(fmt.element), self.elements)
            and _among(fmt.granularity, self.granularities)
            and _among(quantizer.timing, self.timings)
            and self.scaled in (None, fmt.scale is not None)
        )


def _among(value: str, allowed: tuple[str, ...]) -> bool:
    return not allowed or value in allowed


CAST = QuantisationKernel(op="", kind="quantize", read=16, write=QUANTISED)
DEFAULT = (
    Quantisation(
        name="whole_dynamic",
        granularities=("tensor",),
        timings=("dynamic",),
        scaled=True,
        kernels=(QuantisationKernel(op="compute_scale", kind="reduce", read=16), CAST),
        source="assumed",
        note="a maximum over the tensor, which no producer can take in, then one kernel",
    ),
    Quantisation(
        name="one_kernel",
        kernels=(
            QuantisationKernel(op="", kind="quantize", read=16, write=QUANTISED, fuses=True),
        ),
        source="assumed",
        note="one kernel, or none where the producer writes the format",
    ),
)
"""Lists of runtimes whose files say nothing: the fewest kernels that the format allows."""
