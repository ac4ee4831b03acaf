"""What every estimator promises, ours or another's."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwmodels.devices.device import Device
from hwmodels.devices.load import device_names, load_device
from hwmodels.formats import catalog
from hwmodels.runtimes.load import load_runtime
from hwmodels.tables.price import estimator_of
from hwmodels.work.kernel import Kernel
from hwmodels.work.loops import ProductLoops

RUNTIME = load_runtime("free")
ELEMENTS = ("bf16", "fp16", "int8", "fp32")
DEVICES = [load_device(name) for name in device_names()]
sizes = st.integers(1, 16384)
NOT_MONOTONE = 0.8
"""Trees over shapes step down here and there; 0.86 is the worst of 9,000 random GEMMs."""


def _gemm(device: Device, m: int, n: int, k: int) -> Kernel:
    element = next(name for name in ELEMENTS if device.rate(name, name) is not None)
    stored = catalog.format(element)
    width = stored.element.bits // 8
    return Kernel(
        kind="gemm",
        loops=ProductLoops(m=m, n=n, k=k),
        input_format=stored,
        weight_format=stored,
        output_format=stored,
        weight_element=element,
        input_element=element,
        accumulator="int32" if element == "int8" else "fp32",
        input_bytes=m * k * width,
        weight_bytes=n * k * width,
        write_bytes=m * n * width,
    )


def _peak(device: Device, kernel: Kernel) -> float:
    rate = device.rate(kernel.weight_element, kernel.input_element)
    assert rate is not None
    return rate.ops_per_s.value


@settings(max_examples=40, deadline=None)
@given(device=st.sampled_from(DEVICES), m=sizes, n=sizes, k=sizes)
def test_nothing_is_faster_than_light(device: Device, m: int, n: int, k: int) -> None:
    kernel = _gemm(device, m, n, k)
    (cost,) = estimator_of(device).estimate([kernel], device, RUNTIME)
    bandwidth = device.main_memory.bandwidth_bytes_per_s.value
    light = max(2 * kernel.macs / _peak(device, kernel), kernel.weight_bytes / bandwidth)
    assert cost.low_s >= light * (1 - 1e-9)
    assert cost.low_s <= cost.latency_s <= cost.high_s
    assert cost.latency_s >= device.launch_s.value
    assert 0 < cost.energy_j <= device.power.limit_w.value * cost.latency_s * (1 + 1e-9)


@settings(max_examples=30, deadline=None)
@given(device=st.sampled_from(DEVICES), m=sizes, n=sizes, k=st.integers(1, 8192))
def test_twice_the_depth_never_costs_less(device: Device, m: int, n: int, k: int) -> None:
    """Within the learned part, which is not monotone, and the filling of an array, which is not
    either.
    """
    short, long = estimator_of(device).estimate(
        [_gemm(device, m, n, k), _gemm(device, m, n, 2 * k)], device, RUNTIME
    )
    assert long.latency_s >= short.latency_s * NOT_MONOTONE


@settings(max_examples=30, deadline=None)
@given(device=st.sampled_from(DEVICES), m=sizes, n=sizes, k=sizes)
def test_more_weight_bytes_never_cost_less(device: Device, m: int, n: int, k: int) -> None:
    kernel = _gemm(device, m, n, k)
    heavier = replace(kernel, weight_bytes=2 * kernel.weight_bytes)
    light, heavy = estimator_of(device).estimate([kernel, heavier], device, RUNTIME)
    assert heavy.latency_s >= light.latency_s * NOT_MONOTONE
    assert heavy.traffic_bytes > light.traffic_bytes


def test_kernels_come_back_in_order() -> None:
    device = load_device("h100-sxm")
    move = Kernel(kind="pointwise", input_bytes=1 << 24, write_bytes=1 << 24)
    kernels = [_gemm(device, 64, 64, 64), move, _gemm(device, 8192, 8192, 8192)]
    alone = [estimator_of(device).estimate([k], device, RUNTIME)[0] for k in kernels]
    assert list(estimator_of(device).estimate(kernels, device, RUNTIME)) == alone


@pytest.mark.parametrize("device", DEVICES, ids=lambda device: device.name)
def test_some_estimator_claims_every_shipped_device(device: Device) -> None:
    assert estimator_of(device).claims(device)
