"""Which accumulator explains the tensor cores? Fits on some recorded products, checks on others.

`python studies/silicon/run.py` reads `results/gemm.npz`, which `measure.py` recorded on an H100,
and writes `results/fit.csv` and `results/errors.csv`. No GPU is needed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product as every
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from measure import GROUP, KERNELS
from operands import Product, operands, product_of
from torch import Tensor

from dse.numerics import ACCUMULATORS, Accumulator, matmul
from hwmodels.formats.quantizer import Rounding

RESULTS = Path(__file__).parent / "results"
FIT_SEEDS = (0, 1)
FIT_DEPTHS = (256, 1024)
FITTED = ("fp8_fast", "fp8_precise", "bf16", "fp16")
MODELS: Mapping[str, str] = {
    "fp8_fast": "hopper_fp8", "fp8_e5m2_fast": "hopper_fp8", "fp8_rows_fast": "hopper_fp8",
    "fp8_precise": "hopper_fp8_promoted", "fp8_rows_precise": "hopper_fp8_promoted",
    "bf16": "hopper_16bit", "fp16": "hopper_16bit", "int4": "hopper_16bit", "int8": "int32",
}  # fmt: skip
"""What each kernel is emulated by."""
IN_BF16 = ("fp8_rows_fast", "fp8_rows_precise", "int4")
"""Kernels that write bfloat16."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """A product, its operands as the kernel multiplies them, and what the device returned."""

    product: Product
    left: Tensor
    right: Tensor
    output: Tensor


def measurements(kernel: str) -> Iterator[Measurement]:
    """All recorded products of a kernel."""
    with np.load(RESULTS / "gemm.npz") as recorded:
        keys = [key for key in recorded.files if key.startswith(f"{kernel}/")]
        outputs = [torch.from_numpy(recorded[key]) for key in keys]
    for key, output in zip(keys, outputs, strict=True):
        product = product_of(key)
        left, right = operands(product, *KERNELS[kernel][:2])
        if kernel == "int4":
            right = unpacked_int4(right)
        yield Measurement(product=product, left=left, right=right.T, output=output)


def unpacked_int4(weights: Tensor) -> Tensor:
    """4-bit codes times scales, rounded to bfloat16: what the kernel hands to the tensor core."""
    scales = (weights.reshape(len(weights), -1, GROUP).abs().amax(2) / 7).bfloat16().float()
    spread = scales.repeat_interleave(GROUP, 1)
    return ((weights / spread).round().clamp(-7, 7) * spread).bfloat16().float()


def emulated(found: Measurement, accumulator: Accumulator) -> Tensor:
    """The product through `dse.numerics`."""
    left, right = found.left, found.right
    if accumulator.kind == "integer":
        left, right = left.long(), right.long()
    result = matmul(left, right, accumulator).float()
    return result.bfloat16().float() if found.product.kernel in IN_BF16 else result


def candidates(kernel: str) -> Iterator[Accumulator]:
    """Accumulators that differ in block, alignment, sum, rounding and promotion."""
    fp8 = kernel.startswith("fp8")
    chunks = (8, 16, 32, 64) if fp8 else (4, 8, 16, 32)
    alignments = (11, 12, 13, 14, 15, 0) if fp8 else (23, 24, 25, 26, 0)
    sums = ("e8m12", "e8m13", "e8m14", "fp32") if fp8 else ("fp32",)
    promotions = (0, 64, 128, 256) if fp8 else (0,)
    roundings: tuple[Rounding, ...] = ("zero", "nearest_even")
    for chunk, alignment, encoding, rounding, promotion in every(
        chunks, alignments, sums, roundings, promotions
    ):
        yield Accumulator(
            name=f"{chunk}/{alignment}/{encoding}/{rounding}/{promotion}", kind="float",
            encoding=encoding, rounding=rounding, chunk=chunk, alignment_bits=alignment,
            promote_every=promotion,
        )  # fmt: skip


def is_for_fitting(product: Product) -> bool:
    """The rest is looked at once."""
    return product.seed in FIT_SEEDS and product.depth in FIT_DEPTHS and product.rows == 2048


def fits(kernel: str) -> pd.DataFrame:
    """Share of outputs that are equal bit for bit, by candidate; the ten best."""
    known = list(measurements(kernel))
    fitting = [found for found in known if is_for_fitting(found.product)]
    unseen = [found for found in known if not is_for_fitting(found.product)]
    rows = [(equal(fitting, model), model) for model in candidates(kernel)]
    best = sorted(rows, key=lambda row: -row[0])[:10]
    return pd.DataFrame(
        {
            "kernel": kernel, "products_in_a_block": model.chunk,
            "fraction_bits_kept": model.alignment_bits or "all", "running_sum": model.encoding,
            "rounding": model.rounding, "promoted_every": model.promote_every or "never",
            "equal_fitted": share, "equal_held_out": equal(unseen, model),
        }
        for share, model in best
    )  # fmt: skip


def equal(found: Sequence[Measurement], model: Accumulator) -> float:
    """Share of outputs with the bits of the device."""
    same = [(emulated(one, model) == one.output).float().mean().item() for one in found]
    return float(np.mean(same))


def split(found: Measurement, model: Accumulator) -> tuple[int, Tensor]:
    """In how many parts of the depth the kernel summed, and what the model makes of that.

    One part where its bits are the device's, else the number of parts that gives most of them;
    parts are whole tiles, and their float32 sums are added in order.
    """
    whole = emulated(found, model)
    if model.kind == "integer" or found.product.kernel == "int4" or whole.equal(found.output):
        return 1, whole
    parted = {
        (parts, tile): summed_in_parts(found, model, parts, tile)
        for parts in range(2, 17)
        for tile in (64, 128)
    }
    best = max(parted, key=lambda key: int((parted[key] == found.output).sum()))
    return best[0], parted[best]


def summed_in_parts(found: Measurement, model: Accumulator, parts: int, tile: int) -> Tensor:
    """The sum over parts of equally many tiles, the last one perhaps fewer."""
    depth = found.product.depth
    length = -(-depth // tile // parts) * tile
    total = torch.zeros_like(found.output)
    for first in range(0, depth, length):
        part = slice(first, first + length)
        total += matmul(found.left[:, part], found.right[part], model)
    return total


def errors(kernel: str) -> Iterator[dict[str, object]]:
    """Error of the device and of a float32 sum against the exact product, and the model's bits."""
    for found in measurements(kernel):
        product = found.product
        exact = found.left.double() @ found.right.double()
        scale = exact.square().mean().sqrt()
        parts, model = split(found, ACCUMULATORS[MODELS[kernel]])
        sequential = emulated(found, ACCUMULATORS["fp32"])
        device_error = (found.output.double() - exact) / scale
        model_error = (model.double() - exact) / scale
        yield {
            "kernel": kernel, "rows": product.rows, "columns": product.columns,
            "depth": product.depth, "distribution": product.distribution, "seed": product.seed,
            "parts": parts,
            "equal_to_model": (found.output == model).double().mean().item(),
            "equal_to_fp32": (found.output == sequential).double().mean().item(),
            "rms_device": device_error.square().mean().sqrt().item(),
            "rms_model": model_error.square().mean().sqrt().item(),
            "bias_device": device_error.mean().item(),
            "largest_device": device_error.abs().max().item(),
            "rms_fp32": ((sequential.double() - exact) / scale).square().mean().sqrt().item(),
        }  # fmt: skip


def main() -> None:
    """Writes both tables and prints what the README quotes."""
    best = pd.concat([fits(kernel) for kernel in FITTED])
    best.to_csv(RESULTS / "fit.csv", index=False, float_format="%.4f")
    print(best.groupby("kernel").head(4).to_string(index=False))
    table = pd.DataFrame(row for kernel in KERNELS for row in errors(kernel))
    table.to_csv(RESULTS / "errors.csv", index=False, float_format="%.4g")
    equality = table.groupby("kernel")[["equal_to_model", "equal_to_fp32"]]
    print(equality.agg(["mean", "min"]).to_string())
    print(table[table["parts"] > 1][["kernel", "rows", "columns", "depth", "parts"]].to_string())


if __name__ == "__main__":
    main()
