"""Operations as a block-wise NPU sees them: maps in, maps out, a window between."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

OperationKind = Literal["convolution", "product", "depthwise", "pool", "elementwise"]
"""The walk: a convolution, a product of rows (fully connected), a kernel a channel, a pool
without weights, one result an element."""
Result = Literal["product", "add", "multiply", "wide_multiply", "maximum", "other", "lookup"]
"""Work of the output unit on a result (`hwmodels.devices.npu.OutputUnit`)."""
Map = tuple[int, int, int]
"""Height, width, channels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One operation of the NPU; the batch is one."""

    kind: OperationKind
    source: Map
    """The map that is read."""
    target: Map
    """The map that is written."""
    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    filled_taps: int = 0
    """Places of the kernel that a compiler has filled with zeros."""
    result: Result = "product"
    chained: tuple[Result, ...] = ()
    """Work on results besides, before they are written."""
    bits: int = 8
    """Of an input."""
    target_bits: int = 8
    weight_bits: float = 0.0
    """Of a weight, with its share of scales; 0: there are none."""
    element_bits: float | None = None
    """Of a weight alone; None: as many."""
    weights_are_activations: bool = False
    """Whether the second operand is read from the arena, as it is."""
    linear_source: bool = False
    """Whether what is read lies pixel after pixel, and not in bricks of channels."""
    linear_target: bool = False
    """The same of what is written."""
    others: int = 0
    """Further maps of the target's size that are read: residuals."""
    repeats: int = 1
    """Times that it runs: images of a batch, groups of a convolution."""

    @property
    def taps(self) -> int:
        """Places of the kernel."""
        return self.kernel[0] * self.kernel[1]

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one run."""
        height, width, channels = self.target
        places = height * width * channels * (self.taps - self.filled_taps)
        return {
            "convolution": places * self.source[2],
            "product": places * self.source[2],
            "depthwise": places,
        }.get(self.kind, 0)

    @property
    def weights(self) -> int:
        """Weights without padding."""
        if not self.weight_bits:
            return 0
        depth = 1 if self.kind == "depthwise" else self.source[2]
        return (self.taps - self.filled_taps) * depth * self.target[2]

    @property
    def reach(self) -> tuple[int, int]:
        """Extent of the kernel over the input, with its dilation."""
        return (
            (self.kernel[0] - 1) * self.dilation[0] + 1,
            (self.kernel[1] - 1) * self.dilation[1] + 1,
        )

    @property
    def equal_depth(self) -> bool:
        """Whether a channel of the target reads its own channel of the source only."""
        return self.kind in ("depthwise", "pool", "elementwise")
