"""Fused quantization on a GPU: bits against the CPU kernels, speed against a device copy.

Run on a machine with one CUDA device: `python studies/numerics_speed/run_gpu.py OUT.json`.
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path

import numpy as np
import torch

from dse.numerics import QuantizerState, quantize
from hwmodels.formats.catalog import quantizer

ELEMENTS = 1 << 28
TIMED = (
    "e4m3_tensor:static", "int8:static", "e4m3", "e2m1", "e4m3:stochastic", "mxfp4", "mxfp8",
    "nvfp4", "int4_g128", "mxfp4:stochastic", "posit8_1", "nf4_g64", "e4m3_tensor", "fp16",
    "int8_channel",
)  # fmt: skip
COMPARED = (
    *TIMED, "tf32", "bf16", "e8m3", "e4m3:zero", "e4m3:odd", "e4m3_token", "mxfp6",
    "mxint8", "e2m1@g32/e8m0-rceil", "e2m1@g32/e8m0-even", "e2m1@g16/ue5m3+fp32", "posit16_1",
    "uint8_channel", "int4_g128:mse", "takum16", "lns8_3:stochastic",
)  # fmt: skip


def state_of(name: str, device: str) -> QuantizerState | None:
    """A calibrated state, so that no statistic of the whole tensor is in the time."""
    if "static" in name:
        return QuantizerState(scales=torch.full((1, 1), 0.0123, device=device))
    return QuantizerState(tensor_scale=0.0021) if "nvfp4" in name else None


def mismatches(name: str, x: torch.Tensor) -> int:
    """Values of the CUDA path whose bits differ from the CPU's; NaN equals NaN."""
    chosen = quantizer(name)
    cpu = quantize(x, chosen, axes=(1,), state=state_of(name, "cpu"), seed=11)
    gpu = quantize(x.cuda(), chosen, axes=(1,), state=state_of(name, "cuda"), seed=11).cpu()
    as_bits = torch.int32 if x.dtype == torch.float32 else torch.int16
    different = cpu.view(as_bits) != gpu.view(as_bits)
    return int((different & ~(cpu.isnan() & gpu.isnan())).sum())


def milliseconds(run, rounds: int = 20) -> float:
    """Device time of one call."""
    run()
    torch.cuda.synchronize()
    start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(rounds):
        run()
    stop.record()
    torch.cuda.synchronize()
    return start.elapsed_time(stop) / rounds


def main() -> None:
    """Compares, times, and writes the result."""
    generator = torch.Generator().manual_seed(0)
    patterns = np.random.default_rng(1).integers(0, 1 << 32, 1 << 20, dtype=np.uint32)
    inputs = {
        "normal": torch.randn(1024, 1024, generator=generator),
        "patterns": torch.from_numpy(patterns.view(np.float32)).reshape(-1, 1024),
        "bf16": torch.randn(1024, 1024, generator=generator).to(torch.bfloat16),
    }
    compared = {
        name: {kind: mismatches(name, x) for kind, x in inputs.items()} for name in COMPARED
    }
    for name, counts in compared.items():
        print("mismatches", name, counts, flush=True)
    x = torch.randn(ELEMENTS // 4096, 4096, device="cuda", dtype=torch.bfloat16)
    out = torch.empty_like(x)
    rows = []
    for name in TIMED:
        chosen, state = quantizer(name), state_of(name, "cuda")
        ratios = []
        for _ in range(5):
            copy = milliseconds(lambda: out.copy_(x))
            spent = milliseconds(
                lambda q=chosen, s=state: quantize(x, q, axes=(1,), state=s, out=out)
            )
            ratios.append(copy / spent)
        low, middle, high = statistics.quantiles(ratios, n=4)
        rows.append({"format": name, "ratio": middle, "low": low, "high": high, "copy_ms": copy})
        print(f"{name:22} {middle:.3f} [{low:.3f}, {high:.3f}] of copy", flush=True)
    device = torch.cuda.get_device_name()
    result = {"device": device, "elements": ELEMENTS, "mismatches": compared, "speed": rows}
    Path(sys.argv[1]).write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
