"""AIMET's AMP, Sony's MCT and `dse search` on one task, every recipe scored by ONNX Runtime.

`python -m studies.other_tools.run --aimet PYTHON --mct PYTHON`: Pythons of environments that hold
`aimet-onnx`, and `model-compression-toolkit` with torchvision, onnxruntime and onnxscript.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import onnxruntime
import pandas as pd
import torch

import dse
from dse.export import export_trial
from dse.zoo.catalogue import resolve
from dse.zoo.data import fashion
from dse.zoo.split import Split, Splits
from studies.other_tools.score import Cost, Quality, cost, quality

FOLDER = Path(__file__).parent
SEEDS = 3
CALIBRATION = 128
SHORT = 12
"""Trials of a search that asks for fewer evaluations than any other tool that evaluates."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """What one search of one tool returned and took."""

    tool: str
    seed: int
    evaluations: float
    """Forward passes over the search split, or what equals them."""
    cpu_seconds: float
    files: tuple[str, ...]


def main() -> None:
    """Searches with every tool and seed, scores what they return, writes `results/`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--aimet", required=True, help="a Python with aimet-onnx")
    parser.add_argument("--mct", required=True, help="a Python with model-compression-toolkit")
    parser.add_argument("--work", type=Path, default=Path("runs/other_tools"))
    parser.add_argument("--seeds", type=int, default=SEEDS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    work = arguments.work.resolve()
    prepare(work)
    searches: list[Search] = []
    for seed in range(arguments.seeds):
        scripts = (("aimet", arguments.aimet, "aimet_amp"), ("mct", arguments.mct, "mct_sweep"))
        searches += [peer(name, python, script, work, seed) for name, python, script in scripts]
        searches.append(ours("dse", work, seed))
        searches.append(ours("dse-short", work, seed, trials=SHORT))
    write(work, searches)


def prepare(work: Path) -> None:
    """The model, and the data of all splits with full precision's logits."""
    work.mkdir(parents=True, exist_ok=True)
    model = resolve("fashion-resnet").path
    shutil.copy(model, work / "model.onnx")
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    arrays: dict[str, np.ndarray] = {}
    for name in ("calibration", "search", "report"):
        split = fashion(name)
        images = split.inputs["image"].astype(np.float32)
        arrays |= {name: images, f"{name}_labels": np.asarray(split.labels)}
        arrays[f"{name}_logits"] = session.run(None, {"image": images})[0]
    np.savez(work / "data.npz", **arrays)  # type: ignore[arg-type]


def peer(name: str, python: str, script: str, work: Path, seed: int) -> Search:
    """One search of another tool in its own environment."""
    summary = work / f"{name}-{seed}.json"
    if not summary.exists():
        environment = {**os.environ, "PYTHONPATH": str(FOLDER.parents[1]), "OMP_NUM_THREADS": "1"}
        command = [python, str(FOLDER / f"{script}.py"), str(work), str(work), str(seed)]
        with (work / f"{name}-{seed}.log").open("w") as log:
            subprocess.run(command, env=environment, stdout=log, stderr=log, check=True)
    found = json.loads(summary.read_text())
    return Search(
        tool=name,
        seed=seed,
        evaluations=found["evaluations"],
        cpu_seconds=found["cpu_seconds"],
        files=tuple(point["file"] for point in found["points"]),
    )


def ours(tool: str, work: Path, seed: int, trials: int | None = None) -> Search:
    """One `dse search`, every point of its front exported as Q/DQ.

    Args:
        tool: what the tables call it.
        work: the folder of all runs.
        seed: of the calibration images and of the search.
        trials: instead of the space file's.
    """
    data = np.load(work / "data.npz")
    order = np.random.default_rng(seed).permutation(len(data["calibration"]))[:CALIBRATION]
    rows = {"calibration": order, "search": slice(None), "report": slice(None)}
    # Handed over as they are: a file of samples would be dealt anew, report images among them.
    splits = Splits(**{
        part: Split(
            inputs={"image": data[part][kept]}, labels=data[f"{part}_labels"][kept], kind="images"
        )
        for part, kept in rows.items()
    })  # fmt: skip
    folder = work / f"{tool}-{seed}"
    started = time.process_time()
    # Whoever has a finished run of this seed keeps it.
    if not (folder / "front.json").exists():
        shutil.rmtree(folder, ignore_errors=True)
        dse.search(None, FOLDER / "space.yaml", data=splits, seed=seed, trials=trials, out=folder)
        (folder / "cpu_seconds").write_text(str(time.process_time() - started))
    manifest = json.loads((folder / "manifest.json").read_text())
    files = []
    for entry in json.loads((folder / "front.json").read_text()):
        file = f"{tool}-{seed}-{entry['trial']}.onnx"
        export_trial(folder, trial=entry["trial"], target="onnx-qdq", out=work / file)
        files.append(file)
    return Search(
        tool=tool,
        seed=seed,
        evaluations=manifest["forward_equivalents"]["total"],
        cpu_seconds=float((folder / "cpu_seconds").read_text()),
        files=tuple(files),
    )


def write(work: Path, searches: list[Search]) -> None:
    """`points.csv`: every recipe; `searches.csv`: every search."""
    data = np.load(work / "data.npz")
    rows = []
    for search in searches:
        for number, file in enumerate(search.files):
            worth: Quality = quality(
                work / file, data["report"], data["report_labels"], data["report_logits"]
            )
            price: Cost = cost(work / file)
            origin = {"tool": search.tool, "seed": search.seed, "point": number}
            rows.append({**origin, **asdict(price), **asdict(worth)})
    results = FOLDER / "results"
    results.mkdir(exist_ok=True)
    pd.DataFrame(rows).to_csv(results / "points.csv", index=False)
    columns = ["tool", "seed", "evaluations", "cpu_seconds"]
    frame = pd.DataFrame([asdict(search) for search in searches])
    frame[columns].to_csv(results / "searches.csv", index=False)


if __name__ == "__main__":
    main()
