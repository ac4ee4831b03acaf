"""Depthwise convolutions and pools of random shapes on a U85: Vela's blocks and cycles, and ours.

    python -m studies.npu_vela.areas --vela /path/to/vela --seed 3

Each stands between two convolutions of one tap, so that its maps lie in bricks as inner ones do.
The rule is read from Vela's source; no layer was looked at while it was written.
"""

from __future__ import annotations

import argparse
import re
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from dse.export.litert.file import File
from hwmodels.devices.load import load_device
from hwmodels.estimators.npu.operation import Operation
from hwmodels.estimators.npu.schedule import schedule
from hwmodels.estimators.npu.system import System, system_of
from studies.npu_vela.net import Net
from studies.npu_vela.vela import operators, printed

DEVICE = "ethos-u85-512"
CHANNELS = (8, 16, 24, 32, 48, 64, 96, 128, 160, 256)
PLACES = (6, 64)
"""Rows and columns, at least and at most."""
KERNELS, WINDOWS, STRIDES = (3, 5, 7), (2, 3), (1, 2)
POOLS = 0.35
"""Share of pools."""
HIDDEN = 1e5
"""Cycles of the operation before, behind which weights are staged."""
NEAR = 0.15
NAMES = {"pool": "MaxPool", "depthwise": "DepthwiseConv2D"}
"""Of Vela's operators."""


def layer(seed: int, number: int) -> Operation:
    """A depthwise convolution or a maximum pool of random sizes."""
    rng = np.random.default_rng([seed, number])
    channels, stride = int(rng.choice(CHANNELS)), int(rng.choice(STRIDES))
    height, width = (int(one) for one in rng.integers(PLACES[0], PLACES[1] + 1, 2))
    pool = bool(rng.random() < POOLS)
    side = int(rng.choice(WINDOWS if pool else KERNELS))
    rows, columns = (
        (size - side) // stride + 1 if pool else -(-size // stride) for size in (height, width)
    )
    return Operation(
        kind="pool" if pool else "depthwise",
        source=(height, width, channels),
        target=(rows, columns, channels),
        kernel=(side, side),
        stride=(stride, stride),
        result="maximum" if pool else "product",
        weight_bits=0.0 if pool else 8.0,
    )


def by_vela(vela: str, one: Operation) -> tuple[tuple[int, ...], int]:
    """The block and the cycles of an operation that Vela has between two convolutions."""
    height, width, channels = one.source
    net = Net(name="layer", file=File(), shape=(channels, height, width))
    before = net.conv("before", "image", channels, (1, 1))
    if one.kind == "pool":
        value = net.pool("layer0", before, one.kernel[0], one.stride[0])
    else:
        value = net.conv(
            "layer0", before, channels, one.kernel, stride=one.stride[0], depthwise=True
        )
    with tempfile.TemporaryDirectory() as folder:
        net.save(Path(folder), net.conv("after", value, channels, (1, 1)))
        text = printed(vela, Path(folder), "layer", DEVICE)
        found = operators(Path(folder), "layer", DEVICE)
    block = re.search(rf"Operation {NAMES[one.kind]}.*?OFM Block=\[([\d, ]+)\]", text, re.DOTALL)
    assert block is not None, "the schedule names the block of each operation"
    (cycles,) = (int(str(row["cycles"])) for row in found if row["operator"] == NAMES[one.kind])
    return tuple(map(int, block[1].split(","))), cycles


def compared(vela: str, seed: int, count: int, system: System) -> pd.DataFrame:
    """A row a layer: whether blocks are alike, and cycles."""
    found = []
    for number in range(count):
        one = layer(seed, number)
        run = schedule(one, system, HIDDEN)
        assert run.tiling is not None, "depthwise convolutions and pools run in blocks"
        block, cycles = by_vela(vela, one)
        found.append({
            "kind": one.kind, "alike": run.tiling.block == block, "vela": cycles,
            "ours": run.cycles,
        })  # fmt: skip
    return pd.DataFrame(found)


def main() -> None:
    """Compare, and print a line a kind."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vela", required=True, help="the command of ethos-u-vela 5.2.0")
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--count", type=int, default=40, help="layers")
    asked = parser.parse_args()
    every = compared(asked.vela, asked.seed, asked.count, system_of(load_device(DEVICE)))
    for kind, found in every.groupby("kind"):
        off = (found.ours / found.vela - 1).abs()
        print(
            f"{kind}: {len(found)} layers, {found.alike.mean():.0%} in Vela's blocks, cycles off "
            f"by a median of {off.median():.1%}, {off.max():.1%} at most, "
            f"{(off <= NEAR).mean():.0%} within {NEAR:.0%}"
        )


if __name__ == "__main__":
    main()
