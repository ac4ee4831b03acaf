"""Networks with their crops of photographs: what every tool of the study is given, and no more."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from PIL import Image  # type: ignore[import-not-found, unused-ignore]

from dse.zoo.catalogue import resolve
from dse.zoo.data import fashion
from dse.zoo.image_folder import PIXEL_DEVIATION, PIXEL_MEAN, SUFFIXES
from studies.vision_recipes import mobilenet, texts, transformer

Images = NDArray[np.float32]
CROPS = 8
"""Of each photograph, for each purpose: squares of 35 to 100 % of its shorter side, mirrored or
not."""
KNOWN, DEVELOPMENT = 0.34, 0.28
"""Shares of the photographs that tools are given, and on which methods were chosen; the rest is
for the report."""
LONGEST = 800
"""Pixels of the shorter side that a photograph is brought to first."""
CALIBRATION, SEARCH = 64, 48
SURE = 0.4
"""Probability of the first class from which on a report crop counts."""
BATCH = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """A network, and what its pixels have to look like."""

    write: Callable[[Path], object]
    pixels: int
    mean: float | Sequence[float]
    deviation: float | Sequence[float]
    crops: int = CROPS
    """Of each photograph that is not for tools."""
    sizes: tuple[int, int] = (CALIBRATION, SEARCH)


NETWORKS = {
    "efficientnet-lite0": Network(
        write=lambda path: shutil.copy(resolve("efficientnet-lite0").path, path),
        pixels=224, mean=PIXEL_MEAN, deviation=PIXEL_DEVIATION,
    ),
    "mobilenet-v2": Network(
        write=mobilenet.export_to, pixels=mobilenet.PIXELS, mean=127.5, deviation=127.5
    ),
    # Fewer crops than of the others: one of them costs as much as fifteen of MobileNetV2's.
    "vit-s14": Network(
        write=transformer.export_to, pixels=transformer.PIXELS, mean=transformer.PIXEL_MEAN,
        deviation=transformer.PIXEL_DEVIATION, crops=4, sizes=(32, 24),
    ),
}  # fmt: skip
OWN_DATA = "fashion-resnet"


def prepare(name: str, photographs: Path, work: Path) -> None:
    """Writes `model.onnx`, and `data.npz` with images and full precision's logits.

    Photographs (below the folder, too) are for calibration and search, of which those are
    different crops, for development or for the report. fashion-resnet and networks of text have
    data of their own.
    """
    work.mkdir(parents=True, exist_ok=True)
    if (work / "data.npz").exists():
        return
    model = work / "model.onnx"
    splits: Mapping[str, NDArray[Any]]
    if name == OWN_DATA:
        shutil.copy(resolve(name).path, model)
        splits = {part: fashion(part).inputs["image"][:count] for part, count in OWN_SIZES.items()}
    elif name in texts.NETWORKS:
        texts.write(name, model)
        splits = texts.read(name)
    else:
        NETWORKS[name].write(model)
        splits = cut(NETWORKS[name], photographs)
    arrays: dict[str, NDArray[Any]] = {}
    for part, images in splits.items():
        logits = run(model, images)
        kept = slice(None)
        if part in ("development", "report") and name in NETWORKS and logits.ndim == 2:
            kept = _sure(logits)  # type: ignore[assignment]
        arrays |= {part: images[kept], f"{part}_logits": logits[kept]}
    np.savez(work / "data.npz", **arrays)  # type: ignore[arg-type]


OWN_SIZES = {"calibration": 64, "search": 250, "report": 1000}


def cut(network: Network, photographs: Path) -> dict[str, Images]:
    """Crops for each purpose."""
    rng = np.random.default_rng(0)
    files = sorted(path for path in photographs.rglob("*") if path.suffix.lower() in SUFFIXES)
    order = rng.permutation(len(files))
    ends = [round(share * len(files)) for share in (KNOWN, KNOWN + DEVELOPMENT)]
    known, development, unseen = np.split(order, ends)
    first = [list(crops(network, files[i], 2 * CROPS, rng)) for i in known]
    rest = {
        part: np.stack([c for i in places for c in crops(network, files[i], network.crops, rng)])
        for part, places in (("development", development), ("report", unseen))
    }
    return {
        "calibration": _spread([c for part in first for c in part[:CROPS]], network.sizes[0]),
        "search": _spread([c for part in first for c in part[CROPS:]], network.sizes[1]),
        **rest,
    }


def crops(network: Network, path: Path, count: int, rng: np.random.Generator) -> Iterator[Images]:
    """Random crops of a photograph, (3, height, width)."""
    with Image.open(path) as opened:
        opened.draft("RGB", (LONGEST, LONGEST))
        photograph = opened.convert("RGB")
    shrink = min(LONGEST / min(photograph.size), 1.0)
    photograph = photograph.resize([round(size * shrink) for size in photograph.size])
    short, pixels = min(photograph.size), network.pixels
    for _ in range(count):
        side = int(short * rng.uniform(0.35, 1.0))
        left = int(rng.integers(0, photograph.width - side + 1))
        top = int(rng.integers(0, photograph.height - side + 1))
        box = (left, top, left + side, top + side)
        values = np.asarray(photograph.crop(box).resize((pixels, pixels)), np.float32)
        values = values.transpose(2, 0, 1)
        if rng.random() < 0.5:
            values = values[..., ::-1]
        mean, deviation = (
            np.asarray(x, np.float32).reshape(-1, 1, 1) for x in (network.mean, network.deviation)
        )
        yield np.ascontiguousarray((values - mean) / deviation, np.float32)


def _spread(images: list[Images], count: int) -> Images:
    places = np.linspace(0, len(images) - 1, count).round().astype(int)
    return np.stack([images[place] for place in places])


def _sure(logits: Images) -> NDArray[np.bool_]:
    shifted = np.exp(logits - logits.max(-1, keepdims=True))
    found: NDArray[np.bool_] = (shifted / shifted.sum(-1, keepdims=True)).max(-1) > SURE
    return found


def input_of(model: Path) -> str:
    """The name of the network's only input."""
    graph = onnx.load(model, load_external_data=False).graph
    held = {tensor.name for tensor in graph.initializer}
    (name,) = (value.name for value in graph.input if value.name not in held)
    return str(name)


def run(model: Path, images: NDArray[Any], *, optimised: bool = True) -> Images:
    """Logits by ONNX Runtime on one core."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    if not optimised:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    # MCT writes the batch that it saw into files of transformers: every part has as many.
    count, short = len(images), -len(images) % BATCH
    whole = np.concatenate([images, np.repeat(images[-1:], short, axis=0)])
    parts = [whole[start : start + BATCH] for start in range(0, len(whole), BATCH)]
    return np.concatenate([session.run(None, {name: part})[0] for part in parts])[:count]
