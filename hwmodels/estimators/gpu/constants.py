"""Efficiencies and latencies of GPU kernels that no datasheet has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class MoveConstants:
    """Kernels that only move data, of one kind."""

    efficiency: float
    """Share of main-memory bandwidth: refresh, and turning between reads and writes, take the
    rest; a kernel with more streams, or that waits for a row's sum, has fewer bytes in flight."""
    ramp_cycles: float
    """Beside the launch: filling the memory pipeline once, and the tail of the last blocks. In
    cycles, as on-chip latencies are, so that it carries over to devices of another clock."""
    step_cycles: float = 0.0
    """Per element of a row that one block reduces alone: the sum is a chain of dependent steps,
    whatever the bandwidth."""
    cache_efficiency: float = 1.0
    """Share of the last-level cache's bandwidth; 1 where nothing warm was measured."""
    by_element: bool = False
    """Whether a step an element rules (an address, a comparison), and not its bytes: both shares
    are those of 16 bits and grow with the element, up to what a kernel of bytes reaches."""


LAYOUTS = {
    "strided": MoveConstants(
        efficiency=0.85, ramp_cycles=1840, cache_efficiency=0.20, by_element=True
    ),
    "concat": MoveConstants(
        efficiency=0.55, ramp_cycles=1730, cache_efficiency=0.22, by_element=True
    ),
    "maps_maxpool": MoveConstants(
        efficiency=0.20, ramp_cycles=41000, cache_efficiency=0.15, by_element=True
    ),
    "maps_averagepool": MoveConstants(
        efficiency=0.13, ramp_cycles=5400, cache_efficiency=0.06, by_element=True
    ),
    "maps_mean": MoveConstants(efficiency=0.55, ramp_cycles=13000, by_element=True),
    "whole_reduction": MoveConstants(efficiency=0.73, ramp_cycles=2100, step_cycles=0.21),
    "split_reduction": MoveConstants(efficiency=0.73, ramp_cycles=12800, step_cycles=0.21),
    "int8pack_mm": MoveConstants(efficiency=0.85, ramp_cycles=1600, step_cycles=4.5),
}
"""Kernels of eager torch that are in no operator table (`launches`).

Drawn by hand through `studies/gpu_latency/results/layouts.csv`, `int8pack_mm` through three
products of `studies/profile_h100/results/ops.csv.gz`, the two reductions of whole tensors through
the 13 rows of `quant_fp8` in `data/h100_torch/ops.csv.gz`, which have one kernel on the scale
(mean |log ratio| 0.04); no artefact holds them.
"""
MOVES = {
    "pointwise": MoveConstants(efficiency=0.90, ramp_cycles=440, cache_efficiency=0.60),
    "softmax": MoveConstants(efficiency=0.56, ramp_cycles=4700, step_cycles=0.12),
    "layernorm": MoveConstants(efficiency=0.57, ramp_cycles=2700, step_cycles=1.73),
    "rmsnorm": MoveConstants(efficiency=0.61, ramp_cycles=1330, step_cycles=1.17),
    "reduce": MoveConstants(efficiency=0.73, ramp_cycles=2830),
    "embedding": MoveConstants(efficiency=0.95, ramp_cycles=1330),
    "quantize": MoveConstants(efficiency=0.87, ramp_cycles=520),
    **LAYOUTS,
}
"""By `Kernel.detail`, or by kind where a detail has none (`rowwise` as `layernorm`).

Fitted to an operator table (`hwmodels.fit.kernels`), but for `LAYOUTS` and the cache's share of
`pointwise` (a chain of 220 kernels in `layouts.csv`).
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvolutionConstants:
    """Implicit GEMMs, and depthwise convolutions on the vector unit."""

    efficiency: float = 0.65
    """Share of the matrix unit's rate; below a GEMM's, as addresses of taps are computed too."""
    ramp_cycles: float = 8300.0
    """Of kernels with more than one tap, launch included."""
    unaligned_efficiency: float = 0.030
    """Share where a tap has no whole vector of channels (`MATRIX_CHANNELS`): an image's three."""
    unaligned_ramp_cycles: float = 13500.0
    depthwise_efficiency: float = 0.067
    """Share of the vector unit's rate: a channel meets its own taps only, so that each loaded
    element is used a few times and loads rule."""
    depthwise_ramp_cycles: float = 4000.0
    """Beside the launch."""
    dram_efficiency: float = 0.85
    fp32_efficiency: float = 0.40
    """Share of the vector unit's rate, without TF32."""
    fp32_ramp_cycles: float = 22900.0
    fp32_step_cycles: float = 48.4
    """Per element of K that one block walks along: these kernels don't split it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionConstants:
    """Fused attention; fp32 has neither tensor cores nor a kernel with grouped heads."""

    efficiency: float = 0.48
    ramp_cycles: float = 8200.0
    """Beside the launch."""
    dram_efficiency: float = 0.80
    fp32_efficiency: float = 0.20
    """Share of the vector unit's rate."""
    fp32_step_cycles: float = 150.0
    """Per key that one block walks along: decoding is not split along the keys."""
    fp32_expansions: float = 4.75
    """Number of moves of keys and values, repeated for every query head where they are grouped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SkeletonConstants:
    """All constants of the skeleton.

    Those of GEMMs are fitted by `python -m hwmodels.fit` to the 16-bit GEMM tables of four GPUs
    (least mean |log ratio|, devices weighted equally, drawn towards these round defaults, which
    keeps what the tables do not determine); the others to one H100 (`hwmodels.fit.kernels`).
    """

    compute_efficiency: float = 0.75
    """Share of the peak rate that a full wave of tiles reaches: its main loop loads as well."""
    tile_efficiency: float = 10.0
    """Above 1: clusters and multicast let tiles share what they read."""
    dram_efficiency: float = 0.85
    """Share of main-memory bandwidth; refresh and turning between reads and writes take the rest
    on every memory, which is why one number does for GDDR and HBM."""
    cache_efficiency: float = 0.50
    """Share of the last-level cache's bandwidth; the least determined constant, because the tables
    of some devices hardly show their cache (`RIDGE` in `hwmodels.fit.skeleton`)."""
    core_bytes_per_cycle: float = 64.0
    """The most that one core draws, by its bytes in flight."""
    split_cycles: float = 4000.0
    """The reduction of a split along K."""
    step_cycles: float = 1.0
    """Pipeline latency per element of K that a tile walks along."""
    ramp_cycles: float = 5000.0
    """Launch, fill and drain of a GEMM kernel: in cycles, which is what carries over."""
    overlap: float = 2.0
    """Exponent p of the norm that joins computing and moving: 1 adds them, infinity is their
    maximum."""
    resident_share: float = 0.6
    """Bytes between two uses of an operand, as a share of the cache, up to which it is found.
    Ideal replacement would be a step at 1; hashed sets fill unevenly and other data pass too."""
    evicted_share: float = 1.2
    """The share from which on it is gone; in between linear. Both are set by hand: the fit leaves
    them out (`hwmodels.fit.skeleton.FITTED`)."""
    rows_per_core: int = 8
    """Rows (blocks) that one core reduces at a time."""
    moves: Mapping[str, MoveConstants] = field(default_factory=lambda: dict(MOVES))
    convolution: ConvolutionConstants = ConvolutionConstants()
    attention: AttentionConstants = AttentionConstants()

    def move(self, kind: str, detail: str) -> MoveConstants:
        """The constants of a kernel that moves data."""
        fallback = "layernorm" if kind == "rowwise" else kind
        return self.moves.get(detail) or self.moves[fallback]


CONSTANTS = SkeletonConstants()


def constants_to_json(constants: SkeletonConstants) -> dict[str, Any]:
    """Plain numbers by name."""
    return asdict(constants)


def constants_from_json(content: Mapping[str, Any]) -> SkeletonConstants:
    """The inverse of `constants_to_json`; `LAYOUTS` and what `content` lacks take the defaults."""
    moves = {name: asdict(entry) for name, entry in MOVES.items()}
    for name in content["moves"].keys() - LAYOUTS.keys():
        moves[name] = {**moves[name], **content["moves"][name]}
    nested = {
        "moves": {name: MoveConstants(**entry) for name, entry in moves.items()},
        "convolution": ConvolutionConstants(**content["convolution"]),
        "attention": AttentionConstants(**content["attention"]),
    }
    return SkeletonConstants(**{**content, **nested})
