"""EfficientNet-Lite0 with int4 weights and int8 activations, against itself in full precision.

`python -m studies.weight_methods.efficientnet PHOTOS [--model FILE.onnx]` cuts random crops from
the photographs of a folder and writes `results/efficientnet.csv`. Half of the photographs are for
calibration; of the others count the crops that the network in full precision is sure about.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image  # type: ignore[import-not-found, unused-ignore]

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
from dse.zoo.image_folder import PIXEL_DEVIATION, PIXEL_MEAN, SUFFIXES
from dse.zoo.split import Split, Splits
from hwmodels.formats.catalog import quantizer
from studies.weight_methods.run import METHODS, write

CROPS = 10
"""Of each photograph: squares of 35 to 100 % of its shorter side, mirrored or not."""
SURE = 0.4
"""Probability of the first class from which on a crop counts."""
PIXELS = 224
CALIBRATION = 64
ACTIVATION = "int8:static"
Images = NDArray[np.float32]


def crops_of(path: Path, rng: np.random.Generator) -> Iterator[Images]:
    """Random crops of a photograph, (3, height, width)."""
    with Image.open(path) as opened:
        photograph = opened.convert("RGB")
    short = min(photograph.size)
    for _ in range(CROPS):
        side = int(short * rng.uniform(0.35, 1.0))
        left = int(rng.integers(0, photograph.width - side + 1))
        top = int(rng.integers(0, photograph.height - side + 1))
        crop = photograph.crop((left, top, left + side, top + side)).resize((PIXELS, PIXELS))
        pixels = np.asarray(crop, np.float32).transpose(2, 0, 1)
        if rng.random() < 0.5:
            pixels = pixels[..., ::-1]
        yield (pixels - PIXEL_MEAN) / PIXEL_DEVIATION


def splits_of(folder: Path, program: Program) -> Splits:
    """Calibration and report crops; the search split is not used."""
    rng = np.random.default_rng(0)
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    groups = [np.stack(list(crops_of(path, rng))) for path in files]
    order = rng.permutation(len(groups))
    half = len(order) // 2
    first = np.concatenate([groups[i] for i in order[:half]])
    second = np.concatenate([groups[i] for i in order[half:]])
    with torch.inference_mode():
        logits = [
            program.run({"image": part}).outputs["logits"]
            for part in torch.split(torch.from_numpy(second), 16)
        ]
    sure = torch.cat(logits).softmax(-1).amax(-1).numpy() > SURE
    step = max(len(first) // CALIBRATION, 1)
    report = _split(second[sure])
    return Splits(calibration=_split(first[::step][:CALIBRATION]), search=report, report=report)


def _split(images: Images) -> Split:
    return Split(inputs={"image": np.ascontiguousarray(images)}, labels=None, kind="images")


def measured(model: str, folder: Path) -> Iterator[dict[str, object]]:
    """Every weight method, and the parts alone."""
    graph = open_model(model).graph
    program, by_key = Program(graph), Analysis(graph).by_key
    splits = splits_of(folder, program)
    (name,) = graph.outputs
    output = Output(name=name, value=name, kind="logits", reason="a classifier of ImageNet")
    operands = [site for site in by_key.values() if site.role == "activation"]
    feeds = Feeds(splits.calibration, 16, "cpu")
    evaluator = Evaluator(
        program=program,
        splits=splits,
        task=Task(outputs=(output,)),
        sites=by_key,
        calibration=observe(program, feeds(), operands),
        weights=WeightStates(program, by_key, feeds),
        batch=16,
    )
    rows = [("activations alone", None), ("int8 weights", "int8_channel")]
    rows += [(method, f"int4_channel:{words}") for method, words in METHODS.items()]
    for method, weight in rows:
        specs = {"weight": weight, "activation": ACTIVATION}
        chosen = {
            key: quantizer(spec)
            for key, site in by_key.items()
            if (spec := specs.get(site.role)) is not None
        }
        quality = evaluator.measure(Assignment.of(chosen), "report")
        yield {
            "model": "efficientnet-lite0", "method": method, "loss": quality.loss,
            "stderr": quality.stderr, "agreement": 1 - quality.flip_rate,
            "samples": quality.samples,
        }  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photographs", type=Path)
    parser.add_argument("--model", default="zoo:efficientnet-lite0")
    given = parser.parse_args(arguments)
    write("efficientnet.csv", list(measured(given.model, given.photographs)))


if __name__ == "__main__":
    main()
