"""A spatial array as a device file describes it: axes, what is unrolled on them, how it fills.

The memories of the device are its hierarchy, main memory first; each says which tensors it holds
and on which axes it stands once a place (`Memory.holds`, `Memory.per`).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from hwmodels.devices.quantity import Count
from hwmodels.tensors import TensorName
from hwmodels.validation import Entry, Name, no_flag

Loop = Literal["G", "B", "K", "C", "OY", "OX", "FY", "FX"]
"""Loops of a convolution: groups, images, output channels, input channels of a group, output rows
and columns, kernel rows and columns. Of a matrix product (M, K) x (K, N), one of a batch of
products is a group, M is OX, N is K, its K is C."""
LOOPS: tuple[Loop, ...] = ("G", "B", "K", "C", "OY", "OX", "FY", "FX")
CORES = "cores"
"""The axis of a unit's cores, beside those of the array (`Memory.per`)."""
Movement = Literal["broadcast", "systolic"]
Goal = Literal["latency", "energy", "edp"]
"""Cycles, joules, or their product: a mapping makes one of them least."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ArrayAxis(Entry):
    """One axis of the array: how many places it has and which loops are unrolled on it."""

    name: Name
    """Name by which memories say that they stand once a place (`per`)."""
    size: Count
    """Places along it."""
    unrolls: Annotated[tuple[Loop, ...], Field(min_length=1)]
    """Loops whose steps the places share out: the first takes as many as it has steps, the next
    ones share what is left. `G` groups, `B` images, `K` output channels, `C` input channels, `OY`
    and `OX` output rows and columns, `FY` and `FX` kernel rows and columns; of a product (M, K) x
    (K, N), `OX` is M, `K` is N, `C` is K."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunLengths(Entry):
    """A code of activations: the zeros before an element and the element, several in a word."""

    run_bits: Annotated[int, Field(ge=1, le=16), BeforeValidator(no_flag)]
    """Of the number of zeros."""
    elements: Annotated[int, Field(ge=1), BeforeValidator(no_flag)]
    """Elements of a word, each with its zeros."""
    word_bits: Annotated[int, Field(ge=1), BeforeValidator(no_flag)]
    """Of a word."""

    def __post_init__(self) -> None:
        if self.word_bits <= self.elements * self.run_bits:
            raise ValueError(
                f"word_bits: {self.elements} runs of {self.run_bits} bits leave no bits of "
                f"{self.word_bits} for elements; give wider words"
            )

    def share(self, zeros: float, element_bits: float) -> float:
        """Bits that are stored over those of plain elements, at most 1: more is not coded.

        zeros: their share, met at random. A run that is longer than its bits can say takes an
        element that is a zero.
        """
        longest = 2.0**self.run_bits
        coded = (1 - zeros) / (1 - zeros**longest) if zeros < 1 else 1 / longest
        return min(coded * self.word_bits / self.elements / element_bits, 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class SpatialArray(Entry):
    """The multipliers of one core: axes, the way operands move over them, what stays in place."""

    axes: Annotated[tuple[ArrayAxis, ...], Field(min_length=1)]
    """Their sizes multiplied are the multiply-accumulates a cycle; of a systolic array rows, then
    columns."""
    movement: Movement = "broadcast"
    """`broadcast`: an operand is everywhere in one cycle. `systolic`: it moves one place a cycle,
    so that each fold of the array fills and drains along its axes."""
    stationary: TensorName | None = None
    """The tensor that stays in the places of a systolic array during a fold."""
    load: Literal["exposed", "hidden"] = "exposed"
    """Whether the array waits for the stationary tensor of the next fold, or has registers for
    two and pipelines the folds: then it fills and drains once a kernel."""
    mapping: Goal = "edp"
    """Goal of the chip's mapper, made least: `latency`, `energy`, or their product (`edp`)."""

    def __post_init__(self) -> None:
        if (self.movement == "systolic") != (self.stationary is not None):
            raise ValueError(
                "`stationary` (input, weight or output) goes with `movement: systolic`; give "
                "both or neither"
            )
        if self.movement == "systolic" and len(self.axes) != 2:
            raise ValueError(
                f"a systolic array has two axes, rows first; got {len(self.axes)} "
                f"({', '.join(axis.name for axis in self.axes)})"
            )
        names = Counter(axis.name for axis in self.axes)
        if repeated := [name for name, count in names.items() if count > 1]:
            raise ValueError(f"axes of the same name: {', '.join(repeated)}")
        if CORES in names:
            raise ValueError(f"axes: {CORES!r} is the axis of the unit's cores; name it otherwise")
        for index, axis in enumerate(self.axes):
            if twice := [loop for loop, count in Counter(axis.unrolls).items() if count > 1]:
                raise ValueError(f"axes.{index}.unrolls: {', '.join(twice)} twice; keep one")

    @property
    def places(self) -> float:
        """Multiply-accumulates a cycle of one core."""
        found = 1.0
        for axis in self.axes:
            found *= axis.size.value
        return found
