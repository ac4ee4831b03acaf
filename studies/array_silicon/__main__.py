"""Do predictions of spatial arrays agree with silicon that was published, and with arithmetic?

Usage: python -m studies.array_silicon

Eyeriss (AlexNet and VGG-16, published frames and DRAM accesses), TPU v1 (what bounds the paper's
applications, and their operations a second), and Llama-3-8B's decoder layer on two cores (bytes
of main memory against the arithmetic bound). Writes `results/*.csv`, prints the README's tables.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pandas as pd

from hwmodels.devices.device import Device
from hwmodels.devices.load import load_device
from hwmodels.estimators.array.estimator import ArrayEstimator
from hwmodels.estimators.array.hierarchy import Hierarchy
from hwmodels.estimators.array.nest import Nest
from hwmodels.estimators.array.schedule import Task, schedule
from hwmodels.formats import catalog
from hwmodels.runtimes.load import load_runtime
from hwmodels.work.kernel import Kernel, KernelCost
from hwmodels.work.loops import AttentionLoops, ConvolutionLoops, ProductLoops
from hwmodels.work.spatial_cost import SpatialCost

RESULTS = Path(__file__).parent / "results"

ALEXNET = (
    # Name, groups, output channels and input channels of a group, places, taps, input, stride,
    # milliseconds of four images (recalled from the paper's table V, not opened again).
    ("CONV1", 1, 96, 3, 55, 11, 227, 4, 16.5),
    ("CONV2", 2, 128, 48, 27, 5, 27, 1, 39.2),
    ("CONV3", 1, 384, 256, 13, 3, 13, 1, 21.8),
    ("CONV4", 2, 192, 192, 13, 3, 13, 1, 16.0),
    ("CONV5", 2, 128, 192, 13, 3, 13, 1, 10.0),
)
VGG = tuple(
    (f"CONV{index + 1}", 1, outs, ins, places, 3, places, 1, None)
    for index, (outs, ins, places) in enumerate(
        [(64, 3, 224), (64, 64, 224), (128, 64, 112), (128, 128, 112), (256, 128, 56)]
        + 2 * [(256, 256, 56)] + [(512, 256, 28)] + 2 * [(512, 512, 28)] + 3 * [(512, 512, 14)]
    )
)  # fmt: skip
PUBLISHED = {  # images at once, frames a second, DRAM accesses (16-bit words) a MAC
    "AlexNet": (ALEXNET, 4, 34.7, 0.0029),
    "VGG-16": (VGG, 3, 0.7, 0.0035),
}
"""Chen et al., JSSC 2017 and ISSCC 2016 (abstracts)."""
APPLICATIONS = (
    # Name, inputs and outputs of a layer, batch, TOPS and bound in the paper. Layers are equal
    # squares: the paper gives weights (20, 5, 52 and 34 million) and layers (5, 4, 24, 37) alone.
    ("MLP0", 2000, 200, 12.3, "memory"),
    ("MLP1", 1118, 168, 9.7, "memory"),
    ("LSTM0", 1472, 64, 3.7, "memory"),
    ("LSTM1", 959, 96, 2.8, "memory"),
)
"""Jouppi et al., ISCA 2017, tables 1 and 3 (recalled, not opened again)."""
CNN0 = ("CNN0", 236, 8, 86.0, "compute")
"""16 layers of 8 million weights, 2888 operations a byte at batch 8: a board of 19 x 19."""


def eyeriss() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Frames and DRAM accesses of both networks; milliseconds of AlexNet's layers."""
    hierarchy = Hierarchy.of(load_device("eyeriss"))
    networks, layers = [], []
    for network, (shapes, images, frames, accesses) in PUBLISHED.items():
        costs = {}
        for name, groups, outs, ins, places, taps, size, stride, measured in shapes:
            nest = Nest(
                sizes=(groups, images, outs, ins, places, places, taps, taps),
                in_size=(size, size), stride=(stride, stride), input_bytes=2.0,
                weight_bytes=2.0, output_bytes=2.0, partial_bytes=2.0, register_bytes=2.0,
            )  # fmt: skip
            costs[name] = schedule(hierarchy, Task(nest=nest, mac_j=2e-12)).cost
            if measured is not None:
                found = 1e3 * costs[name].cycles / hierarchy.clock_hz
                layers.append({"layer": name, "ours": found, "published": measured})
        total = SpatialCost.total(costs.values())
        assert total is not None
        words = sum(
            (one.read_bytes + one.write_bytes) / 2 for one in total.traffic if one.level == "dram"
        )
        networks += [
            {
                "network": network,
                "figure": "frames/s",
                "ours": images * hierarchy.clock_hz / total.cycles,
                "published": frames,
            },
            {
                "network": network,
                "figure": "DRAM accesses/MAC",
                "ours": words / total.macs,
                "published": accesses,
            },
        ]
    return pd.DataFrame(networks), pd.DataFrame(layers)


def tpu() -> pd.DataFrame:
    """TOPS and bound of the applications of the TPU v1 paper whose shapes it gives."""
    device = load_device("tpu-v1")
    rows = []
    for name, size, batch, tops, bound in APPLICATIONS:
        cost = _priced(_product(batch, size, size), device)
        rows.append(_row(name, cost, 2 * batch * size * size) | _paper(tops, bound))
    name, size, batch, tops, bound = CNN0
    loops = ConvolutionLoops(
        images=batch, groups=1, in_channels=size, out_channels=size, in_size=(19, 19),
        out_size=(19, 19), kernel=(3, 3),
    )  # fmt: skip
    pixels = batch * size * 19 * 19
    kernel = replace(
        _product(1, 1, 1), kind="conv2d", loops=loops, input_bytes=pixels, write_bytes=pixels,
        weight_bytes=9 * size * size,
    )  # fmt: skip
    cost = _priced(kernel, device)
    rows.append(_row(name, cost, 2 * kernel.macs) | _paper(tops, bound))
    return pd.DataFrame(rows)


