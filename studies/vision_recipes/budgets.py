"""Weights in 4 and 8 bits, activations in 8, on networks that were not made here: beside peers.

`python -m studies.vision_recipes.budgets PHOTOGRAPHS --mct PYTHON --aimet PYTHON`: a folder of
photographs, and the Pythons of environments that hold `model-compression-toolkit` with
torchvision, onnxruntime and onnxscript, and `aimet-onnx`. Every tool's file is scored by ONNX
Runtime on crops of photographs that no tool saw. What the folder of runs holds already is not run
again.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from dse.api.search import search
from dse.errors import SpaceError
from dse.export import export_trial
from dse.zoo.split import Split, Splits
from hwmodels.yaml_file import read_yaml
from studies.other_tools.score import cost, log_softmax
from studies.vision_recipes.calibrators import METHODS, quantized
from studies.vision_recipes.tasks import NETWORKS, OWN_DATA, prepare, run

FOLDER = Path(__file__).parent
RESULTS = FOLDER / "results"
SHARES = (1.0, 0.745, 0.624)
"""Of the bytes of 8-bit weights, scales and biases not counted: those no width changes."""
OURS = {"dse": "gptq", "dse blockwise": "blockwise"}
"""How weights are rounded, by what the table says."""
UNIFORMS = 2
"""Trials of a search without a budget, which is asked for its widest assignment."""
WIDE, NARROW, NARROW_SHARE = "w8a8", "w4a8", 0.5
"""Uniform trials of every search."""
REPORT = 8
"""Crops of the report that a search makes for itself."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs every tool on every network and writes `results/budgets.csv`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photographs", type=Path)
    parser.add_argument("--mct", help="a Python with model-compression-toolkit")
    parser.add_argument("--aimet", help="a Python with aimet-onnx")
    parser.add_argument("--tool", action="append", choices=OURS, help="ours alone, of both")
    parser.add_argument("--network", action="append", choices=[*NETWORKS, OWN_DATA])
    parser.add_argument("--work", type=Path, default=Path("runs/vision_recipes"))
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    rows: list[dict[str, object]] = []
    for network in given.network or (*NETWORKS, OWN_DATA):
        work = (given.work / network).resolve()
        prepare(network, given.photographs, work)
        (work / "out").mkdir(exist_ok=True)
        for name, python in (("mct", given.mct), ("aimet", given.aimet)):
            if python is not None:
                peer(name, python, work)
        for method in METHODS:
            runtime(method, work)
        for tool in given.tool or OURS:
            ours(tool, OURS[tool], work)
        found = [json.loads(file.read_text()) for file in sorted((work / "out").glob("*.json"))]
        rows += [{"network": network, **row, **scored(work, row["file"])} for row in found]
        RESULTS.mkdir(exist_ok=True)
        pd.DataFrame(rows).to_csv(RESULTS / "budgets.csv", index=False, float_format="%.5g")


def note(work: Path, row: dict[str, object]) -> None:
    """Writes what a tool took beside its file."""
    file = Path(str(row["file"]))
    (work / "out" / f"{file.name.removesuffix('.onnx')}.json").write_text(json.dumps(row))


def peer(name: str, python: str, work: Path) -> None:
    """Another tool in its own environment, for the budgets that it has not met yet."""
    missing = [s for s in SHARES if not (work / "out" / f"{name}-{s}.json").exists()]
    if not missing:
        return
    environment = {**os.environ, "PYTHONPATH": str(FOLDER.parents[1]), "OMP_NUM_THREADS": "1"}
    command = [
        python,
        str(FOLDER / f"{name}.py"),
        str(work),
        str(work / "out"),
        *map(str, missing),
    ]
    with (work / f"{name}.log").open("w") as log:
        subprocess.run(command, env=environment, stdout=log, stderr=log, check=True)


def runtime(method: str, work: Path) -> None:
    """ONNX Runtime's own quantizer, 8 bits throughout."""
    file = f"onnxruntime-{method}-1.0.onnx"
    if not (work / "out" / file).exists():
        seconds = quantized(work, method, work / "out" / file)
        tool = f"onnxruntime {method}"
        note(work, {"tool": tool, "share": 1.0, "file": file, "cpu_seconds": seconds})


