"""EfficientNet-Lite0 in W8A8: corrections of means, GPTQ and ranges of activations, beside peers.

`python -m studies.vision_recipes.run PHOTOS [--peer FILE.onnx ...]` cuts crops from a folder of
photographs (below it, too), half of them for calibration, and writes `results/w8a8.csv`. A peer's
file is run by ONNX Runtime as it is, without rewriting: its optimiser drops a Clip before a
QuantizeLinear whose range is wider.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import onnxruntime
import pandas as pd
import torch
from numpy.typing import NDArray

from dse.evaluate.batches import Feeds
from dse.evaluate.evaluator import Evaluator
from dse.evaluate.outputs.output import Output
from dse.evaluate.outputs.task import Task
from dse.execute.program.program import Program
from dse.execute.weights.calibrate import observe
from dse.execute.weights.learn import WeightStates
from dse.graph.ir.assignment import Assignment
from dse.graph.patterns.analysis import Analysis
from dse.model import open_model
from dse.zoo.split import Splits
from hwmodels.formats.catalog import quantizer
from studies.weight_methods.efficientnet import splits_of

RESULTS = Path(__file__).parent / "results"
BATCH = 16
RECIPES = (
    (None, "uint8:static"),
    (None, "uint8:static:mse"),
    (None, "uint8:static:percentile99.99"),
    ("int8_channel:uncorrected", None),
    ("int8_channel", None),
    ("int8_channel:gptq", None),
    ("int8_channel:uncorrected", "uint8:static"),
    ("int8_channel", "uint8:static"),
    ("int8_channel:gptq", "uint8:static"),
)
"""Weights and activations."""


def evaluator_of(model: str, photographs: Path) -> Evaluator:
    """Full precision calibrated on crops, with the others to report on."""
    graph = open_model(model).graph
    program, by_key = Program(graph), Analysis(graph).by_key
    splits = splits_of(photographs, program)
    splits = Splits(calibration=splits.calibration, search=splits.report, report=splits.report)
    feeds = Feeds(splits.calibration, BATCH, "cpu")
    (name,) = graph.outputs
    output = Output(name=name, value=name, kind="logits", reason="a classifier of ImageNet")
    operands = [site for site in by_key.values() if site.role == "activation"]
    return Evaluator(
        program=program, splits=splits, task=Task(outputs=(output,)), sites=by_key,
        calibration=observe(program, feeds(), operands),
        weights=WeightStates(program, by_key, feeds), batch=BATCH,
    )  # fmt: skip


def ours(evaluator: Evaluator) -> Iterator[dict[str, object]]:
    """A row a recipe."""
    for weight, activation in RECIPES:
        specs = {"weight": weight, "activation": activation}
        chosen = {
            key: quantizer(spec)
            for key, site in evaluator.sites.items()
            if (spec := specs.get(site.role)) is not None
        }
        quality = evaluator.measure(Assignment.of(chosen), "search")
        name = f"{weight or 'full precision'}, {activation or 'full precision'}"
        yield row(name, np.array(quality.losses), 1 - quality.flip_rate)


def peer(file: str, evaluator: Evaluator) -> dict[str, object]:
    """The row of a file that another tool wrote."""
    images = np.asarray(evaluator.splits.report.inputs["image"], np.float32)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    found, wanted = [], []
    with torch.inference_mode():
        for part in torch.split(torch.from_numpy(images), BATCH):
            found.append(torch.from_numpy(session.run(None, {name: part.numpy()})[0]))
            wanted.append(evaluator.program.run({"image": part}).outputs["logits"])
    reference, logits = (torch.cat(parts).double() for parts in (wanted, found))
    logs = reference.log_softmax(-1)
    losses = (logs.exp() * (logs - logits.log_softmax(-1))).sum(-1)
    agreement = float((reference.argmax(-1) == logits.argmax(-1)).double().mean())
    return row(Path(file).stem, losses.numpy(), agreement)


def row(name: str, losses: NDArray[np.float64], agreement: float) -> dict[str, object]:
    """A recipe's losses, nats a crop, and the share of crops that keep their first class."""
    return {
        "recipe": name, "loss": losses.mean(), "median": np.median(losses),
        "stderr": losses.std(ddof=1) / np.sqrt(len(losses)), "agreement": agreement,
        "samples": len(losses),
    }  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photographs", type=Path)
    parser.add_argument("--model", default="zoo:efficientnet-lite0")
    parser.add_argument("--peer", action="append", default=[], metavar="FILE.onnx")
    given = parser.parse_args(arguments)
    evaluator = evaluator_of(given.model, given.photographs)
    rows = [peer(file, evaluator) for file in given.peer]
    for one in ours(evaluator):
        rows.append(one)
        print(one, flush=True)
    RESULTS.mkdir(exist_ok=True)
    pd.DataFrame(rows).to_csv(RESULTS / "w8a8.csv", index=False, float_format="%.5g")


if __name__ == "__main__":
    main()
