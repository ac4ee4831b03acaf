"""Recipes of few bits, distilled, trained on labels, and left as they are.

`python -m studies.tuned_recipes.run` writes `results/runs.csv`, and README.md's tables.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
import pandas as pd
import torch
from torch import Tensor

from dse.evaluate.quality import Quality
from dse.evaluate.reference import DistributionReference, References
from dse.evaluate.setup import build_evaluator
from dse.execute.operators.step import Quantize
from dse.execute.quantizers import bound, with_emulators
from dse.export import Recipe, deliver
from dse.graph.ir.assignment import Assignment
from dse.model import open_model
from dse.run.entries import Learn, TuningSettings
from dse.space.schema import Data
from dse.tune.distillation import Loss, divergence
from dse.tune.tune import Start
from hwmodels.formats import catalog

HERE = Path(__file__).parent
MODEL = "zoo:fashion-resnet"
DATA = Data(source=MODEL, calibration=256, search=64, report=400, batch=16)
STEPS, RANK = 40, 8
RECIPES: Mapping[str, tuple[str, str]] = {
    "w3a8": ("int3_channel", "uint8:static"),
    "w4a8": ("int4_channel", "uint8:static"),
}
"""Formats of weights and of activations."""


def task_loss(references: References, outputs: Mapping[str, Tensor]) -> Tensor:
    """Cross entropy of the labels: what plain quantization-aware training makes smaller."""
    (reference,) = references
    assert isinstance(reference, DistributionReference), "classes have a distribution"
    assert reference.labels is not None, "the data have labels"
    scores = reference.output.scores(outputs[reference.output.value], reference.samples)
    return torch.nn.functional.cross_entropy(scores, reference.labels)


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """One way to tune."""

    loss: Loss
    learn: Learn = "weights"
    rate: float = 1e-3
    seeds: int = 3
    recipes: tuple[str, ...] = tuple(RECIPES)


WAYS: Mapping[str, Way] = {
    "distilled": Way(loss=divergence),
    "task loss": Way(loss=task_loss),
    "distilled, three times the rate": Way(loss=divergence, rate=3e-3, seeds=1),
    "task loss, three times the rate": Way(loss=task_loss, rate=3e-3, seeds=1, recipes=("w3a8",)),
    "distilled, low-rank": Way(loss=divergence, learn="low-rank", seeds=1, recipes=("w3a8",)),
    "distilled, scales": Way(loss=divergence, learn="scales", seeds=1, recipes=("w3a8",)),
}
LEFT = "left as it is"


def start_of(recipe: str) -> tuple[Start, Assignment]:
    """A network whose every convolution and product has the formats of a recipe."""
    weight, activation = (catalog.quantizer(name) for name in RECIPES[recipe])
    analysis = open_model(MODEL).analysis
    assignment = Assignment.of(
        {
            site.key: weight if site.role == "weight" else activation
            for site in analysis.sites
            if site.role in ("weight", "activation")
        }
    )
    sites = analysis.by_key
    evaluator = build_evaluator(analysis, DATA, sites, tuple(assignment))
    standing = bound(assignment, sites, evaluator.calibration, evaluator.weights)
    return Start(evaluator=evaluator, bound=standing, sites=sites), assignment


def runs() -> Iterator[dict[str, object]]:
    """Every way, recipe and seed, seed by seed."""
    starts = {recipe: start_of(recipe)[0] for recipe in RECIPES}
    before = {recipe: one.evaluator.measure_bound(one.bound, "report")
              for recipe, one in starts.items()}  # fmt: skip
    for recipe, found in before.items():
        yield row(recipe, LEFT, 0, found, found, seconds=0.0)
    for seed in range(max(way.seeds for way in WAYS.values())):
        for name, way in WAYS.items():
            for recipe in way.recipes if seed < way.seeds else ():
                start = starts[recipe]
                settings = TuningSettings(
                    trial=0, learn=way.learn, steps=STEPS, rate=way.rate, rank=RANK, seed=seed
                )
                training = start.distillation(settings, loss=way.loss)
                begun = time.process_time()
                for _ in range(STEPS):
                    training.advance()
                seconds = time.process_time() - begun
                standing = with_emulators(start.bound, training.learned())
                after = start.evaluator.measure_bound(standing, "report")
                yield row(recipe, name, seed, before[recipe], after, seconds=seconds)


def row(
    recipe: str, way: str, seed: int, before: Quality, after: Quality, *, seconds: float
) -> dict[str, object]:
    """A line of the results."""
    change = np.array(before.losses) - np.array(after.losses)
    return {
        "recipe": recipe, "way": way, "seed": seed, "loss": after.loss, "stderr": after.stderr,
        "recovered": change.mean(),
        "recovered_stderr": change.std(ddof=1) / np.sqrt(len(change)),
        "accuracy": after.metric, "cpu_seconds": round(seconds, 2),
    }  # fmt: skip


def check() -> dict[str, float]:
    """Loss of a tuned w4a8 as emulated, and as ONNX Runtime computes the exported file."""
    start, assignment = start_of("w4a8")
    settings = TuningSettings(
        trial=0, learn="weights", steps=STEPS, rate=WAYS["distilled"].rate, rank=RANK, seed=0
    )
    training = start.distillation(settings)
    for _ in range(STEPS):
        training.advance()
    standing: Mapping[str, Quantize] = with_emulators(start.bound, training.learned())
    evaluator = start.evaluator
    recipe = Recipe(
        name="fashion-resnet", program=evaluator.program, assignment=assignment, bound=standing
    )
    images = evaluator.splits.report.inputs
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tuned.onnx"
        deliver(recipe, "onnx-qdq", path)
        exported = logits(path, images)
    reference = logits(Path(str(evaluator.program.graph.path)), images)
    return {
        "emulated": evaluator.measure_bound(standing, "report").loss,
        "onnx_runtime": float((np.exp(reference) * (reference - exported)).sum(-1).mean()),
    }


def logits(path: Path, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
    """(samples, classes) log-probabilities in float64, without rewritten graphs."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])
    feeds = {name: values.astype(np.float32) for name, values in inputs.items()}
    found = session.run(None, feeds)[0].astype(np.float64)
    summed: np.ndarray = found - np.log(np.exp(found).sum(-1, keepdims=True))
    return summed


