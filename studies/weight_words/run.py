"""Words behind a 4-bit weight: smoothing, Four Over Six, a low-rank rest, GPTQ, searched ranges.

`python -m studies.weight_words.run WORK`: `results/layers.csv`, matrices of SmolLM2 (packages as
in `studies.language_rivals`), and `results/network.csv`, byte-gpt.
"""

from __future__ import annotations

import argparse
import csv
import math
import resource
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from torch import Tensor

from dse.evaluate.evaluator import Evaluator
from dse.explore.measure.session import prepare
from dse.graph.ir.assignment import Assignment
from dse.numerics import learned_state, output_range, quantize
from dse.numerics.four_over_six import four_over_six
from dse.space.load import parse_space
from hwmodels.formats.catalog import quantizer
from studies.language_rivals import network, score, text

HERE = Path(__file__).parent
MATRICES = (
    "model.layers.2.self_attn.o_proj", "model.layers.14.mlp.gate_proj",
    "model.layers.27.mlp.down_proj",
)  # fmt: skip
STRENGTHS = (0.0, 0.15, 0.3)
"""Of smoothing: the share of the inputs' size that moves into the weight."""
RANK = 16
RANGES = "dse.numerics.scales.E2M1_TARGETS"
Matrix = Callable[[Tensor, Tensor], Tensor]
"""(weight (outputs, inputs), second moment of the inputs) -> the values that stand for it."""


def quantized(name: str) -> Matrix:
    """A quantizer with the words of its name."""
    chosen = quantizer(name).settled(weight=True)

    def values(weight: Tensor, moment: Tensor) -> Tensor:
        if chosen.is_learned:
            found = learned_state(weight, moment, chosen).values
            assert found is not None
            return found
        state = output_range(weight, moment, chosen) if chosen.statistic == "output_mse" else None
        return quantize(weight, chosen, axes=(1,), state=state)

    return values


def smoothed(inner: Matrix) -> Matrix:
    """AWQ: channels scaled by a searched power of their inputs' size (arXiv 2306.00978)."""

    def values(weight: Tensor, moment: Tensor) -> Tensor:
        size = moment.diagonal().sqrt().float().clamp_min(1e-6)
        tried = []
        for strength in STRENGTHS:
            factors = size**strength
            factors /= (factors.max() * factors.min()).sqrt()
            seen = moment / torch.outer(factors, factors).double()
            found = inner(weight * factors, seen) / factors
            tried.append((error(weight, found, moment), found))
        return min(tried, key=lambda pair: pair[0])[1]

    return values


def with_rest(inner: Matrix) -> Matrix:
    """The error's best approximation of rank 16, by what it does to outputs (arXiv 2303.08302)."""

    def values(weight: Tensor, moment: Tensor) -> Tensor:
        found = inner(weight, moment)
        damped = moment + 1e-3 * moment.diagonal().mean() * torch.eye(len(moment)).double()
        root = torch.linalg.cholesky(damped)
        left, middle, right = torch.linalg.svd(
            (weight - found).double() @ root, full_matrices=False
        )
        kept = (left[:, :RANK] * middle[:RANK]) @ right[:RANK]
        return found + torch.linalg.solve_triangular(root, kept, upper=False, left=False).float()

    return values


def error(weight: Tensor, values: Tensor, moment: Tensor) -> float:
    """Squared error of what the layer computes, relative."""
    off = (values - weight).double()
    return float(((off @ moment) * off).sum() / ((weight.double() @ moment) * weight).sum())


def without_four(inner: Matrix) -> Matrix:
    """Ranges searched as before: none that maps the largest value to 4."""

    def values(weight: Tensor, moment: Tensor) -> Tensor:
        with mock.patch(RANGES, (6.0, 6.0)):
            return inner(weight, moment)

    return values


METHODS: Mapping[str, Matrix] = {
    "int4_g64, largest magnitude": quantized("int4_g64:absmax"),
    "int4_g64, smoothed": smoothed(quantized("int4_g64:absmax")),
    "int4_g64, least error of outputs (default)": quantized("int4_g64"),
    "... smoothed": smoothed(quantized("int4_g64")),
    "... and a rest of rank 16": with_rest(quantized("int4_g64")),
    "... GPTQ": quantized("int4_g64:output_mse:gptq"),
    "int5_g64, least error of outputs": quantized("int5_g64:output_mse"),
    "nvfp4, largest magnitude": quantized("nvfp4"),
    "nvfp4, Four Over Six": lambda weight, _: four_over_six(weight, quantizer("nvfp4")),
    "nvfp4, least error of outputs, 6 alone": without_four(quantized("nvfp4:output_mse")),
    "nvfp4, least error of outputs, 6 or 4": quantized("nvfp4:output_mse"),
    "nvfp4, GPTQ": quantized("nvfp4:gptq"),
    "mxfp4, largest magnitude": quantized("mxfp4"),
    "mxfp4, least error of outputs, 6 alone": without_four(quantized("mxfp4:output_mse")),
    "mxfp4, least error of outputs, 6 or 4": quantized("mxfp4:output_mse"),
}


