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
import math
import os
import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pandas as pd
import torch

from dse.api.search import search
from dse.errors import SpaceError
from dse.export import export_trial
from dse.zoo.split import Split, Splits
from hwmodels.yaml_file import read_yaml
from studies.other_tools.score import cost, log_softmax
from studies.vision_recipes import texts
from studies.vision_recipes.attention import attends
from studies.vision_recipes.calibrators import METHODS, quantized
from studies.vision_recipes.places import everywhere, products_alone
from studies.vision_recipes.tasks import NETWORKS, OWN_DATA, Images, input_of, prepare, run

FOLDER = Path(__file__).parent
RESULTS = FOLDER / "results"
SHARES = (1.0, 0.745, 0.624)
"""Of the bytes of 8-bit weights, scales and biases not counted: those no width changes."""
OURS = {"dse": "gptq", "dse blockwise": "blockwise"}
"""How weights are rounded, by what the table says."""
PEERS = {
    "mct": SHARES, "mct gradient": SHARES,
    "aimet minmax": SHARES[:1], "aimet percentile": SHARES, "aimet": SHARES,
    "aimet adaround": SHARES,
}  # fmt: skip
"""Budgets of each way to use a tool; the first word is the tool's."""
FEWER = {"vit-s14": SHARES[:2]}
"""Budgets of a network that costs as much as all the others."""
ALL = (*NETWORKS, OWN_DATA, *texts.NETWORKS)
PLACES = ("products", "everywhere")
"""What is rounded: operands of products, or those of additions, means and the outputs as well."""
WIDE, NARROW, NARROW_SHARE = "w8a8", "w4a8", 0.5
"""Uniform trials of every search."""
RANGES = ("absmax", "mse", "percentile99.999")
"""Of activations, one for a network: the search without a budget, which has uniform trials alone,
tries each at 8 bits, and what loses least on the search inputs there is taken at every budget."""
ATTENTION = {
    "name": WIDE, **dict.fromkeys(("q", "k_cache", "v_cache", "probabilities"), "uint8:static")
}  # fmt: skip
"""Of both products of attention, which have no weights."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs every tool on every network and writes `results/budgets.csv`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photographs", type=Path)
    parser.add_argument("--mct", help="a Python with model-compression-toolkit")
    parser.add_argument("--aimet", help="a Python with aimet-onnx")
    parser.add_argument("--tool", action="append", choices=[*OURS, *PEERS], help="of all")
    parser.add_argument("--network", action="append", choices=ALL)
    parser.add_argument("--work", type=Path, default=Path("runs/vision_recipes"))
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    tools = given.tool or [*PEERS, *OURS]
    pythons = {"mct": given.mct, "aimet": given.aimet}
    for network in given.network or ALL:
        work = (given.work / network).resolve()
        prepare(network, given.photographs, work)
        (work / "out").mkdir(exist_ok=True)
        for method in METHODS:
            # Its histograms of every value of 12 layers do not fit in memory.
            attentive = attends(onnx.load(work / "model.onnx").graph)
            if not (attentive and method == "entropy"):
                runtime(method, work)
        for tool in tools:
            if tool in OURS:
                ours(tool, OURS[tool], work)
            elif (python := pythons[tool.split()[0]]) is not None:
                peer(tool, python, work)
        write(network, table(work))


def write(network: str, rows: pd.DataFrame) -> None:
    """Puts the rows of a network in place of those that `results/budgets.csv` has.

    Rows of tools that were not run this time stay as they were; ours are held against the others
    of this time alone.
    """
    RESULTS.mkdir(exist_ok=True)
    file = RESULTS / "budgets.csv"
    rows = rows.assign(network=network)
    if file.exists():
        before = pd.read_csv(file)
        made = ["network", "file"]
        known = pd.MultiIndex.from_frame(before[made]).isin(pd.MultiIndex.from_frame(rows[made]))
        rows = pd.concat([before[~known], rows])
    columns = ["network", *(name for name in rows.columns if name != "network")]
    rows.sort_values(["network", "tool", "share"])[columns].to_csv(
        file, index=False, float_format="%.5g"
    )


def table(work: Path) -> pd.DataFrame:
    """A row a file, with how far ours are from the best of the other tools at their share.

    A tool that was used in several ways is there as the one of least loss on the search crops. The
    best of tools is that of least loss on the report, by places of rounding: a choice in their
    favour.
    """
    found = [json.loads(file.read_text()) for file in sorted((work / "out").glob("*.json"))]
    scores = [scored(work, row["file"], own=row["tool"] in OURS) for row in found]
    losses = [score.pop("losses") for score in scores]
    rows = pd.DataFrame([{**row, **score} for row, score in zip(found, scores, strict=True)])
    family = rows["tool"].str.split().str[0]
    own = rows["tool"].isin(list(OURS))
    for share, others in rows[~own].groupby("share"):
        chosen = others.groupby(family)["search_loss"].idxmin()
        rows.loc[chosen, "chosen"] = True
        for name in [n for n in PLACES if own.any() and n in losses[rows.index[own][0]]]:
            best = others.loc[chosen, f"{name}_loss"].idxmin()
            for place in rows.index[own & (rows["share"] == share)]:
                apart = losses[place][name] - losses[best][name]
                rows.loc[place, f"{name}_rival"] = rows.loc[best, "tool"]
                rows.loc[place, f"{name}_over"] = apart.mean()
                rows.loc[place, f"{name}_over_stderr"] = apart.std(ddof=1) / len(apart) ** 0.5
    return rows


def note(work: Path, row: dict[str, object]) -> None:
    """Writes what a tool took beside its file."""
    file = Path(str(row["file"]))
    (work / "out" / f"{file.name.removesuffix('.onnx')}.json").write_text(json.dumps(row))


def peer(tool: str, python: str, work: Path) -> None:
    """Another tool in its own environment, for the budgets that it has not met yet."""
    shares = [share for share in PEERS[tool] if share in budgets_of(work)]
    missing = [s for s in shares if not (work / "out" / f"{stem(tool, s)}.json").exists()]
    if not missing:
        return
    environment = {**os.environ, "PYTHONPATH": str(FOLDER.parents[1]), "OMP_NUM_THREADS": "1"}
    command = [
        python,
        str(FOLDER / f"{tool.split(maxsplit=1)[0]}.py"),
        str(work),
        str(work / "out"),
        tool,
        *map(str, missing),
    ]
    with (work / f"{stem(tool, missing[0])}.log").open("w") as log:
        subprocess.run(command, env=environment, stdout=log, stderr=log, check=True)


def budgets_of(work: Path) -> tuple[float, ...]:
    """The shares that a network's rows have."""
    return FEWER.get(work.name, SHARES)


