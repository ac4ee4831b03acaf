"""The `cpu:` section of a device file: what a processor's cores multiply with, and what waits.

A core has several ways to multiply, each for some elements, at its own clock; kernels compute
tiles of outputs that its registers hold. Caches are `memories` beside main memory, those of a core
with `per: [cores]`. Each group of figures names its source.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from hwmodels.devices.element import AccumulatorName, Element
from hwmodels.devices.npu import Size, Source
from hwmodels.devices.quantity import Frequency, Kind, Positive, Time
from hwmodels.validation import Entry, Name

Term = Literal["compute", "pack", "memory", "call", "fork"]
"""Parts of a kernel's time that measurements may correct."""
MOST_MACS = 2.0**16
"""Of a core and cycle: 64 times those of AMX, and of SME."""
LEAST_VECTOR = 8
"""Bytes of a register: one double."""
MOST_ISSUED = 64
"""Vector instructions a cycle: eight times those of any core."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Instructions(Entry):
    """One way to multiply: instructions of a set, for two elements and an accumulator."""

    name: Name
    """Of the set: `avx2`, `avx512_vnni`, `amx_int8`, `neon`, `sme`."""
    weight: Annotated[tuple[Element, ...], Field(min_length=1)]
    """Elements of the second operand."""
    input: Annotated[tuple[Element, ...], Field(min_length=1)]
    """Elements of the first operand."""
    accumulator: AccumulatorName
    """Element that products are summed in."""
    macs: Annotated[Positive, Field(le=MOST_MACS)]
    """Multiply-accumulates a cycle and core, all instructions counted that one takes: without VNNI
    an int8 product is a multiplication, a widening and an addition."""
    tile: tuple[Size, Size]
    """Rows and columns of outputs that registers hold."""
    lanes: Size
    """Columns that one register holds: columns are padded to them."""
    depth: Size = 1
    """Elements along K that one instruction adds up: K is padded to them."""
    clock_hz: Annotated[Frequency | None, Field(validation_alias="clock")] = None
    """Clock while these run, where wide units lower it; none: that of the matrix unit."""
    kind: Kind
    """Of these figures."""
    source: Source
    """Citation of these figures, or a key of `sources`."""

    def accepts(self, weight: str, input_: str) -> bool:
        """Whether they multiply these two elements."""
        return weight in self.weight and input_ in self.input


@dataclass(frozen=True, slots=True, kw_only=True)
class Call(Entry):
    """Time that a runtime takes from one operator to the next, beside what the operator does."""

    runtime: str
    """Its name."""
    call_s: Annotated[Time, Field(validation_alias="call")]
    """Dispatch, allocation, shapes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FittedFactor(Entry):
    """A factor on one term of kernels of one kind, from measurements on this very device.

    Empty words hold for all; factors whose words all fit are multiplied.
    """

    term: Term
    """The part of the time: `compute`, `memory`, the `pack`ing of weights in every call, the
    runtime's `call`, the start of threads (`fork`)."""
    runtime: str = ""
    """Runtime that was measured."""
    family: str = ""
    """Family of kernels (`hwmodels.estimators.cpu.family`), or with `memory` the level."""
    element: str = ""
    """Element that is multiplied, or that rows are stored in."""
    factor: Positive
    """On the time of the term."""

    def holds_for(self, term: str, runtime: str, family: str, element: str) -> bool:
        """Whether it corrects the term of such kernels."""
        return (
            self.term == term
            and self.runtime in ("", runtime)
            and self.family in ("", family)
            and self.element in ("", element)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Cpu(Entry):
    """A processor: cores that are alike, and what they share."""

    instructions: Annotated[tuple[Instructions, ...], Field(min_length=1)]
    """Ways to multiply; the fastest for the elements and the accumulator runs."""
    vector_bytes: Annotated[Size, Field(ge=LEAST_VECTOR)]
    """Bytes of a register of the vector unit, which everything but products runs on."""
    vector_issue: Annotated[Positive, Field(le=MOST_ISSUED)]
    """Vector instructions of that width a cycle: additions, shuffles, conversions."""
    lookup_bytes: Size
    """Bytes that one shuffle looks up in a table of 16 entries that lies in a register."""
    fork_s: Annotated[Time, Field(validation_alias="fork")]
    """From waking the threads of a parallel region to the last one's end, without work."""
    calls: tuple[Call, ...] = ()
    """Times between operators, by runtime; of others `launch`."""
    fitted: tuple[FittedFactor, ...] = ()
    """Factors that `dse fit` found on this device; none: the model's own constants."""
    kind: Kind
    """Of vectors and look-ups."""
    source: Source
    """Citation of those, or a key of `sources`."""

    def call_s(self, runtime: str) -> float | None:
        """Seconds between two operators of a runtime; None where the file has none."""
        return next((one.call_s.value for one in self.calls if one.runtime == runtime), None)
