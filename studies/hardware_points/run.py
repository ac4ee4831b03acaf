"""Prices two networks on thousands of arrays on two cores, and searches a sample much longer.

`python -m studies.hardware_points.run` writes `results/*.csv` and prints the tables of the README.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hwmodels.devices.device import Device
from hwmodels.devices.vary import DeviceFile
from hwmodels.estimators.array.estimator import tasks_of, warm_tensors, width_of
from hwmodels.estimators.array.hierarchy import Hierarchy
from hwmodels.estimators.array.points import PointCosts, estimate_points
from hwmodels.estimators.array.process import multiply_j
from hwmodels.estimators.array.records import EFFORT, QUICK, Effort
from hwmodels.estimators.array.schedule import schedule
from hwmodels.work.kernel import Kernel
from hwmodels.work.spatial_cost import SpatialCost
from studies.hardware_points.networks import llama_layer, resnet50

HERE = Path(__file__).parent
RESULTS = HERE / "results"
ZIGZAG = HERE.parent / "array_energy" / "results" / "llama.json"
"""What ZigZag took for the products of a Llama-3-8B layer on one array, by `array_energy`."""
POINTS = {"gemmini": 2_000, "eyeriss": 200}
PROCESSES = 2
SEED = 10_000
"""Of the points that are searched longer; parts that are timed have their numbers as seeds."""
SAMPLE = 12
"""Points of each device whose mappings are searched longer."""
EFFORTS = {"quick": QUICK, "usual": EFFORT}
LONGER = Effort(tiles=(64, 720, 8192), most_looks=4000, wide_looks=4000, most_children=400)
NETWORKS: Mapping[str, dict[Kernel, int]] = {
    "Llama-3-8B layer": llama_layer(),
    "ResNet-50": resnet50(),
}
POWERS = tuple(2**power for power in range(3, 7))
VARIED: Mapping[str, Mapping[str, Sequence[str | float]]] = {
    "gemmini": {
        "units.mac_array.array.axes.rows.size": POWERS,
        "units.mac_array.array.axes.columns.size": POWERS,
        "units.mac_array.array.stationary": ("weight", "output"),
        "units.mac_array.count": (1, 2, 4),
        "memories.scratchpad.capacity": tuple(f"{2**power} KiB" for power in range(6, 12)),
        "memories.accumulator.capacity": tuple(f"{2**power} KiB" for power in range(4, 9)),
        "memories.dram.bandwidth": tuple(f"{2**power} GB/s" for power in range(2, 8)),
    },
    "eyeriss": {
        "units.mac_array.array.axes.rows.size": (8, 12, 16, 24),
        "units.mac_array.array.axes.columns.size": (8, 14, 16, 28),
        "memories.global_buffer.capacity": tuple(f"{54 * 2**power} KiB" for power in range(6)),
        "memories.filter_spad.capacity": ("224 B", "448 B", "896 B"),
        "memories.dram.bandwidth": tuple(f"{2**power} GB/s" for power in range(-1, 5)),
    },
}
"""Values that figures of each device are drawn from, one apart from the other."""


def main() -> None:
    """Measures, writes the tables, prints them."""
    RESULTS.mkdir(exist_ok=True)
    rows, sampled = [], []
    for name, kernels in itertools.product(VARIED, NETWORKS):
        for effort in EFFORTS:
            rows.append(
                {"device": name, "network": kernels, "search": effort}
                | priced(name, kernels, effort)
            )
            print(rows[-1], flush=True)
        for effort, against in compared(name, kernels).items():
            sampled.append({"device": name, "network": kernels, "search": effort, **against})
            print(sampled[-1], flush=True)
    for path, found in (("points", rows), ("sample", sampled)):
        pd.DataFrame(found).to_csv(RESULTS / f"{path}.csv", index=False, float_format="%.4g")
    print("\n".join(lines()))


def drawn(name: str, count: int, seed: int) -> list[Device]:
    """That many variations of a device."""
    generator = np.random.default_rng(seed)
    file = DeviceFile(name)
    return [
        file.varied(
            {
                key: values[int(generator.integers(len(values)))]
                for key, values in VARIED[name].items()
            },
            by="hardware_points",
        )
        for _ in range(count)
    ]


def priced(name: str, network: str, effort: str) -> dict[str, Any]:
    """Seconds that all points take, devices made from the file included, and their gaps."""
    kernels = list(NETWORKS[network])
    # One chunk compiles what is not compiled yet, which later processes of any program load.
    estimate_points(kernels, drawn(name, 2, SEED), EFFORTS[effort])
    begin = time.perf_counter()
    each = POINTS[name] // PROCESSES  # what arrays of one layout share is found once a process
    chunks = [(name, network, effort, each, seed) for seed in range(PROCESSES)]
    with ProcessPoolExecutor(PROCESSES, mp_context=get_context("spawn")) as pool:
        parts = list(pool.map(_chunk, chunks))
    wall = time.perf_counter() - begin
    gaps = np.concatenate([part[0] for part in parts])
    return {
        "points": POINTS[name],
        "layers": len(kernels),
        "wall_s": wall,
        "cpu_s": sum(part[2] for part in parts),
        "refused": sum(part[1] for part in parts),
        "gap_median": np.median(gaps),
        "gap_p90": np.quantile(gaps, 0.9),
        "gap_max": gaps.max(),
        "gap_none": float((gaps < 1e-9).mean()),
    }


def _chunk(asked: tuple[str, str, str, int, int]) -> tuple[np.ndarray[Any, Any], int, float]:
    """Gaps of every kernel and point, points that do not run the network, seconds."""
    name, network, effort, count, seed = asked
    begin = time.process_time()
    devices = drawn(name, count, seed)
    found = estimate_points(list(NETWORKS[network]), devices, EFFORTS[effort])
    gaps = found.gaps[np.isfinite(found.gaps)]
    return gaps, len(found.refused), time.process_time() - begin


def compared(name: str, network: str) -> dict[str, dict[str, Any]]:
    """Cost of the mappings of each search over those of a far larger one, by the array's goal."""
    devices = drawn(name, SAMPLE, SEED)
    kernels = list(NETWORKS[network])
    costs: PointCosts = estimate_points(kernels, devices)
    ratios: dict[str, list[float]] = {effort: [] for effort in EFFORTS}
    beyond = dict.fromkeys(EFFORTS, 0)
    for index, device in enumerate(devices):
        if index in costs.refused:
            continue
        hierarchy = Hierarchy.of(device)
        for kernel in kernels:
            width = width_of(kernel, device, hierarchy)
            if width is None:
                continue
            joules = {
                "mac_j": multiply_j(kernel, device),
                "idle_j": device.power.idle_w.value / hierarchy.clock_hz,
            }
            for task in tasks_of(kernel, width, warm_tensors(kernel, hierarchy), **joules):
                longer = schedule(hierarchy, task, effort=LONGER).cost
                powers = {"latency": (0, 1), "energy": (1, 0), "edp": (1, 1)}[hierarchy.goal]
                for asked, effort in EFFORTS.items():
                    found = schedule(hierarchy, task, effort=effort).cost
                    idle_j = joules["idle_j"]
                    ratio = _goal(found, idle_j, *powers) / _goal(longer, idle_j, *powers)
                    ratios[asked].append(ratio)
                    beyond[asked] += ratio > 1 + found.gap + 1e-6
    return {
        effort: {
            "searches": len(found),
            "same": float(np.mean(np.array(found) <= 1 + 1e-9)),
            "ratio_p90": np.quantile(found, 0.9),
            "ratio_max": max(found),
            "beyond_gap": beyond[effort] / len(found),
        }
        for effort, found in ratios.items()
    }


