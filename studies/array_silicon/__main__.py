"""Do predictions of spatial arrays agree with silicon that was published, and with arithmetic?

Usage: python -m studies.array_silicon

Eyeriss (AlexNet and VGG-16, published frames and DRAM accesses), TPU v1 (what bounds the paper's
applications, and their operations a second), and Llama-3-8B's decoder layer on two cores (bytes
of main memory against the arithmetic bound). Writes `results/*.csv`, prints the README's tables.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """A convolution and what Eyeriss takes for it, for all images of the network together."""

    name: str
    groups: int = 1
    outs: int
    """Output channels of a group; `ins` input channels."""
    ins: int
    places: int
    taps: int = 3
    size: int
    stride: int = 1
    zeros: float
    """Of the input."""
    total_ms: float
    working_ms: float
    """Without what only main memory takes."""
    buffer_mb: float
    """Read from and written to the global buffer."""
    dram_mb: float


def vgg(name: str, outs: int, ins: int, places: int, *measured: float) -> Layer:
    zeros, total, working, buffer, dram = measured
    return Layer(
        name=name, outs=outs, ins=ins, places=places, size=places, zeros=zeros, total_ms=total,
        working_ms=working, buffer_mb=buffer, dram_mb=dram,
    )  # fmt: skip


ALEXNET = (
    Layer(name="CONV1", outs=96, ins=3, places=55, taps=11, size=227, stride=4, zeros=0.0001,
          total_ms=20.9, working_ms=16.5, buffer_mb=18.5, dram_mb=5.0),
    Layer(name="CONV2", groups=2, outs=128, ins=48, places=27, taps=5, size=27, zeros=0.387,
          total_ms=41.9, working_ms=39.2, buffer_mb=77.6, dram_mb=4.0),
    Layer(name="CONV3", outs=384, ins=256, places=13, size=13, zeros=0.725,
          total_ms=23.6, working_ms=21.8, buffer_mb=50.2, dram_mb=3.0),
    Layer(name="CONV4", groups=2, outs=192, ins=192, places=13, size=13, zeros=0.793,
          total_ms=18.4, working_ms=16.0, buffer_mb=37.4, dram_mb=2.1),
    Layer(name="CONV5", groups=2, outs=128, ins=192, places=13, size=13, zeros=0.776,
          total_ms=10.5, working_ms=10.0, buffer_mb=24.9, dram_mb=1.3),
)  # fmt: skip
VGG = (
    vgg("CONV1-1", 64, 3, 224, 0.016, 76.2, 38.0, 112.6, 15.4),
    vgg("CONV1-2", 64, 64, 224, 0.477, 910.3, 810.6, 2402.8, 54.0),
    vgg("CONV2-1", 128, 64, 112, 0.248, 470.3, 405.3, 1201.4, 33.4),
    vgg("CONV2-2", 128, 128, 112, 0.387, 894.3, 810.8, 2402.8, 48.5),
    vgg("CONV3-1", 256, 128, 56, 0.397, 241.1, 204.0, 607.4, 20.2),
    vgg("CONV3-2", 256, 256, 56, 0.581, 460.9, 408.1, 1214.8, 32.2),
    vgg("CONV3-3", 256, 256, 56, 0.587, 457.7, 408.1, 1214.8, 30.8),
    vgg("CONV4-1", 512, 256, 28, 0.643, 135.8, 105.1, 321.8, 17.8),
    vgg("CONV4-2", 512, 512, 28, 0.747, 254.8, 210.0, 643.7, 28.6),
    vgg("CONV4-3", 512, 512, 28, 0.854, 246.3, 210.0, 643.7, 22.8),
    vgg("CONV5-1", 512, 512, 14, 0.794, 54.3, 48.3, 90.0, 6.3),
    vgg("CONV5-2", 512, 512, 14, 0.874, 53.7, 48.5, 90.0, 5.7),
    vgg("CONV5-3", 512, 512, 14, 0.885, 53.7, 48.5, 90.0, 5.6),
)
"""Chen et al., JSSC 2017, tables V and VI, recalled and not opened again: their sums (115.3 and
4309.5 ms, 15.4 and 321.1 MB) are the frames a second and accesses a product of the abstract."""
PUBLISHED = {  # images at once, frames a second, DRAM accesses (16-bit words) a MAC
    "AlexNet": (ALEXNET, 4, 34.7, 0.0029),
    "VGG-16": (VGG, 3, 0.7, 0.0035),
}
"""Chen et al., JSSC 2017 and ISSCC 2016 (abstracts)."""
PORTS_BYTES = 16.0
"""Of partial sums that go to the array and come back in a cycle: four words each way."""
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
    """Frames and DRAM accesses of both networks; their layers one by one."""
    hierarchy = Hierarchy.of(load_device("eyeriss"))
    networks, layers = [], []
    for network, (shapes, images, frames, accesses) in PUBLISHED.items():
        costs = []
        written = [*(one.zeros for one in shapes[1:]), shapes[-1].zeros]
        for layer, zeros in zip(shapes, written, strict=True):
            cost = schedule(hierarchy, Task(nest=nest_of(layer, images, zeros), mac_j=2e-12)).cost
            costs.append(cost)
            layers.append(
                {
                    "network": network,
                    "layer": layer.name,
                    "ours_ms": 1e3 * cost.cycles / hierarchy.clock_hz,
                    "published_ms": layer.total_ms,
                    "working_ms": layer.working_ms,
                    "ours_dram_mb": moved_mb(cost, "dram"),
                    "published_dram_mb": layer.dram_mb,
                    "ours_buffer_mb": moved_mb(cost, "global_buffer"),
                    "published_buffer_mb": layer.buffer_mb,
                    "ports_ms": 1e9 * layer.buffer_mb / PORTS_BYTES / hierarchy.clock_hz,
                }
            )
        total = SpatialCost.total(costs)
        assert total is not None
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
                "ours": moved_mb(total, "dram") * 1e6 / 2 / total.macs,
                "published": accesses,
            },
        ]
    return pd.DataFrame(networks), pd.DataFrame(layers)


def nest_of(layer: Layer, images: int, zeros: float) -> Nest:
    """Elements and sums of 16 bits; `zeros` are those of the output: the next layer's input."""
    return Nest(
        sizes=(
            layer.groups, images, layer.outs, layer.ins, layer.places, layer.places, layer.taps,
            layer.taps,
        ),
        in_size=(layer.size, layer.size), stride=(layer.stride, layer.stride),
        input_bytes=2.0, weight_bytes=2.0, output_bytes=2.0, partial_bytes=2.0,
        register_bytes=2.0, input_zeros=layer.zeros, output_zeros=zeros,
    )  # fmt: skip