def ours(tool: str, rounding: str, work: Path) -> None:
    """A `dse search` a budget, exported where it loses least on the search split."""
    for share in SHARES:
        folder = _folder(work, tool, share)
        if not (folder / "front.csv").exists():
            searched(folder, rounding, work, budget(work, tool, share))
        seconds = float((folder / "cpu_seconds").read_text())
        manifest = json.loads((folder / "manifest.json").read_text())
        took = {"cpu_seconds": seconds, "evaluations": manifest["forward_equivalents"]["total"]}
        front = pd.read_csv(folder / "front.csv")
        exported(folder, front.sort_values("quality_loss").iloc[0], tool, share, took)
    trials = pd.read_csv(folder / "trials.csv")
    exported(folder, trials[trials["name"] == NARROW].iloc[0], tool, NARROW_SHARE, {})


def budget(work: Path, tool: str, share: float) -> tuple[str, ...]:
    """A share of the weights' own bytes as the constraint of a search; none for all of them.

    Peers are given weights alone, `dse` counts scales and biases, too: the search of all bytes,
    which comes first, says how many those are.
    """
    if share == 1:
        return ()
    weights = cost(work / "model.onnx").weight_bytes
    trials = pd.read_csv(_folder(work, tool, 1.0) / "trials.csv")
    (whole,) = trials.loc[trials["name"] == WIDE, "weight_bytes"]
    return (f"weight_bytes<={whole - (1 - share) * weights!r}",)


def _folder(work: Path, tool: str, share: float) -> Path:
    return work / f"{tool.replace(' ', '-')}-{share}"


def searched(folder: Path, rounding: str, work: Path, constraints: tuple[str, ...]) -> None:
    """One search within a budget, and the seconds that it took."""
    space = read_yaml(FOLDER / "space.yaml", SpaceError, what="space file")
    assert isinstance(space, dict)
    data = np.load(work / "data.npz")
    # Handed over as they are: a file of samples would be dealt anew, report crops among them.
    # Its own report is of crops that it has seen: those of the table are kept from every tool.
    given = {part: data[part] for part in ("calibration", "search")}
    given["report"] = data["search"][:REPORT]
    splits = Splits(**{
        part: Split(inputs={"image": images}, labels=None, kind="images")
        for part, images in given.items()
    })  # fmt: skip
    space["data"] |= {part: len(images) for part, images in given.items()}
    for choice in space["candidates"][0]["use"]:
        choice["weight"] = f"{choice['weight']}:{rounding}"
    shutil.rmtree(folder, ignore_errors=True)
    started = time.process_time()
    if not constraints:
        space["search"]["trials"] = UNIFORMS
    search(str(work / "model.onnx"), space, data=splits, constraints=constraints, out=folder)
    (folder / "cpu_seconds").write_text(str(time.process_time() - started))


def exported(
    folder: Path, trial: pd.Series, tool: str, share: float, took: dict[str, object]
) -> None:
    """A trial of a run as a file, and what it took beside it."""
    file = f"{tool.replace(' ', '-')}-{share}.onnx"
    out = folder.parent / "out" / file
    if not out.exists():
        export_trial(folder, trial=int(trial["trial"]), target="onnx-qdq", out=out)
    note(folder.parent, {"tool": tool, "share": share, "file": file, **took})


def scored(work: Path, file: str) -> dict[str, object]:
    """Loss in nats a crop with ONNX Runtime's optimiser and without; bytes, of those of 8 bits."""
    data = np.load(work / "data.npz")
    wanted = log_softmax(data["report_logits"])
    row: dict[str, object] = {}
    for name, optimised in (("", True), ("plain_", False)):
        logits = run(work / "out" / file, data["report"], optimised=optimised)
        losses = (np.exp(wanted) * (wanted - log_softmax(logits))).sum(-1)
        row |= {
            f"{name}loss": losses.mean(), f"{name}median": np.median(losses),
            f"{name}stderr": losses.std(ddof=1) / np.sqrt(len(losses)),
            f"{name}agreement": (logits.argmax(-1) == wanted.argmax(-1)).mean(),
        }  # fmt: skip
    whole = cost(work / "model.onnx")
    return {**row, "bytes_share": cost(work / "out" / file).weight_bytes / whole.weight_bytes}


if __name__ == "__main__":
    main()
