"""Kernels as networks run them under eager torch: measured on a GPU, and beside the model.

    python studies/gpu_latency/layouts.py --measure -o FILE.csv     # needs CUDA, 5 s
    python studies/gpu_latency/layouts.py -i FILE.csv               # predictions of an H100

Channels-last maps in fp16. `cold`: every call on a map of its own, 256 MB in all. `chain`: each
call on what the one before wrote; `apart` of them are different kernels. `bias` of a chain is
what the bias of a convolution adds to it. `mask`: scaled_dot_product_attention of 8 x 12 heads of
384 x 384 in bf16, without a mask, with one expanded along the keys, and with the same in full.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn import BatchNorm2d, Conv2d, functional

from hwmodels.devices.load import load_device
from hwmodels.estimators.gpu.kernels import TERMS
from hwmodels.estimators.gpu.residual import load_artefact
from hwmodels.estimators.gpu.skeleton import GpuFigures
from hwmodels.work.kernel import Kernel

MAPS = ((1, 64, 56), (8, 96, 28), (8, 64, 56), (32, 144, 56), (32, 512, 14), (32, 64, 112))
CONVOLUTIONS = (
    (1, 64, 56, 3, 1), (8, 64, 56, 3, 1), (8, 256, 14, 3, 1), (32, 128, 28, 3, 1),
    (8, 256, 14, 1, 1), (32, 256, 56, 1, 1), (8, 144, 56, 3, 144), (32, 144, 56, 3, 144),
)  # fmt: skip
DIFFERENT = (
    torch.relu, torch.neg, torch.exp, torch.sin, torch.cos, torch.sigmoid, torch.tanh, torch.abs,
    torch.sqrt, torch.rsqrt, torch.log1p, torch.floor, torch.ceil, torch.round, torch.sign,
    torch.reciprocal, torch.square, torch.erf, torch.expm1, torch.frac, torch.trunc, torch.log,
)  # fmt: skip
LINKS = 220
CONVOLUTION_LINKS = 40
COLD_BYTES = 2.6e8
REPLAYS = 9
MOVED = {
    "relu": ("relu", 1, 1), "add": ("add", 2, 1), "bias": ("strided", 1, 1),
    "scale": ("strided", 1, 1), "silu": ("strided", 1, 1), "part": ("strided", 0.5, 0.5),
    "cat2": ("concat", 2, 2), "cat4": ("concat", 4, 4), "maxpool": ("maps_maxpool", 1, 0.25),
    "avgpool2": ("maps_averagepool", 1, 0.25), "mean": ("maps_mean", 1, 0),
}  # fmt: skip
"""Constants of an operation, and the maps that it reads and writes."""
Map = Callable[[Tensor], Tensor]
Row = tuple[str, str, str, float]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--measure", action="store_true")
    parser.add_argument("-i", "--input", type=Path)
    parser.add_argument("-o", "--output", type=Path)
    arguments = parser.parse_args()
    if arguments.measure:
        rows = [*cold_moves(), *chains(), *biases(), *masks()]
        frame = pd.DataFrame(rows, columns=["part", "operation", "shape", "median_us"])
        frame.to_csv(arguments.output, index=False, float_format="%.4g")
    else:
        frame = predicted(pd.read_csv(arguments.input))
        error = (frame["predicted_us"] / frame["median_us"]).map(np.log)
        print(frame.assign(log_ratio=error.round(2)).to_string())
        print(f"mean |log ratio| {error.abs().mean():.3f}")


def predicted(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows of one kernel that the model prices, with `predicted_us` of an H100."""
    frame = frame[frame["operation"].isin(MOVED) & frame["part"].isin(["cold", "chain"])]
    times = []
    for row in frame.itertuples():
        detail, read, write = MOVED[str(row.operation)]
        count = 2 * float(np.prod([int(size) for size in str(row.shape).split("x")]))
        kernel = Kernel(
            kind="pointwise", detail=detail, input_bytes=round(read * count),
            write_bytes=round(write * count), inputs_are_cold=str(row.part) == "cold",
        )  # fmt: skip
        times.append(seconds(kernel) * 1e6)
    return frame.assign(predicted_us=np.round(times, 2))


def seconds(kernel: Kernel) -> float:
    device = load_device("h100-sxm")
    terms = TERMS[kernel.kind]([kernel], device, GpuFigures.of(device), load_artefact().constants)
    return float(terms.latency_s[0])


