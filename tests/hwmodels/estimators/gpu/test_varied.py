"""Varied GPUs: what is learned of the silicon of the file's device stays as its figures change."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from hwmodels.devices.figures import scaled
from hwmodels.devices.load import load_device
from hwmodels.devices.vary import DeviceFile
from hwmodels.estimators.gpu.estimator import GpuEstimator
from hwmodels.operators.lower import compute_elements, operator_kernels
from hwmodels.runtimes.load import load_runtime
from hwmodels.work.kernel import Kernel
from tests.hwmodels.estimators.gpu.test_experts import products

GEMMS = [
    ("gemm", {"M": m, "N": n, "K": k}, dtype)
    for dtype in ("bf16", "fp8_dynamic", "w4a16")
    for m in (1, 16, 200, 2048)
    for n, k in ((4096, 4096), (28672, 4096), (4096, 14336), (1024, 512))
]
ATTENTION = [
    ("attention", {"B": b, "H": 32, "HK": 8, "S": s, "L": 2048, "D": 128, "causal": 1}, "bf16")
    for b, s in ((1, 2048), (8, 2048), (1, 1), (64, 1))
]
DEVICE, RUNTIME = "h100-sxm", "vllm"


def _kernels() -> list[Kernel]:
    """Products, attention and experts as a runtime launches them."""
    runtime, device = load_runtime(RUNTIME), load_device(DEVICE)
    found: list[Kernel] = products(DEVICE, RUNTIME, "bfloat16")
    for op, shape, dtype in (*GEMMS, *ATTENTION):
        compute = compute_elements(dtype, device)
        found += operator_kernels(op, shape, dtype, runtime, compute)
    return found


def _seconds(kernels: Sequence[Kernel], **changes: str) -> np.ndarray:
    keys = {key.replace("__", "."): value for key, value in changes.items()}
    device = DeviceFile(DEVICE).varied(keys)
    costs = GpuEstimator().estimate(kernels, device, load_runtime(RUNTIME))
    return np.array([cost.latency_s for cost in costs])


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("memories__dram__bandwidth", ["2000GB/s", "3350GB/s", "3800GB/s", "4800GB/s", "8TB/s"]),
        ("memories__l2__bandwidth", ["5000GB/s", "8237GB/s", "12TB/s", "20TB/s"]),
        ("units__tensor_core__clock", ["1400MHz", "1980MHz", "2200MHz", "3000MHz"]),
    ],
)
def test_a_faster_part_slows_no_kernel_down(key: str, values: list[str]) -> None:
    """Trees of real devices alone made a prefill 5 % slower with twice the bandwidth."""
    kernels = _kernels()
    rows = [_seconds(kernels, **{key: value}) for value in values]
    for slower, faster in itertools.pairwise(rows):
        assert (faster <= slower * (1 + 1e-9)).all()
    assert rows[-1].sum() < 0.99 * rows[0].sum()


def test_what_the_file_says_takes_what_the_device_takes() -> None:
    kernels = _kernels()
    same = _seconds(kernels, memories__dram__bandwidth="3350GB/s")
    assert same == pytest.approx(_seconds(kernels), rel=1e-9)
    device = scaled(load_device(DEVICE), "memories.dram.bandwidth_bytes_per_s", 1.0)
    costs = GpuEstimator().estimate(kernels, device, load_runtime(RUNTIME))
    assert [cost.latency_s for cost in costs] == pytest.approx(same, rel=1e-9)


def test_the_doubt_grows_with_the_distance_from_what_was_measured() -> None:
    kernels, runtime = _kernels(), load_runtime(RUNTIME)
    spreads = []
    for bandwidth in ("3350GB/s", "5500GB/s", "8TB/s"):
        device = DeviceFile(DEVICE).varied({"memories.dram.bandwidth": bandwidth})
        costs = GpuEstimator().estimate(kernels, device, runtime)
        assert all(one.low_s <= one.latency_s <= one.high_s for one in costs)
        spreads.append(np.mean([np.log(one.high_s / one.low_s) for one in costs]))
    assert spreads == sorted(spreads)
    assert spreads[-1] > 1.1 * spreads[0]


def test_a_product_that_the_file_s_device_lacks_is_priced_by_the_varied_one_alone() -> None:
    changed = DeviceFile("v100-sxm2").varied(
        {"units.tensor_core.rates.fp16.elements": "[fp16,bf16]"}
    )
    compute = compute_elements("bf16", changed)
    kernels = operator_kernels(
        "gemm", {"M": 512, "N": 512, "K": 512}, "bf16", load_runtime("free"), compute
    )
    plain = replace(changed)  # of no file
    assert plain.varied_from is None
    found, alone = (
        GpuEstimator().estimate(kernels, one, load_runtime("free")) for one in (changed, plain)
    )
    assert found == alone


def test_no_file_says_what_it_was_varied_from() -> None:
    """The field is the program's own: its figures are none of the device's."""
    device = DeviceFile(DEVICE).varied({"launch": "2us"})
    assert device.varied_from is not None
    assert device.varied_from.name == DEVICE
    assert len(device.figures) == len(load_device(DEVICE).figures)
