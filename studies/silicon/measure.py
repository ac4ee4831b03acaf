"""Runs matrix products on one CUDA device and records parts of their outputs.

`python studies/silicon/measure.py OUT.npz`; nothing is judged here, see `run.py`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from itertools import product as every

import numpy as np
import torch
from operands import COLUMNS, ROWS, Distribution, Product, operands
from torch import Tensor

DEPTHS = (128, 256, 512, 1024, 2048, 4096, 8192, 16384)
DISTRIBUTIONS: tuple[Distribution, ...] = ("normal", "positive", "outliers")
SEEDS = range(4)
LARGE = (2048, 2048)
"""Large enough for a kernel that does not split the depth."""
SHAPES = ((16, 2048), (64, 4096), (128, 128), (512, 512), (4096, 4096))
GROUP = 32
"""Weights that share a scale in the int4 product."""
Run = Callable[[Tensor, Tensor], Tensor]


def scaled(dtype_a: torch.dtype, dtype_b: torch.dtype, *, fast: bool) -> Run:
    """torch's FP8 product with scales of one and a float32 result: the accumulator as it is."""

    def run(a: Tensor, b: Tensor) -> Tensor:
        one = torch.ones((), device="cuda")
        return torch._scaled_mm(
            a.to(dtype_a), b.to(dtype_b).t(), scale_a=one, scale_b=one,
            out_dtype=torch.float32, use_fast_accum=fast,
        )  # fmt: skip

    return run


def row_scaled(*, fast: bool) -> Run:
    """The same with a scale per row and column, another kernel; it writes bfloat16 only."""

    def run(a: Tensor, b: Tensor) -> Tensor:
        e4m3 = torch.float8_e4m3fn
        return torch._scaled_mm(
            a.to(e4m3), b.to(e4m3).t(), scale_a=torch.ones(len(a), 1, device="cuda"),
            scale_b=torch.ones(1, len(b), device="cuda"), out_dtype=torch.bfloat16,
            use_fast_accum=fast,
        )  # fmt: skip

    return run


def half(dtype: torch.dtype) -> Run:
    """A product of 16-bit floats that is not rounded to 16 bits."""

    def run(a: Tensor, b: Tensor) -> Tensor:
        return torch.mm(a.to(dtype), b.to(dtype).t(), out_dtype=torch.float32)

    return run


def integers(a: Tensor, b: Tensor) -> Tensor:
    """int8 codes, summed in int32."""
    return torch._int_mm(a.to(torch.int8), b.to(torch.int8).t())


def packed_int4(a: Tensor, b: Tensor) -> Tensor:
    """bfloat16 activations with packed 4-bit weights of bfloat16 scales; written in bfloat16."""
    scales = (b.reshape(len(b), -1, GROUP).abs().amax(2) / 7).bfloat16()
    codes = torch.round(b / scales.float().repeat_interleave(GROUP, 1)).clamp(-7, 7) + 8
    codes = codes.to(torch.uint8)
    packed = torch.ops.aten._convert_weight_to_int4pack(codes[:, ::2] << 4 | codes[:, 1::2], 8)
    both = torch.stack([scales, torch.zeros_like(scales)], dim=2).transpose(0, 1).contiguous()
    return torch.ops.aten._weight_int4pack_mm(a.bfloat16(), packed, GROUP, both)


E4M3, E5M2 = torch.float8_e4m3fn, torch.float8_e5m2
KERNELS: dict[str, tuple[str, str, Run]] = {
    # what fills the operands on both sides, and what multiplies them
    "fp8_fast": ("e4m3", "e4m3", scaled(E4M3, E4M3, fast=True)),
    "fp8_precise": ("e4m3", "e4m3", scaled(E4M3, E4M3, fast=False)),
    "fp8_e5m2_fast": ("e5m2", "e4m3", scaled(E5M2, E4M3, fast=True)),
    "fp8_rows_fast": ("e4m3", "e4m3", row_scaled(fast=True)),
    "fp8_rows_precise": ("e4m3", "e4m3", row_scaled(fast=False)),
    "bf16": ("bf16", "bf16", half(torch.bfloat16)),
    "fp16": ("fp16", "fp16", half(torch.float16)),
    "int8": ("fixed8_0", "fixed8_0", integers),
    "int4": ("bf16", "bf16", packed_int4),
}


def products() -> Iterator[Product]:
    """Every product that is measured."""
    for kernel in KERNELS:
        for depth, distribution, seed in every(DEPTHS, DISTRIBUTIONS, SEEDS):
            yield Product(
                kernel=kernel, rows=LARGE[0], columns=LARGE[1], depth=depth,
                distribution=distribution, seed=seed,
            )  # fmt: skip
        for (rows, columns), depth in every(SHAPES, (1024, 4096, 16384)):
            yield Product(
                kernel=kernel, rows=rows, columns=columns, depth=depth,
                distribution="normal", seed=0,
            )  # fmt: skip


def measured(product: Product) -> np.ndarray:
    """The first outputs of a product whose other rows and columns hold noise."""
    left, right, run = KERNELS[product.kernel]
    a, b = operands(product, left, right)
    return (
        run(_filled(a, product.rows), _filled(b, product.columns))[:ROWS, :COLUMNS]
        .float()
        .cpu()
        .numpy()
    )


def _filled(values: Tensor, slices: int) -> Tensor:
    found = torch.randint(-8, 9, (slices, values.shape[1]), device="cuda").float()
    found[: len(values)] = values.cuda()
    return found


def main() -> None:
    """Measures every product; what torch refuses is named and left out."""
    found = {}
    for product in products():
        try:
            found[product.key] = measured(product)
        except RuntimeError as error:
            print(f"{product.key}: {str(error).splitlines()[0]}", flush=True)
    versions = f"torch {torch.__version__}, CUDA {torch.version.cuda}"
    device = f"{torch.cuda.get_device_name()}, {versions}"
    print(f"{len(found)} products on {device}")
    np.savez_compressed(sys.argv[1], device=np.array(device), **found)  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
