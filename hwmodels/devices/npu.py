"""The `npu:` section of a device file: how a block-wise NPU walks through an operation.

Such an NPU computes a block of outputs at a time: it holds a block of inputs and the block's
accumulators in small buffers, and a micro-block of outputs a step. Everything that differs
between chips is here, so that another one is a file. Sizes are in elements, (height, width,
channels); times are cycles of the NPU's clock. Each group of figures names its source.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo

from hwmodels.devices.element import Element
from hwmodels.devices.quantity import Capacity, Kind
from hwmodels.validation import Entry, Name, no_flag

Walk = Literal["depth", "taps", "depthwise", "pool"]
"""Order of the steps over a block: input channels first, taps of the kernel first, every channel
with its own kernel, every channel without weights."""
NEEDED: tuple[Walk, ...] = ("depth", "depthwise", "pool")
MOST_CHANNELS = 1024
"""Channels that lie side by side, at most: 64 times those of any NPU here."""
MOST_CYCLES = 1e6
"""Cycles of one element, step or burst, at most: a millisecond at 1 GHz."""
Size = Annotated[int, Field(gt=0), BeforeValidator(no_flag)]
Block = tuple[Size, Size, Size]
Cycles = Annotated[
    float, Field(gt=0, le=MOST_CYCLES, allow_inf_nan=False), BeforeValidator(no_flag)
]
Delay = Annotated[
    float, Field(ge=0, le=MOST_CYCLES, allow_inf_nan=False), BeforeValidator(no_flag)
]


def _cited(source: str, info: ValidationInfo) -> str:
    cited = (info.context or {}).get(source, source)
    if not isinstance(cited, str) or not cited.strip():
        raise ValueError("expected a citation, or a key of `sources`, got none")
    return cited


Source = Annotated[str, AfterValidator(_cited)]
"""A citation, or in a file a key of its `sources`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocks(Entry):
    """Blocks of outputs that the NPU computes, and what starting one takes."""

    micro: Annotated[tuple[Block, ...], Field(min_length=1)]
    """Outputs of one step of a core; of several the first with least waste runs."""
    row: Block | None = None
    """The same for products and convolutions along a map of one row of even width."""
    cores: Size = 1
    """Cores that share out a block's output channels."""
    largest: Block
    """Most outputs of a block."""
    depth: Size
    """Output channels that outputs are split at."""
    window: Size
    """Most taps along an axis; a larger kernel is several passes."""
    stride: Size | None = None
    """Most steps from window to window along an axis; with more, every place of the output is an
    operation of its own that reads all weights again. None: any number."""
    stride_pads: bool = False
    """Whether such convolutions may be padded, or have a kernel a channel: every tap is an
    operation of its own then. Else the device's host runs them."""
    dilation: Size | None = None
    """Most places between neighbouring taps that the NPU skips by itself; a compiler fills larger
    kernels up with zeros. None: any number."""
    delay: Delay = 0.0
    """Cycles until a sum is there to be added to: paid where a block is one micro-block."""
    wide_delay: Delay = 0.0
    """The same with accumulators of more than 32 bits."""
    covers: bool = False
    """Whether pools and kernels of a channel take the largest of blocks that move equally little;
    else the first that does."""
    areas: bool = False
    """Whether they run in blocks whose area is fitted to the map instead: the largest that the
    buffers hold once and that cover it best, with room for a next row of inputs."""
    sparse: bool = False
    """Whether a convolution takes half of the steps where two of every four input channels have
    zeros as weights. Known of weights are those of at most two channels, the rest of which are
    padding."""
    commands: Size
    """Blocks that are under way at once: read, computed, written."""
    scale_bytes: Size
    """Bytes of scales and biases that are read ahead of a block at once."""
    kind: Kind
    """Of these figures."""
    source: Source
    """Citation of these figures, or a key of `sources`."""

    def __post_init__(self) -> None:
        sizes = sorted({math.prod(one) for one in self.shapes})
        if len(sizes) > 1:
            raise ValueError(
                "expected micro-blocks of one size, in `row` too, got "
                f"{' and '.join(map(str, sizes))} outputs"
            )
        for one in self.shapes:
            if any(small > large for small, large in zip(one, self.largest, strict=True)):
                shown = " x ".join(map(str, one))
                raise ValueError(f"largest: not even a micro-block of {shown} outputs fits")

    @property
    def shapes(self) -> tuple[Block, ...]:
        """Shapes of a micro-block, that along a map of one row included."""
        return self.micro if self.row is None else (*self.micro, self.row)


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout(Entry):
    """The layout of blocks in the buffers, for inputs of so many bits."""

    bits: Size
    """Of an input element; other widths take the next more."""
    input_channels: Size
    """Input channels that a block is padded to."""
    input_banks: Size = 1
    """Banks that the inputs of a block are allocated in."""
    unit: Size | None = None
    """Bytes of channels that all places of a micro-block lie beside one another with; blocks of
    twice and four times as many lie in units of half and a quarter of the places. None: always of
    all."""
    accumulator_bits: Size
    """Of one accumulator."""
    accumulator_banks: Size = 1
    """Banks that the accumulators of a block are allocated in."""

    def __post_init__(self) -> None:
        if self.accumulator_bits < self.bits:
            raise ValueError(
                f"accumulator_bits: {self.accumulator_bits} bits hold no sums of inputs of "
                f"{self.bits} bits"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Buffers(Entry):
    """Memory inside of the NPU for blocks: one that inputs and accumulators share, or two.

    Raises:
        ValueError: Neither a shared one, nor both of the others.
    """

    shared: Capacity | None = None
    """The one that inputs and accumulators share."""
    inputs: Capacity | None = None
    """Instead, with `accumulators`: the one of inputs."""
    accumulators: Capacity | None = None
    """The one of accumulators."""
    copies: Size = 2
    """Blocks of each that are held: the next one is read while one is computed."""
    bank: Size = 1
    """Bytes of a bank."""
    layouts: Annotated[tuple[Layout, ...], Field(min_length=1)]
    """Padding and banks, by bits of an input."""

    def __post_init__(self) -> None:
        apart = self.inputs is not None and self.accumulators is not None
        if apart == (self.shared is not None):
            raise ValueError("expected either `shared` or both `inputs` and `accumulators`")

    def hold(self, input_bytes: int, sums: int, layout: Layout) -> bool:
        """Whether a block of so many bytes of inputs and so many accumulators fits."""
        inputs = self._allocated(input_bytes, layout.input_banks)
        room = self._allocated(sums * layout.accumulator_bits // 8, layout.accumulator_banks)
        if self.shared is not None:
            return inputs + room <= self.shared.value
        assert self.inputs is not None, "checked when it was made"
        assert self.accumulators is not None, "checked when it was made"
        return inputs <= self.inputs.value and room <= self.accumulators.value

    def _allocated(self, count: int, granule: int) -> int:
        banks = -(-count // self.bank) * self.copies
        return -(-banks // granule) * granule * self.bank

    def layout(self, bits: int) -> Layout | None:
        """The layout for inputs of so many bits, or of the next more; None: there is none."""
        fitting = [one for one in self.layouts if one.bits >= bits]
        return min(fitting, key=lambda one: one.bits, default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Steps(Entry):
    """The steps of one walk, for inputs of so many bits."""

    walk: Walk
    """Order: input channels first (`depth`), taps of the kernel first (`taps`), every channel with
    its own kernel (`depthwise`), every channel without weights (`pool`)."""
    bits: Size
    """Of an input element; other widths take the next more."""
    cycles: Cycles
    """Of one step of a micro-block."""
    taps: Size = 1
    """Taps that a step covers."""
    inputs: Size = 1
    """Input channels that a step covers."""
    granule: Size | None = None
    """Input channels that shorten a step where fewer than `inputs` are there; none: it takes as
    long."""
    block_inputs: Size | None = None
    """Input channels of a block; none: those of its outputs."""
    least_taps: Size = 1
    """Taps that any kernel counts as."""
    least_cycles: Delay = 0.0
    """Of a step over all micro-blocks of a plane: its weights take as long to decode."""
    chosen_by_inputs: Size | None = None
    """Input channels that the compiler reckons a step with when it chooses between walking by
    depth and by taps; none: those of the step."""
    chosen_by_taps: Size | None = None
    """Taps that it reckons a step with then; none: those of the step."""
    rest_taps: Size | None = None
    """Taps that it counts at least for what is left over, and where nothing is; none: a whole step
    for what is."""

    def __post_init__(self) -> None:
        if self.granule is not None and self.granule > self.inputs:
            raise ValueError(
                f"granule: {self.granule} channels are more than a step's {self.inputs} inputs"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputUnit(Entry):
    """The unit that scales, adds, compares and writes results: cycles of one element."""

    product: Cycles
    """Sums of 32 bits, scaled."""
    wide_product: Cycles
    """Sums of more bits, scaled."""
    add: Cycles
    """Of two tensors."""
    multiply: Cycles
    """Of two tensors, to 8 or 16 bits."""
    wide_multiply: Cycles
    """To 32 bits."""
    maximum: Cycles
    """Of a pool."""
    other: Cycles
    """Copied, converted, or compared."""
    lookup: Cycles
    """With a table, as sigmoid and tanh are, if that takes longer than the rest."""
    chains: bool = False
    """Whether it takes in a second tensor while it writes a product's results."""
    products_of_activations: bool = False
    """Whether the array multiplies two activations; else every column of their product is an
    elementwise multiplication and a sum of it."""
    softmax_passes: Cycles
    """Times that a softmax, as it is compiled, goes through its elements at `other`."""
    kind: Kind
    """Of these figures."""
    source: Source
    """Citation of these figures, or a key of `sources`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightStream(Entry):
    """The coded stream that weights are stored as: an assumption about weights, not about a chip.

    Raises:
        ValueError: No bytes at all, or one of `share` and `padding` without the other.
    """

    elements: Annotated[tuple[Element, ...], Field(min_length=1)]
    """Weights that the decoder takes."""
    share: Annotated[float, Field(gt=0, le=2), BeforeValidator(no_flag)] | None = None
    """Bytes that are stored for a byte of weights. Networks trained to 8 bits with a scale a
    channel take 0.85 to 1; pruned or clustered ones less. None: the entropy of normal weights."""
    padding: Annotated[float, Field(ge=0, le=2), BeforeValidator(no_flag)] | None = None
    """Bytes for a zero that fills up the last step or micro-block, where `share` is
    given. None: what it takes to say where they are."""
    channel_bytes: Size
    """Scale and bias of an output channel."""
    align: Size
    """Bytes that a stream is a multiple of."""
    kind: Kind
    """Of these figures."""
    source: Source
    """Citation of these figures, or a key of `sources`."""

    def __post_init__(self) -> None:
        if (self.share is None) != (self.padding is None):
            given, lacking = ("share", "padding") if self.padding is None else ("padding", "share")
            raise ValueError(
                f"`{given}` without `{lacking}`: give both, or neither, then weights take their "
                "entropy"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Port(Entry):
    """The NPU's way to one memory of the device."""

    memory: str
    """Name of one of `memories`."""
    burst: Size
    """Bytes of a full burst; shorter pieces take as long."""
    read_latency: Delay
    """Cycles until a read's first burst is there."""
    write_latency: Delay
    """Cycles until a write is done."""
    outstanding: Size | None = None
    """Bursts that are under way at most; none: enough to hide the latency."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Channels(Entry):
    """Bytes that each kind of traffic has under way at most; none: as many as a port takes."""

    input: Size | None = None
    """Of activations."""
    weight: Size | None = None
    """Of coded weights."""
    scale: Size | None = None
    """Of scales and biases."""
    copy: Size | None = None
    """From one memory to another."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Npu(Entry):
    """A block-wise NPU.

    Raises:
        ValueError: Steps that repeat, walks without steps, bits without a layout.
    """

    system: Name
    """The memory system that ports and bandwidths are those of, in its vendor's words."""
    arena: str
    """Memory that holds activations."""
    blocks: Blocks
    """Blocks of outputs."""
    buffers: Buffers
    """Memory for blocks inside of the NPU."""
    steps: Annotated[tuple[Steps, ...], Field(min_length=1)]
    """Steps over a block, by walk and bits of an input."""
    output: OutputUnit
    """The unit that scales and writes results: cycles of one element, by what it does."""
    weights: WeightStream
    """The coded stream of weights."""
    ports: Annotated[tuple[Port, ...], Field(min_length=1)]
    """Ways to the memories; the arena and the first memory need one."""
    channels: Channels = Channels()
    """Bytes under way."""
    brick: Annotated[Size, Field(le=MOST_CHANNELS)] = 16
    """Channels that maps are stored in."""
    kind: Kind
    """Of the figures of buffers, steps, ports and channels."""
    source: Source
    """Citation of those, or a key of `sources`."""

    def __post_init__(self) -> None:
        found = [(one.walk, one.bits) for one in self.steps]
        if twice := sorted(pair for pair in set(found) if found.count(pair) > 1):
            walk, bits = twice[0]
            raise ValueError(f"steps: two of the walk {walk} for inputs of {bits} bits")
        for bits in sorted({one.bits for one in self.steps}):
            walks = {one.walk for one in self.steps if one.bits == bits}
            if missing := [walk for walk in NEEDED if walk not in walks]:
                raise ValueError(
                    f"steps: inputs of {bits} bits lack the walk {' and '.join(missing)}"
                )
            if self.buffers.layout(bits) is None:
                raise ValueError(f"buffers.layouts: none for inputs of {bits} bits")
        if self.blocks.areas and self.buffers.shared is not None:
            raise ValueError(
                "blocks.areas: areas are fitted to a buffer of inputs and one of accumulators; "
                "give `inputs` and `accumulators` in place of `shared`, or leave it out"
            )
        entries = [f"ports: the memory {one.memory}" for one in self.ports]
        entries += [f"buffers.layouts: {one.bits} bits" for one in self.buffers.layouts]
        if repeated := [one for one, count in Counter(entries).items() if count > 1]:
            raise ValueError(f"{repeated[0]} has two entries; keep one")

    def step(self, walk: Walk, bits: int) -> Steps | None:
        """The steps of a walk for inputs of so many bits, or of the next more; None: no such."""
        fitting = [one for one in self.steps if one.walk == walk and one.bits >= bits]
        return min(fitting, key=lambda one: one.bits, default=None)

    def macs_per_cycle(self, bits: int) -> float:
        """Multiply-accumulates a cycle of a walk by depth over such inputs; 0 without one."""
        step = self.step("depth", bits)
        if step is None:
            return 0.0
        return math.prod(self.blocks.micro[0]) * self.blocks.cores * step.inputs / step.cycles

    def port(self, memory: str) -> Port:
        """The port to a memory of the device that has one (`hwmodels.devices.check`)."""
        return next(port for port in self.ports if port.memory == memory)
