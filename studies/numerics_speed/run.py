"""How fast quantization is, as a ratio to copying the same tensor, beside its peers.

Every implementation is timed alternately with the copy in one process, in process CPU time, so
that a busy machine changes both; with two threads in wall time, and beside one thread.
Run: `python studies/numerics_speed/run.py [--threads 2 --cpus 0,2]`. Two virtual CPUs may be one
core: name two of different ones, unless the operating system knows which are.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import ml_dtypes
import numba
import numpy as np
import torch

from dse.numerics import quantize
from hwmodels.formats.catalog import quantizer

HERE = Path(__file__).parent
RESULTS = HERE / "results"
MARKS = ("<!-- cpu table -->", "<!-- end -->")
"""Where README.md takes the table."""
NAMES = (
    "e4m3", "e2m1", "bf16", "fp16", "int8_channel", "e4m3_tensor", "mxfp8", "mxfp4", "nvfp4",
    "int4_g128", "e4m3:zero", "e4m3:stochastic", "mxfp4:stochastic", "posit8_1", "posit16_1",
    "nf4", "lns8_3", "takum8", "dynamic8_g256",
)  # fmt: skip


Case = tuple[str, str, Callable[[], object]]
"""An implementation, a format, and one call of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One implementation; ratios above 1 are faster than the copy."""

    implementation: str
    format: str
    elements: int
    ratio: float
    low: float
    high: float
    melem_per_s: float
    speedup: float
    """Over one thread, in the same rounds; 1 for one thread."""


@numba.njit(nogil=True)
def _copy_loop(x, out):
    for i in range(x.size):
        out[i] = x[i]


def _timed(run: Callable[[], object], wall: bool) -> float:
    clock = time.perf_counter if wall else time.process_time
    start = clock()
    run()
    return clock() - start


def measured(
    implementation: str, name: str, run: Callable[[], object], x: torch.Tensor, *, rounds: int
) -> Row:
    """Ratio of copy time to run time: median and quartiles over the rounds."""
    threads = torch.get_num_threads()
    target = torch.empty_like(x)
    source, flat = x.reshape(-1).numpy(), target.reshape(-1).numpy()
    run()
    _copy_loop(source, flat)
    ratios, times, speedups = [], [], []
    for _ in range(rounds):
        copies = [_timed(lambda: target.copy_(x), threads > 1) for _ in range(2)]
        if threads == 1:
            copies += [_timed(lambda: _copy_loop(source, flat), wall=False) for _ in range(2)]
        spent = _timed(run, threads > 1)
        ratios.append(min(copies) / spent)
        times.append(spent)
        speedups.append(_alone(run, threads) / spent if threads > 1 else 1.0)
    low, middle, high = statistics.quantiles(ratios, n=4)
    return Row(
        implementation=implementation, format=name, elements=x.numel(), ratio=middle, low=low,
        high=high, melem_per_s=x.numel() / statistics.median(times) / 1e6,
        speedup=statistics.median(speedups),
    )  # fmt: skip


def _alone(run: Callable[[], object], threads: int) -> float:
    torch.set_num_threads(1)
    try:
        return _timed(run, wall=True)
    finally:
        torch.set_num_threads(threads)


def _through(array: np.ndarray, dtype: type) -> np.ndarray:
    return array.astype(dtype).astype(np.float32)


def _cast(x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return x.to(dtype).float()


def ours(x: torch.Tensor, *, rounds: int) -> list[Row]:
    """`dse.numerics.quantize` with a reused output."""
    out = torch.empty_like(x)
    rows = []
    for name in NAMES:
        chosen = quantizer(name)
        rows.append(
            measured(
                "dse", name, partial(quantize, x, chosen, axes=(1,), out=out), x, rounds=rounds
            )
        )
    return rows


def peers(x: torch.Tensor, *, rounds: int) -> list[Row]:
    """Other packages, those that are installed; on fewer elements where they are slow."""
    array = x.numpy()
    rows = [
        measured("ml_dtypes", name, partial(_through, array, dtype), x, rounds=3)
        for name, dtype in (
            ("e4m3", ml_dtypes.float8_e4m3fn),
            ("e2m1", ml_dtypes.float4_e2m1fn),
            ("bf16", ml_dtypes.bfloat16),
        )
    ]
    rows += [
        measured("torch cast", name, partial(_cast, x, dtype), x, rounds=rounds)
        for name, dtype in (("e4m3", torch.float8_e4m3fn), ("bf16", torch.bfloat16))
    ]
    scale = x.abs().amax(1) / 127
    points = torch.zeros_like(scale, dtype=torch.int32)
    rows.append(
        measured(
            "torch fake_quantize (scale given)", "int8_channel",
            lambda: torch.fake_quantize_per_channel_affine(x, scale, points, 0, -127, 127),
            x, rounds=rounds,
        )
    )  # fmt: skip
    return rows + _optional_peers(x, rounds=3)


def _optional_peers(x: torch.Tensor, *, rounds: int) -> list[Row]:
    """Packages that are not among the development requirements."""
    rows = []
    for implementation, name, run in (*_qtorch(x), *_brevitas(x), *_torchao(x)):
        rows.append(measured(implementation, name, run, x, rounds=rounds))
    return rows


def _qtorch(x: torch.Tensor) -> Iterator[Case]:
    """QPyTorch, which compiles its C++ when imported; its e4m3 reaches 480, ties go away."""
    if importlib.util.find_spec("qtorch") is None:
        return
    from qtorch.quant import block_quantize, float_quantize  # noqa: PLC0415

    for name, exponent, mantissa in (("e4m3", 4, 3), ("e2m1", 2, 1), ("bf16", 8, 7)):
        yield "QPyTorch", name, partial(float_quantize, x, exponent, mantissa, rounding="nearest")
    stochastic = partial(float_quantize, x, 4, 3, rounding="stochastic")
    yield "QPyTorch", "e4m3:stochastic", stochastic
    yield "QPyTorch", "block floating point, 8 bits", partial(block_quantize, x, 8, 0, "nearest")


def _brevitas(x: torch.Tensor) -> Iterator[Case]:
    if importlib.util.find_spec("brevitas") is None:
        return
    from brevitas.nn import QuantIdentity, QuantLinear  # noqa: PLC0415
    from brevitas.quant import Int8WeightPerChannelFloat  # noqa: PLC0415
    from brevitas.quant.experimental.float_quant_ocp import Fp8e4m3OCPAct  # noqa: PLC0415
    from brevitas.quant.experimental.mx_quant_ocp import MXFloat8e4m3Act  # noqa: PLC0415

    without_gradient = torch.no_grad()
    for name, choice, more in (
        ("e4m3_tensor", Fp8e4m3OCPAct, {}), ("mxfp8", MXFloat8e4m3Act, {"group_dim": 1}),
    ):  # fmt: skip
        layer = QuantIdentity(act_quant=choice, return_quant_tensor=False, **more).eval()
        yield "brevitas", name, without_gradient(partial(layer, x))
    linear = QuantLinear(
        x.shape[1], x.shape[0], bias=False, weight_quant=Int8WeightPerChannelFloat
    )
    linear.weight.data.copy_(x)
    yield "brevitas", "int8_channel", without_gradient(linear.quant_weight)


def _torchao(x: torch.Tensor) -> Iterator[Case]:
    if importlib.util.find_spec("torchao") is None:
        return
    from torchao.prototype.mx_formats.mx_tensor import MXTensor  # noqa: PLC0415

    for name, element in (("mxfp8", torch.float8_e4m3fn), ("mxfp4", torch.float4_e2m1fn_x2)):

        def run(element: torch.dtype = element) -> torch.Tensor:
            return MXTensor.to_mx(x, element, 32).dequantize(torch.float32)

        yield "torchao (eager)", name, run


def write_table() -> None:
    """Writes what is in `results` for one and two threads into README.md."""
    one, two = (
        {(row.implementation, row.format): row for row in stored(threads)} for threads in (1, 2)
    )
    columns = ("implementation", "format", "one thread (quartiles)", "two threads", "over one")
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for key, row in one.items():
        both = two.get(key)
        together = f"{_ratio(both)} | {both.speedup:.2f}" if both else "|"
        lines.append(f"| {' | '.join(key)} | {_ratio(row)} | {together} |")
    readme = HERE / "README.md"
    head, _, rest = readme.read_text().partition(MARKS[0])
    tail = rest.partition(MARKS[1])[2]
    table = "\n".join(lines)
    readme.write_text(f"{head}{MARKS[0]}\n\n{table}\n\n{MARKS[1]}{tail}")


def stored(threads: int) -> list[Row]:
    """The rows of the last run with that many threads."""
    path = RESULTS / f"cpu_{threads}_thread.json"
    return [Row(**row) for row in json.loads(path.read_text())] if path.exists() else []


def _ratio(row: Row) -> str:
    return f"{row.ratio:.2f} ({row.low:.2f} to {row.high:.2f})"


def main() -> None:
    """Prints the rows, writes `results/cpu_<threads>_thread.json` and the table of README.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--cpus", help="where to run, for example 0,2; else anywhere")
    parser.add_argument("--only-ours", action="store_true")
    arguments = parser.parse_args()
    if arguments.cpus:
        os.sched_setaffinity(0, {int(cpu) for cpu in arguments.cpus.split(",")})
    torch.set_num_threads(arguments.threads)
    x = torch.randn(4096, 4096, generator=torch.Generator().manual_seed(0))
    rows = ours(x, rounds=arguments.rounds)
    if not arguments.only_ours:
        rows += peers(x, rounds=arguments.rounds)
    for row in rows:
        print(
            f"{row.implementation:34} {row.format:18} {row.ratio:6.3f} "
            f"[{row.low:.3f}, {row.high:.3f}] of copy  {row.melem_per_s:8.1f} Melem/s  "
            f"{row.speedup:.2f} x one thread"
        )
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"cpu_{arguments.threads}_thread.json"
    path.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    write_table()


if __name__ == "__main__":
    main()
