"""Chains of fully connected layers of random widths: Vela's decisions and cycles beside ours.

    python -m studies.npu_vela.chains --vela /path/to/vela --seed 2

Weights that are read once are copied to the SRAM, or not, by what the layer before leaves time
for; chains show that rule alone. It was read off 60 other chains; these seeds were not looked at.
"""

from __future__ import annotations

import argparse
import tempfile
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from dse.export.litert.file import File
from hwmodels.devices.load import load_device
from hwmodels.estimators.npu.lowering import square
from hwmodels.estimators.npu.operation import Operation
from hwmodels.estimators.npu.schedule import Schedule, schedules
from hwmodels.estimators.npu.system import System, system_of
from studies.npu_vela.net import Net
from studies.npu_vela.vela import compiled, operators

DEVICE = "ethos-u65-512"
LAYERS = 7
ROWS = (1, 1, 1, 8, 32)
NEAR = 0.15


def chain(seed: int, number: int) -> tuple[int, list[int]]:
    """Rows, and the widths of a chain: 8 to 512 in steps of 8, evenly in their logarithm."""
    rng = np.random.default_rng([seed, number])
    widths = np.maximum(8, np.rint(2 ** rng.uniform(3.5, 9.0, LAYERS + 1) / 8) * 8)
    return int(rng.choice(ROWS)), [int(width) for width in widths]


def by_vela(vela: str, rows: int, widths: list[int]) -> list[dict[str, object]]:
    """Vela's operators of a chain, in order."""
    net = Net(name="chain", shape=(rows, widths[0]), file=File())
    value = "image"
    for number, width in enumerate(widths[1:]):
        value = net.dense(f"layer{number}", value, width, relu=True)
    with tempfile.TemporaryDirectory() as folder:
        net.save(Path(folder), value)
        compiled(vela, Path(folder), "chain", DEVICE)
        return operators(Path(folder), "chain", DEVICE)


def by_us(rows: int, widths: list[int], system: System) -> tuple[Schedule, ...]:
    """Our schedules of a chain."""
    pairs = pairwise(widths)
    layers = [
        Operation(
            kind="product", source=(*square(rows), source), target=(*square(rows), target),
            linear_source=rows > 1, linear_target=rows > 1, weight_bits=8.0,
        )
        for source, target in pairs
    ]  # fmt: skip
    return schedules(layers, system, 0.0)


def compared(vela: str, seed: int, count: int) -> pd.DataFrame:
    """A row a layer: cycles, and whether its weights are held in the SRAM."""
    system, found = system_of(load_device(DEVICE)), []
    for number in range(count):
        rows, widths = chain(seed, number)
        runs = by_us(rows, widths, system)
        for place, (theirs, run) in enumerate(zip(by_vela(vela, rows, widths), runs, strict=True)):
            maps = rows * (widths[place] + widths[place + 1])
            held = int(str(theirs["sram_bytes"])) - maps
            weights = run.operation.source[2] * run.operation.target[2]
            found.append({
                "vela": int(str(theirs["cycles"])), "ours": run.cycles,
                "vela_stages": held > weights / 4, "stages": run.staging is not None,
            })  # fmt: skip
    return pd.DataFrame(found)


def main() -> None:
    """Compare, and print a line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vela", required=True, help="the command of ethos-u-vela 5.2.0")
    parser.add_argument("--seed", type=int, default=2)
    parser.add_argument("--count", type=int, default=40, help="chains")
    asked = parser.parse_args()
    found = compared(asked.vela, asked.seed, asked.count)
    off = (found.ours / found.vela - 1).abs()
    print(
        f"{len(found)} layers: {(found.stages == found.vela_stages).mean():.0%} staged alike, "
        f"median error {off.median():.1%}, {(off <= NEAR).mean():.0%} within {NEAR:.0%}, Spearman "
        f"{spearmanr(found.ours, found.vela).statistic:.3f}"
    )


if __name__ == "__main__":
    main()
