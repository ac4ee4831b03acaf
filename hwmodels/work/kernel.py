"""One kernel launch as an estimator sees it, and what it costs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from hwmodels.work.cost import Bound

KernelKind = Literal[
    "gemm", "conv2d", "attention", "pointwise", "rowwise", "reduce", "embedding", "quantize",
    "collective",
]  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """One kernel launch: sizes, elements that are multiplied, bytes that cross its border.

    Sizes: `gemm` B (batch), M, N, K; `conv2d` the same as an implicit GEMM (B groups, M output
    pixels, N output channels of a group, K taps), and `taps` = kernel height x width; `attention`
    B, H, HK, S, L, D, causal; `collective` ways (GPUs that take part; its detail is what they do);
    the others `rows` and `cols` where they are known.
    """

    kind: KernelKind
    detail: str = ""
    sizes: Mapping[str, int]
    weight_element: str = ""
    """Element of the second operand (weight, key) in the unit; empty where nothing multiplies."""
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

    @property
    def macs(self) -> int:
        """Multiply-accumulates; zero for kernels that do not contract.

        Causal attention counts the lower triangle only, which is what its kernels compute.
        """
        s = self.sizes
        if self.kind in ("gemm", "conv2d"):
            return s["B"] * s["M"] * s["N"] * s["K"]
        if self.kind == "attention":
            pairs = s["S"] * s["L"]
            if s.get("causal"):
                pairs -= s["S"] * (s["S"] - 1) // 2
            return 2 * s["B"] * s["H"] * s["D"] * pairs
        return 0

    @property
    def bytes(self) -> int:
        """Bytes that cross the kernel's border once."""
        return self.input_bytes + self.weight_bytes + self.other_bytes + self.write_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelCost:
    """What one launch costs."""

    latency_s: float
    low_s: float
    high_s: float
    energy_j: float
    traffic_bytes: float
    bound: Bound