def moved_mb(cost: SpatialCost, level: str) -> float:
    return (
        sum(one.read_bytes + one.write_bytes for one in cost.traffic if one.level == level) / 1e6
    )


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
    lines += ["", "| layer | ms, ours | published | DRAM MB, ours | published "]
    lines[-1] += "| buffer MB, ours | published | published: ports / working |"
    lines += ["|---|---|---|---|---|---|---|---|"]
    lines += [
        f"| {r.network} {r.layer} | {r.ours_ms:.1f} | {r.published_ms:.1f} "
        f"| {r.ours_dram_mb:.1f} | {r.published_dram_mb:.1f} "
        f"| {r.ours_buffer_mb:.0f} | {r.published_buffer_mb:.0f} "
        f"| {r.ports_ms / r.working_ms:.2f} |"
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


def slower() -> tuple[list[float], list[float]]:
    """Published times over ours: of networks, and of layers and applications."""
    networks, layers, tpu_v1 = (
        pd.read_csv(RESULTS / f"{name}.csv") for name in ("eyeriss", "layers", "tpu")
    )
    frames = networks[networks["figure"] == "frames/s"]
    applications = (tpu_v1["ours"] / tpu_v1["published"]).tolist()
    return (
        [*(frames["ours"] / frames["published"]), *applications],
        [*(layers["published_ms"] / layers["ours_ms"]), *applications],
    )


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