def _goal(cost: SpatialCost, idle_j: float, energy: int, delay: int) -> float:
    whole_j = cost.energy_j + idle_j * cost.cycles
    return float(whole_j**energy * cost.cycles**delay)


def lines() -> list[str]:
    """The tables of the README."""
    rows = pd.read_csv(RESULTS / "points.csv").to_dict("records")
    sample = pd.read_csv(RESULTS / "sample.csv").to_dict("records")
    zigzag = json.loads(ZIGZAG.read_text(encoding="utf-8"))
    theirs = len(zigzag) / sum(row["cpu_s"] for row in zigzag)
    table = [
        f"| {row['device']}, {row['network']} | {row['search']} | {row['points']:,} "
        f"| {row['cpu_s']:.1f} s "
        f"| {1e4 * row['cpu_s'] / PROCESSES / row['points']:.0f} s "
        f"| {row['refused']} | {100 * row['gap_median']:.1f} / {100 * row['gap_p90']:.0f} / "
        f"{100 * row['gap_max']:.0f} % | {100 * row['gap_none']:.0f} % "
        f"| {row['points'] * row['layers'] / row['cpu_s'] / theirs:,.0f} |"
        for row in rows
    ]
    longer = [
        f"| {row['device']}, {row['network']} | {row['search']} | {row['searches']} "
        f"| {100 * row['same']:.0f} % "
        f"| {row['ratio_p90']:.3f} | {row['ratio_max']:.2f} | {100 * row['beyond_gap']:.0f} % |"
        for row in sample
    ]
    return [*table, *longer]


if __name__ == "__main__":
    main()
