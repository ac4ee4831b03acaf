"""Matrix products of a linear layer, by number type: activation (M, K), weight (N, K)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch.nn import functional

from dse.profile.arena import Operand

Function = Callable[..., torch.Tensor]
Built = tuple[Function, tuple[Operand, ...]]
Sizes = Mapping[str, int]

FP8 = torch.float8_e4m3fn
FP8_LARGEST = 448.0
INT8_LARGEST = 127.0
SMALLEST_SCALE = 1e-12
"""Keeps a row of zeros from dividing by zero."""
GROUP = 128
"""Elements along K that share a scale in 4-bit weights."""
INNER_TILES = 8
"""Number of 16-wide tiles of K that torch's packed int4 layout keeps together."""


def _dense(dtype: torch.dtype) -> Callable[[Sizes, torch.device], Built]:
    def build(sizes: Sizes, _device: torch.device) -> Built:
        return functional.linear, _operands(sizes, dtype, dtype)

    return build


def _fp8(*, fast: bool) -> Callable[[Sizes, torch.device], Built]:
    """One static scale a tensor; `fast`: partial sums stay in the tensor core's precision."""

    def build(sizes: Sizes, device: torch.device) -> Built:
        one = torch.ones((), device=device)

        def multiply(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
            return torch._scaled_mm(
                x, weight.t(), scale_a=one, scale_b=one, out_dtype=torch.bfloat16,
                use_fast_accum=fast,
            )  # fmt: skip

        return multiply, _operands(sizes, FP8, FP8)

    return build


def _fp8_dynamic(sizes: Sizes, device: torch.device) -> Built:
    """A scale a token, found in the call, and a scale an output channel."""
    channel = torch.ones((1, sizes["N"]), device=device)

    def multiply(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        scale = _row_scale(x, FP8_LARGEST)
        narrow = (x / scale).clamp(-FP8_LARGEST, FP8_LARGEST).to(FP8)
        return torch._scaled_mm(
            narrow, weight.t(), scale_a=scale, scale_b=channel, out_dtype=torch.bfloat16,
            use_fast_accum=True,
        )  # fmt: skip

    return multiply, _operands(sizes, torch.bfloat16, FP8)


def _int8(sizes: Sizes, _device: torch.device) -> Built:
    def multiply(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return torch._int_mm(x, weight.t())

    return multiply, _operands(sizes, torch.int8, torch.int8)


def _int8_dynamic(sizes: Sizes, device: torch.device) -> Built:
    """A scale a token, found in the call, and a scale an output channel."""
    channel = torch.ones((1, sizes["N"]), device=device)

    def multiply(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        scale = _row_scale(x, INT8_LARGEST)
        narrow = (x / scale).round().clamp(-INT8_LARGEST, INT8_LARGEST).to(torch.int8)
        return (torch._int_mm(narrow, weight.t()) * scale * channel).to(torch.bfloat16)

    return multiply, _operands(sizes, torch.bfloat16, torch.int8)


def _row_scale(x: torch.Tensor, largest: float) -> torch.Tensor:
    return (x.abs().amax(dim=-1, keepdim=True).float() / largest).clamp(min=SMALLEST_SCALE)


def _w8a16(sizes: Sizes, device: torch.device) -> Built:
    channel = torch.ones(sizes["N"], dtype=torch.bfloat16, device=device)

    def multiply(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return torch._weight_int8pack_mm(x, weight, channel)

    return multiply, _operands(sizes, torch.bfloat16, torch.int8)


def _w4a16(sizes: Sizes, device: torch.device) -> Built:
    """Weights in torch's packed layout, scale and zero point a group."""
    n, k = sizes["N"], sizes["K"]
    scales = torch.ones((k // GROUP, n, 2), dtype=torch.bfloat16, device=device)
    x = Operand(shape=(sizes["M"], k), dtype=torch.bfloat16)
    if device.type == "cpu":
        packed = Operand(shape=(n, k // 2), dtype=torch.uint8)
        product = torch.ops.aten._weight_int4pack_mm_for_cpu
    else:
        tiles = (n // 8, k // (INNER_TILES * 16), 32, INNER_TILES // 2)
        packed = Operand(shape=tiles, dtype=torch.int32)
        product = torch.ops.aten._weight_int4pack_mm

    def multiply(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = product(x, weight, GROUP, scales)
        return result

    return multiply, (x, packed)


def _operands(sizes: Sizes, x: torch.dtype, weight: torch.dtype) -> tuple[Operand, Operand]:
    m, k, n = sizes["M"], sizes["K"], sizes["N"]
    return Operand(shape=(m, k), dtype=x), Operand(shape=(n, k), dtype=weight)


GEMMS: dict[str, Callable[[Sizes, torch.device], Built]] = {
    "fp32": _dense(torch.float32),
    "tf32": _dense(torch.float32),
    "fp16": _dense(torch.float16),
    "bf16": _dense(torch.bfloat16),
    "fp8": _fp8(fast=True),
    "fp8_precise": _fp8(fast=False),
    "fp8_dynamic": _fp8_dynamic,
    "int8": _int8,
    "w8a8_int8_dynamic": _int8_dynamic,
    "w8a16": _w8a16,
    "w4a16": _w4a16,
}