def table(found: pd.DataFrame) -> str:
    """The README's table: means over seeds, and their range."""
    lines = [
        "| recipe | tuned | loss | recovered | recovered a CPU minute | accuracy |",
        "|---|---|---|---|---|---|",
    ]
    for (recipe, way), rows in found.groupby(["recipe", "way"], sort=False):
        minutes = rows["cpu_seconds"].mean() / 60
        recovered = rows["recovered"].mean()
        per_minute = f"{recovered / minutes:.3f}" if minutes else "-"
        spread = f"{rows['loss'].min():.4f} to {rows['loss'].max():.4f}"
        loss = f"{rows['loss'].mean():.4f} ± {rows['stderr'].mean():.4f}"
        lines.append(
            f"| {recipe} | {way} | {loss}{f' ({spread})' if len(rows) > 1 else ''} | "
            f"{recovered:.4f} ± {rows['recovered_stderr'].mean():.4f} | {per_minute} | "
            f"{rows['accuracy'].mean():.4f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Runs everything, a line at a time, and writes the README's table."""
    rows: list[dict[str, object]] = []
    path = HERE / "results" / "runs.csv"
    for one in runs():
        rows.append(one)
        pd.DataFrame(rows).to_csv(path, index=False)
    pd.DataFrame([check()]).to_csv(HERE / "results" / "onnx_runtime.csv", index=False)
    readme = HERE / "README.md"
    text = readme.read_text(encoding="utf-8")
    head, mark, rest = text.partition("<!-- table -->\n")
    tail = rest.partition("<!-- end -->")[2]
    body = table(pd.read_csv(path))
    readme.write_text(f"{head}{mark}{body}\n<!-- end -->{tail}", encoding="utf-8")


if __name__ == "__main__":
    main()
