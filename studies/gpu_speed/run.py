"""An emulated forward beside torch's bf16 forward of the same decoder, on a GPU.

`python -m studies.gpu_speed.run FOLDER [FORMAT ...]` writes `results/times.csv`. The decoder, of
1.04 billion random weights, is made in FOLDER once (4.2 GB); `--layers` and `--hidden` make a
smaller one. All rows of a table come of one process, in turns.
"""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import quantiles
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor

HERE = Path(__file__).parent
FORMATS = ("bf16", "w8a8_fp8_dynamic", "w4a4_mxfp4", "w4a4_nvfp4", "w8a8_int8", "w4a16")
SIZES = {
    "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 32000,
    "max_position_embeddings": 2048, "tie_word_embeddings": True,
}  # fmt: skip
RIVAL = "torch, bf16"
COLUMNS = (
    "run",
    "products",
    "ratio",
    "ratio_low",
    "ratio_high",
    "ms",
    "loss",
    "peak_gb",
    "device",
)
Forward = Callable[[], object]


def main() -> None:
    """Times every format with products of values and of codes, and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("formats", nargs="*", default=FORMATS)
    parser.add_argument("--layers", type=int, default=16)
    parser.add_argument("--hidden", type=int, default=2048)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("-o", "--output", type=Path, default=HERE / "results" / "times.csv")
    given = parser.parse_args()
    rows = [row for format in given.formats for row in measured(given, format)]
    given.output.parent.mkdir(exist_ok=True)
    with given.output.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)


def measured(given: argparse.Namespace, format: str) -> list[dict[str, Any]]:
    """The rows of one format: both kinds of product, as ratios to torch's forward of the turn."""
    from dse.evaluate.setup import build_evaluator  # noqa: PLC0415
    from dse.execute.tensor_cores import has_tensor_cores  # noqa: PLC0415
    from dse.graph.patterns.analysis import Analysis  # noqa: PLC0415
    from dse.model import open_model  # noqa: PLC0415
    from dse.space.schema import Data  # noqa: PLC0415
    from dse.space.uniform import uniform_assignment  # noqa: PLC0415

    module, tokens = _made(given)
    device = torch.device(given.device)
    analysis = Analysis(open_model(str(given.folder)).graph)
    assignment = uniform_assignment(analysis.regions, format)
    data = Data(
        source=str(given.folder / "tokens.npy"), calibration=given.batch, search=given.batch,
        report=given.batch, sequence=given.tokens, batch=given.batch,
    )  # fmt: skip
    evaluator = build_evaluator(
        analysis, data, analysis.by_key, assignment.sites, compute=given.device
    )
    feeds = {k: torch.from_numpy(v).to(device) for k, v in evaluator.splits.search.inputs.items()}
    forwards: dict[str, Forward] = {RIVAL: lambda: module(tokens, use_cache=False).logits}
    losses: dict[str, float] = {}
    kinds = ("values", "codes") if has_tensor_cores(device) else ("values",)
    for kind in kinds:
        with mock.patch(
            "dse.evaluate.evaluator.has_tensor_cores", lambda _, use=kind == "codes": use
        ):
            bound = evaluator.bound(assignment)
            losses[kind] = evaluator.measure(assignment).loss
        forwards[kind] = _ours(evaluator.program, feeds, bound)
    seconds: dict[str, list[float]] = {name: [] for name in forwards}
    peaks: dict[str, float] = {}
    for turn in range(given.repeats + 2):
        for name, forward in forwards.items():
            spent, peaks[name] = _timed(forward, device)
            if turn >= 2:  # compiled kernels, quantized weights
                seconds[name].append(spent)
    rows = [
        _row(seconds, kind, device)
        | {"run": format, "loss": round(losses[kind], 6), "peak_gb": round(peaks[kind], 2)}
        for kind in kinds
    ]
    print(*rows, sep="\n", flush=True)
    return rows


def _row(seconds: Mapping[str, list[float]], kind: str, device: torch.device) -> dict[str, Any]:
    """Quartiles of the ratios of the turns; milliseconds on a GPU alone."""
    pairs = zip(seconds[kind], seconds[RIVAL], strict=True)
    low, middle, high = quantiles([ours / theirs for ours, theirs in pairs], n=4)
    row: dict[str, Any] = {
        "products": kind, "ratio": round(middle, 2), "ratio_low": round(low, 2),
        "ratio_high": round(high, 2), "device": device.type,
    }  # fmt: skip
    if device.type == "cuda":
        row["device"] = torch.cuda.get_device_name(device)
        row["ms"] = round(1e3 * quantiles(seconds[kind], n=4)[1], 2)
    return row


def _ours(program: Any, feeds: Mapping[str, Tensor], bound: Mapping[str, Any]) -> Forward:
    def forward() -> object:
        with torch.inference_mode():
            return program.run(feeds, bound).outputs

    return forward


def _timed(forward: Forward, device: torch.device) -> tuple[float, float]:
    """Seconds of one forward, and gigabytes at its peak."""
    cuda = device.type == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats(device)
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    with torch.inference_mode():
        forward()
    if cuda:
        torch.cuda.synchronize(device)
    spent = time.perf_counter() - start
    return spent, torch.cuda.max_memory_allocated(device) / 1e9 if cuda else 0.0


def _made(given: argparse.Namespace) -> tuple[Any, Tensor]:
    """The module in bf16 and a batch of its tokens; the folder is written if it is not there."""
    import transformers  # noqa: PLC0415

    if not (given.folder / "tokens.npy").exists():
        torch.manual_seed(0)
        config = transformers.LlamaConfig(
            **SIZES, hidden_size=given.hidden, intermediate_size=4 * given.hidden,
            num_hidden_layers=given.layers, architectures=["LlamaForCausalLM"],
            dtype=torch.float32,
        )  # fmt: skip
        transformers.LlamaForCausalLM(config).save_pretrained(given.folder)
        count = 4 * given.batch * given.tokens
        ids = np.random.default_rng(0).integers(SIZES["vocab_size"], size=count)
        np.save(given.folder / "tokens.npy", ids)
    module = transformers.LlamaForCausalLM.from_pretrained(given.folder, dtype=torch.bfloat16)
    ids = np.load(given.folder / "tokens.npy")[: given.batch * given.tokens]
    tokens = torch.from_numpy(ids.reshape(given.batch, given.tokens))
    return module.to(given.device).eval(), tokens.to(given.device)


if __name__ == "__main__":
    main()