def llama() -> pd.DataFrame:
    """Bytes of main memory of a Llama-3-8B decoder layer on two cores, over the least."""
    device = _two_cores()
    rows = []
    for phase, tokens, keys in (("prefill", 512, 512), ("decode", 1, 2048)):
        for name, n, k in (
            ("q", 4096, 4096), ("k, v", 2048, 4096), ("o", 4096, 4096),
            ("gate, up", 28672, 4096), ("down", 4096, 14336),
        ):  # fmt: skip
            kernel = _product(tokens, n, k)
            rows.append(_moved(phase, name, _priced(kernel, device), n * k))
        attention = Kernel(
            kind="attention",
            loops=AttentionLoops(
                batch=1, heads=32, kv_heads=8, queries=tokens, keys=keys, depth=128
            ),
            input_format=catalog.format("int8"), weight_format=catalog.format("int8"),
            output_format=catalog.format("int8"), weight_element="int8", input_element="int8",
            accumulator="int32", input_bytes=32 * tokens * 128,
            weight_bytes=2 * 8 * keys * 128, write_bytes=32 * tokens * 128,
        )  # fmt: skip
        cost = _priced(attention, device)
        rows.append(_moved(phase, "attention", cost, 2 * 8 * keys * 128))
    return pd.DataFrame(rows)


def _two_cores() -> Device:
    """Two of TPU v1's arrays at one memory: a device of its own, named an example."""
    device = load_device("tpu-v1")
    array, *others = device.units
    rates = tuple(
        replace(rate, ops_per_s=replace(rate.ops_per_s, value=2 * rate.ops_per_s.value))
        for rate in array.rates
    )
    cores = replace(array, count=replace(array.count, value=2), rates=rates)
    memories = tuple(
        replace(one, per=(*one.per, "cores")) if one.per else one for one in device.memories
    )
    return replace(device, name="two-cores", units=(cores, *others), memories=memories)


def _product(m: int, n: int, k: int) -> Kernel:
    stored = catalog.format("int8")
    return Kernel(
        kind="gemm",
        loops=ProductLoops(m=m, n=n, k=k),
        input_format=stored,
        weight_format=stored,
        output_format=stored,
        weight_element="int8",
        input_element="int8",
        accumulator="int32",
        input_bytes=m * k,
        weight_bytes=n * k,
        write_bytes=m * n,
    )


def _priced(kernel: Kernel, device: Device) -> KernelCost:
    (cost,) = ArrayEstimator().estimate([kernel], device, load_runtime("free"))
    return cost


def _row(name: str, cost: KernelCost, operations: float) -> dict[str, object]:
    """One layer of an application: all are alike."""
    tops = operations / cost.latency_s / 1e12
    return {"application": name, "ours": tops, "bound": cost.bound}


def _paper(tops: float, bound: str) -> dict[str, object]:
    return {"published": tops, "published_bound": bound}


def _moved(phase: str, name: str, cost: KernelCost, least: float) -> dict[str, object]:
    assert cost.spatial is not None
    whole = {
        one.tensor: one.read_bytes + one.write_bytes
        for one in cost.spatial.traffic
        if one.level == "dram"
    }
    return {
        "phase": phase, "product": name, "dram_bytes": sum(whole.values()),
        "least_bytes": least, "utilisation": cost.spatial.utilisation,
        "bound": cost.bound,
    }  # fmt: skip


def rows_of(table: pd.DataFrame) -> list[SimpleNamespace]:
    """Rows with a field a column."""
    return [
        SimpleNamespace(**{str(k): v for k, v in row.items()}) for row in table.to_dict("records")
    ]


def published() -> str:
    """The README's tables, from the results."""
    networks, layers = (pd.read_csv(RESULTS / f"{n}.csv") for n in ("eyeriss", "layers"))
    lines = ["| Eyeriss | ours | published | ours over it |", "|---|---|---|---|"]
    lines += [
        f"| {r.network}, {r.figure} | {r.ours:.3g} | {r.published:.3g} | "
        f"{r.ours / r.published:.2f} |"
        for r in rows_of(networks)
    ]
    lines += [
        f"| AlexNet {r.layer}, ms for 4 images | {r.ours:.1f} | {r.published:.1f} | "
        f"{r.ours / r.published:.2f} |"
        for r in rows_of(layers)
    ]
    lines += ["", "| TPU v1 | TOPS, ours | published | bound, ours | published |"]
    lines += ["|---|---|---|---|---|"]
    lines += [
        f"| {r.application} | {r.ours:.1f} | {r.published:.1f} | {r.bound} | {r.published_bound} |"
        for r in rows_of(pd.read_csv(RESULTS / "tpu.csv"))
    ]
    lines += ["", "| Llama-3-8B layer, two cores | main memory over the least | utilisation |"]
    lines += ["|---|---|---|"]
    lines += [
        f"| {r.phase}, {r.product} | {r.dram_bytes / r.least_bytes:.3f} | {r.utilisation:.1%} |"
        for r in rows_of(pd.read_csv(RESULTS / "llama.csv"))
    ]
    return "\n".join(lines)


def main() -> None:
    """Runs all parts and prints the tables."""
    RESULTS.mkdir(exist_ok=True)
    networks, layers = eyeriss()
    for name, table in (
        ("eyeriss", networks), ("layers", layers), ("tpu", tpu()), ("llama", llama())
    ):  # fmt: skip
        table.to_csv(RESULTS / f"{name}.csv", index=False, float_format="%.6g")
    print(published())


if __name__ == "__main__":
    main()
