"""Ten thousand chips: the networks of the study, and its README."""

from __future__ import annotations

import numpy as np
import pytest

from hwmodels.devices.vary import DeviceFile
from hwmodels.estimators.array.estimator import ArrayEstimator
from hwmodels.estimators.array.points import estimate_points
from hwmodels.estimators.array.records import QUICK
from hwmodels.runtimes.load import load_runtime
from hwmodels.work.loops import ProductLoops
from studies.hardware_points.networks import llama_layer, resnet50
from studies.hardware_points.run import HERE, NETWORKS, VARIED, drawn, lines


def test_the_readme_has_the_study_s_tables() -> None:
    text = (HERE / "README.md").read_text(encoding="utf-8")
    assert all(line in text for line in lines())


def test_the_networks_are_the_published_ones() -> None:
    macs = {name: sum(k.macs * n for k, n in found.items()) for name, found in NETWORKS.items()}
    assert macs["ResNet-50"] == pytest.approx(4.089e9, rel=0.01)  # as torchvision counts them
    weights = sum(k.weight_bytes * n for k, n in resnet50().items())
    assert weights == pytest.approx(25.5e6, rel=0.01)
    stored = {k.weight_bytes for k in llama_layer() if isinstance(k.loops, ProductLoops)}
    assert sum(stored) == 218_103_808  # the matrices of a layer of Llama-3-8B


def test_what_is_looked_at_less_changes_no_price() -> None:
    """Seconds, joules and gaps of a search that prices every order of loops for every bound."""
    file = DeviceFile("gemmini")
    devices = [
        file.varied(
            {
                "units.mac_array.array.axes.rows.size": rows,
                "memories.scratchpad.capacity": capacity,
                "memories.dram.bandwidth": bandwidth,
            },
            by="test",
        )
        for rows, capacity, bandwidth in (
            (8, "64 KiB", "4 GB/s"), (16, "256 KiB", "32 GB/s"), (64, "2048 KiB", "128 GB/s"),
        )
    ]  # fmt: skip
    kernels = [*(list(resnet50())[index] for index in (0, 5, 20)), list(llama_layer())[1]]
    found = estimate_points(kernels, devices, QUICK)
    seconds = [
        [0.00096045, 0.000818182, 0.00120315402, 0.18036583],
        [0.000504031, 0.00040583, 0.0009479685, 0.109388566],
        [0.00024620825, 0.000234252, 0.000942862125, 0.080551432],
    ]
    joules = [
        [0.000632601124, 0.000611352466, 0.00127659966, 0.142487336],
        [0.000435438644, 0.000433242028, 0.000715918463, 0.0925339519],
        [0.000287674419, 0.000312976677, 0.000600057641, 0.0462126229],
    ]
    gaps = [
        [0.00434922, 0.00268043, 0.00137164, 0.0262873],
        [0.00203406, 0.00203105, 0.00772107, 0.0154915],
        [0.0108686, 0.0151789, 0.00195258, 8.67751e-05],
    ]
    assert found.latency_s == pytest.approx(np.array(seconds), rel=1e-8)
    assert found.energy_j == pytest.approx(np.array(joules), rel=1e-8)
    assert found.gaps == pytest.approx(np.array(gaps), rel=1e-5)


def test_drawn_arrays_cost_together_what_each_costs_alone() -> None:
    kernels = list(resnet50())[:3]
    for name in VARIED:
        devices = drawn(name, 3, seed=1)
        together = estimate_points(kernels, devices)
        for device, latencies in zip(devices, together.latency_s, strict=True):
            alone = ArrayEstimator().estimate(kernels, device, load_runtime("free"))
            assert latencies == pytest.approx([one.latency_s for one in alone], rel=1e-9)
