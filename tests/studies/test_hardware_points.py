"""Ten thousand chips: the networks of the study, and its README."""

from __future__ import annotations

import pytest

from hwmodels.estimators.array.estimator import ArrayEstimator
from hwmodels.estimators.array.points import estimate_points
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


def test_drawn_arrays_cost_together_what_each_costs_alone() -> None:
    kernels = list(resnet50())[:3]
    for name in VARIED:
        devices = drawn(name, 3, seed=1)
        together = estimate_points(kernels, devices)
        for device, latencies in zip(devices, together.latency_s, strict=True):
            alone = ArrayEstimator().estimate(kernels, device, load_runtime("free"))
            assert latencies == pytest.approx([one.latency_s for one in alone], rel=1e-9)
