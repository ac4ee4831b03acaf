"""Networks of two random layers, which read and write what a caller has: Vela's cycles and ours.

    python -m studies.npu_vela.borders --vela /path/to/vela --seed 23

A caller's maps lie pixel after pixel, not in bricks of channels. The first layer reads one, of 1
to 128 channels; the last one writes one, or a row for a fully connected layer. The rule is read
from Vela's source; `--classic` asks for the first layers of well-known networks instead.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from dse.export.litert.file import File
from dse.graph.ir.assignment import Assignment
from dse.model import open_model
from dse.predict import Usage, predict
from hwmodels.devices.load import load_device
from hwmodels.formats.catalog import quantizer
from studies.npu_vela.net import Net
from studies.npu_vela.vela import DEVICES, operators, printed

CHANNELS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)
OUTPUTS = (8, 10, 16, 24, 32, 64, 96, 128)
PLACES = (12, 130)
KERNELS, STRIDES = (1, 3, 5, 7), (1, 2, 2, 3)
FIRST, LAST = ("convolution", "convolution", "depthwise", "pool"), ("convolution", "dense")
LONGEST = 2**16
"""Elements of a row from which on Vela runs no fully connected layer."""
NEAR = 0.15


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Two layers and the map that they read."""

    kind: str
    shape: tuple[int, int, int]
    """Channels, height and width."""
    kernel: int
    stride: int
    outputs: int
    """Channels between."""
    last: str = "convolution"
    classes: int = 16
    """Channels of the output."""


CLASSIC = {
    "ResNet, 7 x 7 / 2": Pair(kind="convolution", shape=(3, 224, 224), kernel=7, stride=2,
                              outputs=64),
    "MobileNet, 3 x 3 / 2": Pair(kind="convolution", shape=(3, 224, 224), kernel=3, stride=2,
                                 outputs=32),
    "EfficientNet-Lite, 3 x 3 / 2": Pair(kind="convolution", shape=(3, 320, 320), kernel=3,
                                         stride=2, outputs=32),
    "YOLO on slices, 12 channels": Pair(kind="convolution", shape=(12, 208, 208), kernel=3,
                                        stride=1, outputs=32),
    "VGG, 3 x 3": Pair(kind="convolution", shape=(3, 224, 224), kernel=3, stride=1, outputs=64),
    "features of 64 channels, pooled": Pair(kind="pool", shape=(64, 56, 56), kernel=2, stride=2,
                                            outputs=64),
    "features of 32 channels, depthwise / 2": Pair(kind="depthwise", shape=(32, 112, 112),
                                                   kernel=3, stride=2, outputs=32),
}  # fmt: skip


def drawn(seed: int, number: int) -> Pair:
    """A pair of random layers."""
    rng = np.random.default_rng([seed, number])
    kind, last = str(rng.choice(FIRST)), str(rng.choice(LAST))
    channels, outputs = int(rng.choice(CHANNELS)), int(rng.choice(OUTPUTS))
    height, width = (int(one) for one in rng.integers(*PLACES, 2))
    kernel, stride = int(rng.choice(KERNELS)), int(rng.choice(STRIDES))
    if kind == "pool":
        kernel = 2 if kernel < 4 else 3
    if kind == "depthwise":
        channels, kernel = max(channels, 2), max(kernel, 3)
    between = outputs if kind == "convolution" else channels
    if between * -(-height // stride) * -(-width // stride) >= LONGEST:
        last = "convolution"
    return Pair(
        kind=kind, shape=(channels, height, width), kernel=kernel, stride=stride, last=last,
        outputs=outputs, classes=int(rng.choice(OUTPUTS)),
    )  # fmt: skip


def written(one: Pair, folder: Path) -> Path:
    """The network, as ONNX and beside it for Vela."""
    net = Net(name="pair", file=File(), shape=one.shape)
    if one.kind == "pool":
        value = net.pool("layer", "image", one.kernel, one.stride)
    else:
        deep = one.kind == "depthwise"
        count = one.shape[0] if deep else one.outputs
        value = net.conv("layer", "image", count, one.kernel, stride=one.stride, depthwise=deep)
    if one.last == "dense":
        net.save(folder, net.dense("last", net.flat("row", value), one.classes))
    else:
        net.save(folder, net.conv("last", value, one.classes, 1))
    return folder / "pair.onnx"


def compared(vela: str, pair: Pair) -> Iterator[dict[str, object]]:
    """A row a layer and device."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = open_model(str(written(pair, folder)))
        formats = {
            site.key: quantizer("int8_channel" if site.role == "weight" else "int8:static")
            for site in model.analysis.sites
        }
        predictions = predict(
            model.graph, list(DEVICES), [], usage=Usage(dims={}),
            assignment=Assignment.of(formats),
        )  # fmt: skip
        nodes = {node: r.name for r in model.analysis.regions for node in r.nodes}
        for prediction in predictions:
            device = prediction.device
            hertz = load_device(device).unit("matrix").clock_hz.value
            ours = {part: cost.latency_s * hertz for part, cost in prediction.cost.parts}
            printed(vela, folder, "pair", device)
            rows = operators(folder, "pair", device)
            for layer in ("layer", "last"):
                # Rarely an activation is an operator of its own, which is named as the layer is.
                found = [one for one in rows if str(one["name"]).startswith(layer)]
                yield {
                    "pair": pair, "device": device, "layer": layer, "ours": ours[nodes[layer]],
                    "vela": sum(int(str(one["cycles"])) for one in found),
                }  # fmt: skip


def main() -> None:
    """Compare, and print a line a device and layer."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vela", required=True, help="the command of ethos-u-vela 5.2.0")
    parser.add_argument("--seed", type=int, default=23)
    parser.add_argument("--count", type=int, default=20, help="pairs")
    parser.add_argument("--classic", action="store_true", help="well-known first layers instead")
    asked = parser.parse_args()
    random = {str(number): drawn(asked.seed, number) for number in range(asked.count)}
    every = CLASSIC if asked.classic else random
    table = pd.DataFrame([
        {**row, "name": name} for name, one in every.items() for row in compared(asked.vela, one)
    ])  # fmt: skip
    table["ratio"] = table.ours / table.vela
    for (device, layer), found in table.groupby(["device", "layer"]):
        off = (found.ratio - 1).abs()
        print(
            f"{device}, {layer}: {len(found)}, off by a median of {off.median():.1%}, "
            f"{off.max():.0%} at most, {(off <= NEAR).mean():.0%} within {NEAR:.0%}"
        )
    for row in table[(table.ratio - 1).abs() > NEAR].itertuples():
        print(f"  {row.device}, {row.layer}: {row.ratio:.2f} of Vela's, {row.pair}")


if __name__ == "__main__":
    main()