def cold_moves() -> Iterator[Row]:
    for n, c, size in MAPS:
        count = max(2, min(300, int(COLD_BYTES / (2 * n * c * size * size))))
        maps = [_map(n, c, size) for _ in range(count)]
        bias, scale = _map(1, c, 1), _map(n, c, 1)
        norm = BatchNorm2d(c).to("cuda", torch.float16).eval()
        calls: dict[str, Map] = {
            "relu": torch.relu, "silu": functional.silu, "batch_norm": norm,
            "add": lambda x, y=maps[0]: x + y, "bias": lambda x, y=bias: x + y,  # type: ignore[misc]
            "scale": lambda x, y=scale: x * y,  # type: ignore[misc]
            "mean": lambda x: functional.adaptive_avg_pool2d(x, 1),
            "maxpool": lambda x: functional.max_pool2d(x, 3, 2, 1),
            "avgpool2": lambda x: functional.avg_pool2d(x, 2, 2),
            "cat2": lambda x, y=maps[0]: torch.cat((x, y), 1),  # type: ignore[misc]
            "cat4": lambda x, y=maps[0], z=maps[1]: torch.cat((x, y, z, x), 1),  # type: ignore[misc]
            "part": lambda x, half=c // 2: functional.silu(_rows(x)[:, :half]),  # type: ignore[misc]
        }  # fmt: skip
        for name, call in calls.items():
            took = replay_us(partial(_each, call, maps))
            yield "cold", name, f"{n}x{c}x{size}x{size}", took / count


def chains() -> Iterator[Row]:
    shapes = [(1, 4096), (512, 1024), *((n, c, 56, 56) for n, c in ((8, 64), (8, 128), (8, 256),
              (32, 96), (32, 144)))]  # fmt: skip
    for shape in shapes:
        x = torch.rand(shape, device="cuda", dtype=torch.float16)
        for apart in (1, len(DIFFERENT)):
            links = [DIFFERENT[link % apart] for link in range(LINKS)]
            name = "relu" if apart == 1 else f"{apart} apart"
            took = replay_us(partial(_chain, links, x)) / LINKS
            yield "chain", name, "x".join(map(str, shape)), took


def biases() -> Iterator[Row]:
    """What a bias adds to each of some convolutions, one after the other."""
    for n, c, size, k, groups in CONVOLUTIONS:
        took, x = {}, _map(n, c, size)
        for biased in (False, True):
            convolution = Conv2d(c, c, k, 1, k // 2, groups=groups, bias=biased)
            convolution = convolution.to("cuda", torch.float16, memory_format=torch.channels_last)  # type: ignore[call-overload]

            links = (convolution,) * CONVOLUTION_LINKS
            took[biased] = replay_us(partial(_chain, links, x)) / CONVOLUTION_LINKS
        yield "chain", "bias", f"{n}x{c}x{size}x{size}", took[True] - took[False]


def masks() -> Iterator[Row]:
    q = torch.randn(8, 12, 384, 64, device="cuda", dtype=torch.bfloat16)
    one = torch.ones(1, 1, 384, 1, device="cuda", dtype=torch.bool).expand(8, 1, 384, 384)
    for name, mask in (("none", None), ("expanded", one), ("full", one.contiguous())):
        took = replay_us(
            lambda mask=mask: functional.scaled_dot_product_attention(q, q, q, attn_mask=mask)  # type: ignore[misc]
        )
        yield "mask", name, "8x12x384x64", took


def replay_us(call: Callable[[], object]) -> float:
    """Median time of a captured graph's replay."""
    stream = torch.cuda.Stream()
    with torch.no_grad():
        with torch.cuda.stream(stream):
            call()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            kept = call()
    times = []
    for _ in range(REPLAYS):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) * 1e3)
    del kept
    return median(times)


def _each(call: Map, inputs: Sequence[Tensor]) -> list[Tensor]:
    return [call(x) for x in inputs]


def _chain(links: Sequence[Map], x: Tensor) -> Tensor:
    for link in links:
        x = link(x)
    return x


def _map(n: int, c: int, size: int) -> Tensor:
    made = torch.randn(n, c, size, size, device="cuda", dtype=torch.float16)
    return made.to(memory_format=torch.channels_last)


def _rows(x: Tensor) -> Tensor:
    return x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])


if __name__ == "__main__":
    main()
