"""byte-gpt on FP8 tensor cores and emulated: how far apart are the two?

Every projection multiplies e4m3 operands with a scale a tensor and writes bfloat16; everything
else is float32 on the same device. `python studies/silicon/language_model.py OUT.csv` on one CUDA
device.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn

from dse.numerics import ACCUMULATORS, Accumulator, matmul, quantize
from dse.zoo import splits
from dse.zoo.catalogue import FOLDER
from dse.zoo.llama import Linear, Llama, LlamaConfig
from hwmodels.formats.catalog import quantizer

WINDOWS = 8
E4M3 = quantizer("e4m3_tensor")
E4M3_STEP = E4M3.format.element.min_subnormal
THREADS = 16
Multiply = Callable[[Tensor, Tensor], Tensor]
"""(tokens, inputs) x (inputs, outputs), both float32."""


def byte_gpt() -> Llama:
    """The zoo's weights in the module that they were trained in."""
    config = LlamaConfig(vocabulary=256, width=256, layers=6, heads=8, kv_heads=4, ffn_width=512)
    model = Llama(config)
    graph = onnx.load(FOLDER / "byte-gpt" / "model.onnx").graph
    known = model.state_dict()
    weights = {
        entry.name: torch.from_numpy(onnx.numpy_helper.to_array(entry).copy())
        for entry in graph.initializer
        if entry.name in known
    }
    model.load_state_dict(weights)
    return model.eval()


def scale_of(x: Tensor) -> Tensor:
    """What e4m3_tensor divides by; over a tensor, since CUDA divides by numbers inexactly."""
    largest = x.abs().amax()
    return largest / torch.full_like(largest, torch.finfo(torch.float8_e4m3fn).max)


def real(x: Tensor, weight: Tensor, *, fast: bool) -> Tensor:
    """The product on FP8 tensor cores, as serving runtimes call it."""
    scale_x, scale_w = scale_of(x), scale_of(weight)
    codes_x = (x / scale_x).to(torch.float8_e4m3fn)
    codes_w = (weight.t().contiguous() / scale_w).to(torch.float8_e4m3fn)
    return torch._scaled_mm(
        codes_x, codes_w.t(), scale_a=scale_x, scale_b=scale_w,
        out_dtype=torch.bfloat16, use_fast_accum=fast,
    )  # fmt: skip


def values_only(x: Tensor, weight: Tensor) -> Tensor:
    """What the executor does: emulated values in a float32 product."""
    return quantize(x, E4M3, axes=(1,)) @ quantize(weight, E4M3, axes=(0,))


def accumulated(x: Tensor, weight: Tensor, *, accumulator: Accumulator) -> Tensor:
    """Emulated codes, added as the accumulator adds; scales come last, as the kernel has it."""
    scale_x, scale_w = scale_of(x), scale_of(weight)
    a = _codes(quantize(x, E4M3, axes=(1,)), scale_x)
    b = _codes(quantize(weight, E4M3, axes=(0,)), scale_w)
    with ThreadPoolExecutor(THREADS) as pool:
        parts = list(pool.map(lambda rows: matmul(rows, b, accumulator), a.chunk(THREADS)))
    return torch.cat(parts) * (scale_x * scale_w)


def _codes(values: Tensor, scale: Tensor) -> Tensor:
    """Values over their scale, without the rounding that multiplying by it brought."""
    return torch.round(values / scale / E4M3_STEP) * E4M3_STEP


class Replaced(nn.Module):
    """A projection computed by another product, rounded to bfloat16."""

    def __init__(self, weight: Tensor, multiply: Multiply) -> None:
        super().__init__()
        self.weight, self.multiply = weight, multiply

    def forward(self, x: Tensor) -> Tensor:
        """Returns `x: (..., inputs)` times the weight: (..., outputs)."""
        product = self.multiply(x.flatten(0, -2), self.weight)
        return product.bfloat16().float().unflatten(0, x.shape[:-1])


def logits(tokens: Tensor, multiply: Multiply | None) -> Tensor:
    """Log-probabilities (positions, 256) in float64; None leaves the model in full precision."""
    model = byte_gpt().cuda()
    if multiply is not None:
        for module in list(model.modules()):
            for name, child in list(module.named_children()):
                if isinstance(child, Linear):
                    setattr(module, name, Replaced(child.weight.detach(), multiply))
    with torch.no_grad():
        return model(tokens.cuda()).double().log_softmax(-1).flatten(0, 1)


def main() -> None:
    """Writes the mean divergence of every variant from every other."""
    torch.backends.cuda.matmul.allow_tf32 = False
    data = splits("byte-gpt", limits=dict.fromkeys(("calibration", "search", "report"), WINDOWS))
    tokens = torch.from_numpy(data.report.inputs["tokens"])
    variants: dict[str, Multiply | None] = {
        "full precision": None,
        "silicon, fast": partial(real, fast=True),
        "silicon, precise": partial(real, fast=False),
        "emulated, values only": values_only,
        "emulated, fp32": partial(accumulated, accumulator=ACCUMULATORS["fp32"]),
        "emulated, hopper_fp8": partial(accumulated, accumulator=ACCUMULATORS["hopper_fp8"]),
        "emulated, hopper_fp8_promoted": partial(
            accumulated, accumulator=ACCUMULATORS["hopper_fp8_promoted"]
        ),
    }
    found = {name: logits(tokens, multiply) for name, multiply in variants.items()}
    with Path(sys.argv[1]).open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["of", "from", "kl_nats", "standard_error", "flip_rate", "largest_logit"])
        for name, left in found.items():
            for other, right in found.items():
                if name != other:
                    writer.writerow([name, other, *_divergence(right, left)])
    print(Path(sys.argv[1]).read_text(encoding="utf-8"))


def _divergence(truth: Tensor, other: Tensor) -> tuple[float, float, float, float]:
    """Mean KL(truth, other) with its standard error over windows, flips, largest difference."""
    by_position = (truth.exp() * (truth - other)).sum(-1)
    by_window = by_position.reshape(WINDOWS, -1).mean(1)
    flips = (truth.argmax(-1) != other.argmax(-1)).double().mean()
    error = by_window.std() / WINDOWS**0.5
    return by_window.mean().item(), error.item(), flips.item(), (truth - other).abs().max().item()


if __name__ == "__main__":
    main()
