"""Coded bytes of single layers of random shapes by Vela, beside the law of `npu/weights.py`.

    python -m studies.npu_vela.coding --vela /path/to/vela

Weights are normal, with a scale a channel. These layers are where the one constant of the law,
`UNEVEN`, was read off (`--seed 7`); other seeds were not looked at.
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
from hwmodels.estimators.npu.blocks import tiling_of
from hwmodels.estimators.npu.operation import Operation, OperationKind
from hwmodels.estimators.npu.system import system_of
from hwmodels.estimators.npu.weights import scale_bytes, weight_bytes
from studies.npu_vela.net import Net
from studies.npu_vela.vela import DEVICES, printed

CHANNELS = (8, 12, 16, 24, 32, 40, 48, 64, 96)
SIDES = (1, 3, 5, 7)
SIZE = 16
LEAST = 500
"""Weights of the smallest layer that counts: of fewer, bytes of headers are most."""


def layer(seed: int, number: int) -> Operation:
    """A convolution, a depthwise one or a product of random sizes."""
    rng = np.random.default_rng([seed, number])
    kinds: tuple[OperationKind, ...] = ("convolution", "product", "depthwise")
    kind = kinds[int(rng.choice(3, p=(0.5, 0.3, 0.2)))]
    source, target = (int(one) for one in rng.choice(CHANNELS, 2))
    kernel = (int(rng.choice(SIDES)), int(rng.choice(SIDES)))
    if kind == "product":
        return Operation(kind=kind, source=(1, 1, 8 * source), target=(1, 1, target),
                         weight_bits=8.0)  # fmt: skip
    target = source if kind == "depthwise" else target
    return Operation(kind=kind, source=(SIZE, SIZE, source), target=(SIZE, SIZE, target),
                     kernel=kernel, weight_bits=8.0)  # fmt: skip


def by_vela(vela: str, one: Operation, device: str) -> int:
    """Bytes of the coded weights of a layer, with their scales."""
    height, width, channels = one.source
    product = one.kind == "product"
    net = Net(
        name="layer", file=File(), shape=(1, channels) if product else (channels, height, width)
    )  # fmt: skip
    value = (
        net.dense("layer0", "image", one.target[2], relu=True)
        if product
        else net.conv(
            "layer0", "image", one.target[2], one.kernel, depthwise=one.kind == "depthwise"
        )
    )
    with tempfile.TemporaryDirectory() as folder:
        net.save(Path(folder), value)
        text = printed(vela, Path(folder), "layer", device)
    found = re.search(r"Encoded Weights = (\d+)", text)
    assert found is not None, "a layer with weights has a coded size"
    return int(found[1])


def compared(vela: str, seed: int, count: int) -> pd.DataFrame:
    """A row a layer and device: bytes without scales."""
    found = []
    for device in DEVICES:
        npu = system_of(load_device(device)).npu
        for number in range(count):
            one = layer(seed, number)
            if one.weights < LEAST:
                continue
            tiling = tiling_of(one, npu)
            scales = scale_bytes(one, tiling, npu)
            found.append({
                "device": device, "kind": one.kind, "ours": weight_bytes(one, tiling, npu),
                "vela": by_vela(vela, one, device) - scales,
            })  # fmt: skip
    return pd.DataFrame(found)


def main() -> None:
    """Compare, and print a line a kind and device."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vela", required=True, help="the command of ethos-u-vela 5.2.0")
    parser.add_argument("--seed", type=int, default=8)
    parser.add_argument("--count", type=int, default=40, help="layers")
    asked = parser.parse_args()
    found = compared(asked.vela, asked.seed, asked.count)
    found["off"] = found.ours / found.vela - 1
    for (device, kind), own in found.groupby(["device", "kind"]):
        off = own.off.abs()
        print(f"{device} {kind}: {len(own)} layers, median {off.median():.1%} "
              f"({own.off.median():+.1%}), worst {off.max():.0%}")  # fmt: skip


if __name__ == "__main__":
    main()