def moments(work: Path, split: str) -> dict[str, Tensor]:
    """Mean outer products of what the matrices multiply."""
    model = score.model_of(network.weights_of(work / "relabelled.onnx"))
    sums: dict[str, Tensor] = {}

    def seen(name: str) -> Callable[[object, tuple[Tensor, ...]], None]:
        def hook(_module: object, inputs: tuple[Tensor, ...]) -> None:
            rows = inputs[0].flatten(0, -2).double()
            sums[name] = sums.get(name, torch.zeros(())) + rows.T @ rows / len(rows)

        return hook

    for name, module in model.named_modules():
        if name in MATRICES:
            module.register_forward_pre_hook(seen(name))
    with torch.inference_mode():
        for window in text.split(work, split):
            model(torch.from_numpy(window[None, :-1]))
    return sums


def layers(work: Path) -> list[dict[str, object]]:
    """The error of every method on every matrix, under inputs of another text."""
    shown, reported = moments(work, "calibration"), moments(work, "report")
    weights = network.weights_of(work / "relabelled.onnx")
    rows = []
    for method, values in METHODS.items():
        before, errors = _seconds(), []
        for name in MATRICES:
            weight = torch.from_numpy(np.ascontiguousarray(weights[f"{name}.weight"].T))
            errors.append(error(weight, values(weight, shown[name]), reported[name]))
        mean = math.exp(float(np.mean(np.log(errors))))
        rows.append({
            "method": method, "error": f"{mean:.5f}",
            **{name: f"{one:.5f}" for name, one in zip(MATRICES, errors, strict=True)},
            "cpu_seconds": f"{_seconds() - before:.1f}",
        })  # fmt: skip
        print(rows[-1], flush=True)
    return rows


SPACE = """
model: zoo:byte-gpt
data: {source: zoo:byte-gpt, calibration: 16, search: 2, report: 24, sequence: 256}
scenario: {phases: {call: {share: 1, dims: {batch: 1, sequence: 256}}}}
targets: [{device: h100-sxm, runtime: free}]
candidates: [{match: {}, use: [bf16]}]
objectives: [quality_loss, weight_bytes]
"""
WEIGHTS = ("nvfp4", "nvfp4:output_mse", "mxfp4", "mxfp4:output_mse", "nvfp4:gptq")


def whole_network() -> list[dict[str, object]]:
    """The loss of byte-gpt with every matrix of its layers in a 4-bit float, paired."""
    session = prepare(
        parse_space(SPACE, origin="weight_words"), origin="weight_words", folder=HERE
    )
    rows: list[dict[str, object]] = []
    plain: dict[str, np.ndarray] = {}
    for name in WEIGHTS:
        for alone in (True, False) if "output_mse" in name else (False,):
            evaluator = session.evaluator
            with mock.patch(RANGES, (6.0, 6.0) if alone else (6.0, 4.0)):
                evaluator.weights._states.clear()
                before, macs = _seconds(), evaluator.macs
                losses = np.array(evaluator.measure(_assignment(evaluator, name), "report").losses)
            base = plain.setdefault(name.split(":")[0], losses)
            saved = base - losses
            rows.append({
                "weights": f"{name}{', 6 alone' if alone else ''}",
                "loss": f"{losses.mean():.5f}", "stderr": f"{_stderr(losses):.5f}",
                "saved": f"{saved.mean():.5f}", "saved_stderr": f"{_stderr(saved):.5f}",
                "forwards": f"{(evaluator.macs - macs) / evaluator.forward_macs('report'):.2f}",
                "cpu_seconds": f"{_seconds() - before:.1f}",
            })  # fmt: skip
            print(rows[-1], flush=True)
    return rows


def _assignment(evaluator: Evaluator, name: str) -> Assignment:
    chosen = quantizer(name)
    sites = (
        site.key for site in evaluator.program.analysis.sites
        if site.role == "weight" and "lm_head" not in site.key and "embed" not in site.key
    )  # fmt: skip
    return Assignment.of(dict.fromkeys(sites, chosen))


def _stderr(values: np.ndarray) -> float:
    return float(values.std(ddof=1) / math.sqrt(len(values)))


def _seconds() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_utime


def write(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """A CSV."""
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def main() -> None:
    """Both tables, or that of byte-gpt without WORK."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path, nargs="?")
    work = parser.parse_args().work
    torch.set_num_threads(1)
    (HERE / "results").mkdir(exist_ok=True)
    write(HERE / "results" / "network.csv", whole_network())
    if work is not None:
        network.write(work)
        text.write(work)
        write(HERE / "results" / "layers.csv", layers(work))


if __name__ == "__main__":
    main()