def stem(tool: str, share: float) -> str:
    """Of the names of a tool's files."""
    return f"{tool.replace(' ', '-')}-{share}"


def runtime(method: str, work: Path) -> None:
    """ONNX Runtime's own quantizer, 8 bits throughout."""
    file = f"{stem(f'onnxruntime {method}', 1.0)}.onnx"
    if not (work / "out" / file).exists():
        seconds = quantized(work, method, work / "out" / file)
        tool = f"onnxruntime {method}"
        note(work, {"tool": tool, "share": 1.0, "file": file, "cpu_seconds": seconds})


def ours(tool: str, rounding: str, work: Path) -> None:
    """A `dse search` a budget, exported where it loses least on the search split."""
    for share in budgets_of(work):
        folder, most = _folder(work, tool, share), limit(work, tool, share)
        if not (folder / "front.csv").exists():
            found = RANGES if math.isinf(most) else (chosen_range(_folder(work, tool, 1.0)),)
            searched(folder, rounding, work, most, found)
        seconds = float((folder / "cpu_seconds").read_text())
        manifest = json.loads((folder / "manifest.json").read_text())
        took = {"cpu_seconds": seconds, "evaluations": manifest["forward_equivalents"]["total"]}
        front = pd.read_csv(folder / "front.csv")
        exported(folder, front.sort_values("quality_loss").iloc[0], tool, share, took)
    trials = pd.read_csv(folder / "trials.csv")
    exported(folder, trials[trials["name"] == NARROW].iloc[0], tool, NARROW_SHARE, {})


def limit(work: Path, tool: str, share: float) -> float:
    """The most bytes of a search for a share of the weights' own; infinite for all of them.

    Peers are given weights alone, `dse` counts scales and biases, too: the search of all bytes,
    which comes first, says how many those are.
    """
    if share == 1:
        return math.inf
    weights = cost(work / "model.onnx").weight_bytes
    trials = pd.read_csv(_folder(work, tool, 1.0) / "trials.csv")
    (whole,) = trials.loc[trials["name"] == WIDE, "weight_bytes"]
    return float(whole - (1 - share) * weights)


def _folder(work: Path, tool: str, share: float) -> Path:
    return work / stem(tool, share)


def chosen_range(folder: Path) -> str:
    """The range of activations that loses least on the search inputs at 8 bits."""
    front = pd.read_csv(folder / "front.csv").sort_values("quality_loss")
    return str(front["name"].iloc[0]).removeprefix(WIDE).removeprefix("-") or RANGES[0]


