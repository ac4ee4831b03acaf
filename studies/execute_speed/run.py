"""Measures what executing and emulating a graph costs beside torch and ONNX Runtime.

`python studies/execute_speed/run.py` writes `results/<model>.csv` and the table of README.md.
"""

from __future__ import annotations

import argparse
import csv
import importlib.util
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import onnxruntime
import torch
from torch import Tensor, nn

from dse import zoo
from dse.execute.emulate import emulators
from dse.execute.program.program import Program
from dse.execute.weights.calibrate import observe
from dse.graph.onnx.load import load
from dse.graph.patterns.analysis import Analysis
from dse.space.uniform import uniform_assignment
from dse.zoo.llama import Llama, LlamaConfig
from dse.zoo.resnet import ResNet, ResNetConfig

HERE = Path(__file__).parent
SCHEMES = (
    "w8a8_int8", "w8a8_fp8", "w8a8_fp8_dynamic", "w4a8_fp8", "w8a8_mxfp8", "w4a4_mxfp4",
    "w4a4_nvfp4",
)  # fmt: skip
"""As `dse evaluate --format` takes them: every weight, every input of a product, and what they
leave in 16 bits (attention's operands, probabilities among them) as bf16."""
EVERYWHERE = ("mxfp4", "nvfp4")
"""Formats at every operand, attention and its probabilities included."""
MARK = "<!-- results -->"


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A model as torch wrote it, its graph and feeds."""

    name: str
    module: nn.Module
    feeds: tuple[Tensor, ...]


def cases() -> Iterator[Case]:
    """Zoo models; modules of our own have random weights, which costs the same."""
    generator = torch.Generator().manual_seed(0)
    llama = LlamaConfig(vocabulary=256, width=256, layers=6, heads=8, kv_heads=4, ffn_width=512)
    tokens = torch.randint(0, 256, (4, 256), generator=generator)
    yield Case(name="byte-gpt", module=Llama(llama).eval(), feeds=(tokens,))
    images = torch.randn(64, 1, 28, 28, generator=generator)
    resnet = ResNet(ResNetConfig()).fold_batch_norms()
    yield Case(name="fashion-resnet", module=resnet, feeds=(images,))
    if importlib.util.find_spec("efficientnet_lite_pytorch"):
        from dse.zoo.efficientnet import load_efficientnet  # noqa: PLC0415 (optional)

        photos = torch.randn(4, 3, 224, 224, generator=generator)
        yield Case(name="efficientnet-lite0", module=load_efficientnet(), feeds=(photos,))


def candidates(case: Case, threads: int) -> dict[str, Callable[[], object]]:
    """What is timed, by name; the first is what ratios refer to."""
    path = zoo.resolve(case.name).path
    graph = load(path)
    feeds = dict(zip(graph.inputs, case.feeds, strict=True))
    program = Program(graph)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path, options)
    arrays = {name: value.numpy() for name, value in feeds.items()}
    found: dict[str, Callable[[], object]] = {
        "torch eager": lambda: case.module(*case.feeds),
        "onnxruntime": lambda: session.run(None, arrays),
        "dse": lambda: program.run(feeds),
    }
    analysis = Analysis(graph)
    every = analysis.by_key
    calibration = observe(program, [feeds], list(every.values()))
    regions = analysis.regions
    for name in (*SCHEMES, *EVERYWHERE):
        bound = emulators(uniform_assignment(regions, name), every, calibration)
        found[name] = partial(program.run, feeds, bound)
    return found


def measured(
    calls: Mapping[str, Callable[[], object]], repetitions: int, clock: Callable[[], float]
) -> dict[str, list[float]]:
    """Seconds of each call, interleaved so that all meet the same machine."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    with torch.inference_mode():
        for call in calls.values():
            call()
        for _ in range(repetitions):
            for name, call in calls.items():
                start = clock()
                call()
                times[name].append(clock() - start)
    return times


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """How long something takes beside something else, from paired repetitions."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.low:.2f} to {self.high:.2f})"


def ratio(times: Sequence[float], base: Sequence[float]) -> Ratio:
    """Median and quartiles of the paired ratios."""
    paired = [a / b for a, b in zip(times, base, strict=True)]
    low, median, high = statistics.quantiles(paired, n=4)
    return Ratio(median=median, low=low, high=high)


def main() -> None:
    """Times all models and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repetitions", type=int, default=15)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    # With one thread the thread's own time does not see what else the machine does.
    clock = time.thread_time if arguments.threads == 1 else time.perf_counter
    lines = [
        "| model | what runs | beside torch eager | beside our plain forward |",
        "|---|---|---|---|",
    ]
    for case in cases():
        times = measured(candidates(case, arguments.threads), arguments.repetitions, clock)
        with (HERE / "results" / f"{case.name}.csv").open("w", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(["what", *range(arguments.repetitions)])
            writer.writerows([name, *(f"{s:.6f}" for s in row)] for name, row in times.items())
        lines += [
            f"| {case.name} | {name} | {ratio(row, times['torch eager'])} "
            f"| {ratio(row, times['dse'])} |"
            for name, row in times.items()
        ]
    readme = HERE / "README.md"
    head, _, _ = readme.read_text().partition(MARK)
    readme.write_text(f"{head}{MARK}\n\n" + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
