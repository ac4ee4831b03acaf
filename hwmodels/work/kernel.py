"""One kernel launch as an estimator sees it, and what it costs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from hwmodels.errors import WorkError
from hwmodels.formats.quantizer import Format
from hwmodels.work.cost import Bound
from hwmodels.work.lookup import Algorithm, Lookup
from hwmodels.work.loops import (
    AttentionLoops,
    CollectiveLoops,
    ConvolutionLoops,
    Loops,
    ProductLoops,
    RowLoops,
)
from hwmodels.work.spatial_cost import SpatialCost

KernelKind = Literal[
    "gemm", "conv2d", "attention", "pointwise", "rowwise", "reduce", "embedding", "quantize",
    "collective", "tiled_gemm",
]  # fmt: skip
LOOPS_OF_KIND: dict[KernelKind, type] = {
    "gemm": ProductLoops,
    "tiled_gemm": ProductLoops,
    "conv2d": ConvolutionLoops,
    "attention": AttentionLoops,
    "collective": CollectiveLoops,
}
"""Loops that a kind of kernel must have; the others have `RowLoops`."""
UNKNOWN_ROWS = RowLoops()
MULTIPLYING: tuple[KernelKind, ...] = ("gemm", "tiled_gemm", "conv2d", "attention")


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """One kernel launch: its loop nest, its operands' formats, the bytes that cross its border.

    Formats say how operands are stored; elements say what the unit multiplies after it has
    widened them. Equal kernels cost the same, and a kernel is hashable: tables price each once.

    Raises:
        WorkError: Loops of another kind, or a kernel that multiplies operands without formats.
    """

    kind: KernelKind
    detail: str = ""
    """Name among kernels of its kind: `softmax`, `strided`; of a collective: `all_reduce`."""
    loops: Loops = UNKNOWN_ROWS
    input_format: Format | None = None
    """Of the first operand in memory; None only where nothing multiplies and none is read."""
    weight_format: Format | None = None
    """Of the second operand (weight, key); None where there is none."""
    output_format: Format | None = None
    grid: Format | None = None
    """Quantising kernels: the format whose scales they derive; they may store it in a wider one
    (an emulation)."""
    weight_element: str = ""
    """Element of the second operand in the unit; empty where nothing multiplies."""
    input_element: str = ""
    accumulator: str = "fp32"
    input_bytes: int = 0
    weight_bytes: int = 0
    """Bytes of the second operand: weights, keys and values, the right matrix of a batched one."""
    weight_is_cold: bool = True
    """Weights and caches come from main memory; the rest may still be in the last-level cache."""
    weight_copies: int = 1
    """Copies of a warm second operand that a measurement cycles through; 1 in a network."""
    other_bytes: int = 0
    """Further bytes read: residuals, biases, masks."""
    write_bytes: int = 0
    inputs_are_cold: bool = False
    """Measured with flushed caches: nothing is in the last-level cache."""
    efficiency: float = 1.0
    """Share of the unit's rate that the kernel can reach (`KernelMode.efficiency`)."""
    tile: tuple[int, int] = (0, 0)
    """Rows and columns of outputs of a `tiled_gemm`'s only tile (`KernelMode.tile`)."""
    algorithm: Algorithm = "direct"
    """Of a convolution on a processor (`KernelMode.convolution`)."""
    lookup: Lookup | None = None
    """The table of a kernel that looks products up (`KernelMode.lookup`)."""
    outliers: float = 0.0
    """Share of the weights that are multiplied apart (`KernelMode.outliers`)."""
    slack_cycles: float | None = None
    """On an NPU, cycles of the operation before in which weights can be copied to the arena; None:
    what runs before is unknown."""
    linear_input: bool | None = None
    """On an NPU, whether the first operand lies pixel after pixel, as what a caller hands over
    does, and not in bricks of channels; None: nobody knows who writes it."""
    linear_output: bool | None = None
    """The same of what is written."""

    def __post_init__(self) -> None:
        expected = LOOPS_OF_KIND.get(self.kind, RowLoops)
        if not isinstance(self.loops, expected):
            raise WorkError(
                f"kernel {self.kind}: expected {expected.__name__}, got {self.loops!r}"
            )
        if self.kind in MULTIPLYING and None in (self.input_format, self.weight_format):
            raise WorkError(f"kernel {self.kind}: the formats of both operands are needed")
        if (self.kind == "tiled_gemm") != (min(self.tile) > 0):
            raise WorkError(f"kernel {self.kind}: a tile is that of a tiled_gemm, got {self.tile}")

    @property
    def macs(self) -> int:
        """Multiply-accumulates; zero for kernels that do not contract."""
        return self.loops.macs

    @property
    def bytes(self) -> int:
        """Bytes that cross the kernel's border once."""
        return self.input_bytes + self.weight_bytes + self.other_bytes + self.write_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelCost:
    """The cost of one launch."""

    latency_s: float
    low_s: float
    high_s: float
    energy_j: float
    traffic_bytes: float
    bound: Bound
    spatial: SpatialCost | None = None
    """Cycles and traffic by level, where the estimator schedules the kernel on an array."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PricedKernel:
    """A kernel with what one launch of it costs."""

    kernel: Kernel
    cost: KernelCost


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelGroup:
    """Kernels whose predictions tend to be wrong alike."""

    kind: KernelKind
    formats: str
    """Elements of the operands in memory: `bf16`, `bf16 x int4`; empty where none is read."""
    bound: Bound

    @classmethod
    def of(cls, kernel: Kernel, bound: Bound) -> KernelGroup:
        """The group of a kernel that is bound so."""
        stored = (kernel.input_format, kernel.weight_format)
        names = dict.fromkeys(one.element.name for one in stored if one is not None)
        return cls(kind=kernel.kind, formats=" x ".join(names), bound=bound)


def by_group(times: Mapping[PricedKernel, float]) -> dict[KernelGroup, float]:
    """Seconds of groups of kernels, from those of every kernel."""
    found: dict[KernelGroup, float] = {}
    for one, seconds in times.items():
        group = KernelGroup.of(one.kernel, one.cost.bound)
        found[group] = found.get(group, 0.0) + seconds
    return found