def searched(folder: Path, rounding: str, work: Path, most: float, ranges: Sequence[str]) -> None:
    """One search within a budget of bytes, and the seconds that it took.

    The first range is that of all widths, the others are uniform trials of the widest.
    """
    space = read_yaml(FOLDER / "space.yaml", SpaceError, what="space file")
    assert isinstance(space, dict)
    data = np.load(work / "data.npz")
    name, is_text = input_of(work / "model.onnx"), data["search"].dtype == np.int64
    # Handed over as they are: a file of samples would be dealt anew, report crops among them.
    # Its own report, which decides about its front, is of the same crops: those of the table are
    # kept from every tool.
    given = {part: data[part] for part in ("calibration", "search")}
    given["report"] = data["search"]
    splits = Splits(**{
        part: Split(
            inputs={name: images}, labels=None, kind="tokens" if is_text else "images"
        )
        for part, images in given.items()
    })  # fmt: skip
    space["data"] |= {part: len(images) for part, images in given.items()}
    menu = space["candidates"][0]["use"]
    (wide,) = (choice for choice in menu if choice["name"] == WIDE)
    plain = wide["activation"]
    menu += [{**wide, "name": f"{WIDE}-{n}", "activation": f"{plain}:{n}"} for n in ranges[1:]]
    for choice in menu[: len(menu) - len(ranges) + 1]:
        choice["activation"] = f"{plain}:{ranges[0]}"
    graph = onnx.load(work / "model.onnx").graph
    if any(node.op_type == "ConvTranspose" for node in graph.node):
        # No rounding that is learned knows transposed convolutions.
        plain_menu = [dict(choice) for choice in menu]
        space["candidates"].insert(0, {"match": {"kind": "conv2d"}, "use": plain_menu})
    for choice in menu:
        choice["weight"] = f"{choice['weight']}:{rounding}"
    if attends(graph):
        space["candidates"].insert(0, {"match": {"kind": "attention"}, "use": [ATTENTION]})
    if is_text:
        places = graph.input[0].type.tensor_type.shape.dim
        sizes = {place.dim_param: data["search"].shape[1] for place in places[1:]}
        space["scenario"]["phases"]["frame"]["dims"] |= {n: size for n, size in sizes.items() if n}
    shutil.rmtree(folder, ignore_errors=True)
    started = time.process_time()
    constraints = () if math.isinf(most) else (f"weight_bytes<={most!r}",)
    if not constraints:
        space["search"]["trials"] = len(menu)
    search(str(work / "model.onnx"), space, data=splits, constraints=constraints, out=folder)
    (folder / "cpu_seconds").write_text(str(time.process_time() - started))


def exported(
    folder: Path, trial: pd.Series, tool: str, share: float, took: dict[str, object]
) -> None:
    """A trial of a run as a file, and what it took beside it."""
    file = f"{stem(tool, share)}.onnx"
    out = folder.parent / "out" / file
    if not out.exists():
        export_trial(folder, trial=int(trial["trial"]), target="onnx-qdq", out=out)
    note(folder.parent, {"tool": tool, "share": share, "file": file, **took})


def scored(work: Path, file: str, *, own: bool) -> dict[str, Any]:
    """Losses in nats a crop by places of rounding; bytes, of those of 8 bits.

    ONNX Runtime runs without its optimiser. `losses` are those of the crops, by places.
    """
    data = np.load(work / "data.npz")
    as_made, changed = work / "out" / file, work / "changed.onnx"
    if attends(onnx.load(work / "model.onnx").graph):
        # What sums read is compared on networks without attention alone.
        if not own:
            products_alone(as_made, changed)
        paths = {"products": as_made if own else changed}
    elif own:
        everywhere(as_made, data["calibration"], changed)
        paths = {"products": as_made, "everywhere": changed}
    else:
        products_alone(as_made, changed)
        paths = {"products": changed, "everywhere": as_made}
    row: dict[str, Any] = {"losses": {}}
    for name, path in paths.items():
        logits = run(path, data["report"], optimised=False)
        losses = row["losses"][name] = divergences(data["report_logits"], logits)
        row |= {
            f"{name}_loss": losses.mean(), f"{name}_median": np.median(losses),
            f"{name}_stderr": losses.std(ddof=1) / len(losses) ** 0.5,
            f"{name}_agreement": (logits.argmax(-1) == data["report_logits"].argmax(-1)).mean(),
        }  # fmt: skip
    changed.unlink(missing_ok=True)
    found = run(as_made, data["search"], optimised=False)
    whole = cost(work / "model.onnx")
    return {
        **row,
        "search_loss": divergences(data["search_logits"], found).mean(),
        "bytes_share": cost(as_made).weight_bytes / whole.weight_bytes,
    }


def divergences(reference: Images, outputs: Images) -> Images:
    """Of each crop or window: nats, or of embeddings the distance over their spread."""
    if np.allclose(np.linalg.norm(reference, axis=-1), 1, atol=1e-3):
        spread = np.sqrt(np.square(reference - reference.mean(0)).sum(-1).mean())
        distance: Images = np.linalg.norm(outputs - reference, axis=-1) / spread
        return distance
    wanted = log_softmax(reference)
    found = (np.exp(wanted) * (wanted - log_softmax(outputs))).sum(-1)
    mean: Images = found.reshape(len(found), -1).mean(1)
    return mean


if __name__ == "__main__":
    main()
