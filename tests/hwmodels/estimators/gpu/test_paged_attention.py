from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hwmodels.devices.device import Device, Measurement
from hwmodels.devices.load import load_device
from hwmodels.estimators.gpu.constants import CONSTANTS
from hwmodels.estimators.gpu.estimator import GpuEstimator
from hwmodels.estimators.gpu.learned_attention import (
    AttentionArtefact,
    forecast,
    load_attention,
    paged_calls,
    save_attention,
)
from hwmodels.estimators.gpu.paged_attention import PagedConstants, paged_terms
from hwmodels.estimators.gpu.skeleton import GpuFigures
from hwmodels.estimators.gpu.trees import with_name
from hwmodels.operators.lower import compute_elements, operator_kernels
from hwmodels.runtimes.load import load_runtime
from hwmodels.work.kernel import Kernel, KernelCost

PLAIN = PagedConstants(efficiency=1.0, dram_efficiency=1.0)
DECODE = {"B": 1, "H": 32, "HK": 8, "S": 1, "L": 8192, "D": 128}
PREFILL = {"B": 4, "H": 32, "HK": 8, "S": 16384, "L": 16384, "D": 128, "causal": 1}


def _kernel(
    shape: dict[str, int], device: str = "h100-sxm", runtime: str = "vllm", dtype: str = "bf16"
) -> Kernel:
    compute = compute_elements(dtype, load_device(device))
    (kernel,) = operator_kernels("attention", shape, dtype, load_runtime(runtime), compute)
    return kernel


def _skeleton_s(kernel: Kernel, device: str, runtime: str = "vllm") -> float:
    found, gpu = load_device(device), GpuFigures.of(load_device(device))
    own = load_runtime(runtime).attention_kernel(found.architecture, "bf16")
    terms, _ = paged_terms(paged_calls([kernel], found, own), gpu, PLAIN, CONSTANTS)
    return float(terms.latency_s[0])


def _cost(
    shape: dict[str, int], device: str | Device = "h100-sxm", runtime: str = "vllm",
    dtype: str = "bf16",
) -> KernelCost:  # fmt: skip
    found = device if isinstance(device, Device) else load_device(device)
    kernel = _kernel(shape, found.name, runtime, dtype)
    (cost,) = GpuEstimator().estimate([kernel], found, load_runtime(runtime))
    return cost


def test_a_long_prefill_takes_the_products_that_no_mask_hides() -> None:
    pairs = 16384 * 16385 / 2
    ops = 4 * 4 * 32 * 128 * pairs
    peak = load_device("h100-sxm").rate("bf16", "bf16").ops_per_s.value  # type: ignore[union-attr]
    seconds = _skeleton_s(_kernel(PREFILL), "h100-sxm")
    assert ops / peak < seconds < 1.1 * ops / peak


def test_a_cold_cache_comes_from_main_memory_once() -> None:
    kernel = replace(_kernel({**DECODE, "B": 64}), weight_is_cold=True)
    cache_bytes = 64 * 2 * 8 * 8192 * 128 * 2
    bandwidth = load_device("h100-sxm").main_memory.bandwidth_bytes_per_s.value
    assert kernel.weight_bytes == cache_bytes
    seconds = _skeleton_s(kernel, "h100-sxm")
    assert cache_bytes / bandwidth < seconds < 1.2 * cache_bytes / bandwidth


def test_a_cache_that_stays_in_the_last_level_cache_is_faster() -> None:
    warm = _kernel(DECODE)
    assert not warm.weight_is_cold
    assert _skeleton_s(warm, "h100-sxm") < _skeleton_s(
        replace(warm, weight_is_cold=True), "h100-sxm"
    )


def test_flash_attention_2_splits_only_what_it_packs() -> None:
    """One head's cache on one core, as long as all its steps; several heads share the cores."""
    alone, shared = {**DECODE, "HK": 1, "H": 1, "L": 32768}, {**DECODE, "HK": 1, "L": 32768}
    clock = GpuFigures.of(load_device("l40s")).clock_hz
    steps_s = 32768 / 128 * PLAIN.step_cycles / clock
    assert _skeleton_s(_kernel(alone, "l40s"), "l40s") > steps_s
    assert _skeleton_s(_kernel(shared, "l40s"), "l40s") < steps_s / 10
    assert _skeleton_s(_kernel(alone), "h100-sxm") < steps_s / 10


def test_a_window_bounds_the_keys_that_are_read() -> None:
    windowed = _kernel({**DECODE, "window": 1024})
    assert windowed.weight_bytes == 2 * 8 * 1024 * 128 * 2
    assert windowed.macs == 2 * 32 * 128 * 1024
    prefill = _kernel({**PREFILL, "window": 1024})
    assert prefill.weight_bytes == 4 * 2 * 8 * 16384 * 128 * 2


def test_nothing_is_faster_than_light() -> None:
    cost = _cost({**PREFILL, "S": 1, "L": 65536, "B": 64})
    moved = 64 * 2 * 8 * 65536 * 128 * 2
    device = load_device("h100-sxm")
    assert cost.low_s >= moved / device.main_memory.bandwidth_bytes_per_s.value


def test_a_narrow_cache_is_half_the_bytes_of_a_long_context() -> None:
    long = {**DECODE, "B": 32, "L": 32768}
    wide, narrow = _cost(long), _cost(long, dtype="bf16_kv_fp8")
    assert 0.45 < narrow.latency_s / wide.latency_s < 0.75
    short = {**DECODE, "L": 128}
    assert 0.9 < _cost(short, dtype="bf16_kv_fp8").latency_s / _cost(short).latency_s < 1.25


@pytest.mark.parametrize(
    ("device", "runtime", "standing"),
    [
        ("h100-sxm", "vllm", "seen"), ("h200-sxm", "vllm", "sibling"),
        ("b300-sxm", "vllm", "sibling"), ("a100-sxm-40gb", "vllm", "sibling"),
        ("rtx-pro-6000", "vllm", "unseen"), ("h100-sxm", "sglang", "seen"),
        ("b200-sxm", "tensorrt-llm", "seen"), ("h100-sxm", "tensorrt-llm", "unseen"),
        ("mi300x", "vllm", "unseen"),
    ],
)  # fmt: skip
def test_the_interval_widens_with_what_is_unknown(
    device: str, runtime: str, standing: str
) -> None:
    found = load_device(device)
    own = load_runtime(runtime).attention_kernel(found.architecture, "bf16")
    assert load_attention().standing(own, found) == standing
    cost = _cost(DECODE, device, runtime)
    width = {"seen": 1.3, "sibling": 1.7, "unseen": 2.2}[standing]
    assert width < cost.high_s / cost.low_s < 1.4 * width


@pytest.mark.parametrize(
    ("device", "share"), [("h100-sxm", 1.0), ("h200-sxm", 1.0), ("rtx-pro-6000", 0.5)]
)
@pytest.mark.parametrize("shape", [DECODE, PREFILL])
def test_what_trees_learned_counts_by_how_near_the_device_is(
    device: str, share: float, shape: dict[str, int]
) -> None:
    found, artefact = load_device(device), load_attention()
    own = load_runtime("vllm").attention_kernel(found.architecture, "bf16")
    assert own is not None
    phase = artefact.phases["decode" if shape["S"] == 1 else "prefill"]
    calls = paged_calls([_kernel(shape, device)], found, own)
    constants = GpuEstimator().artefact.constants
    terms, features = paged_terms(calls, GpuFigures.of(found), phase.constants, constants)
    learned = phase.trees.predict(with_name(features, own.name, artefact.kernels))[0]
    assert abs(learned) > 0.02
    expected = terms.latency_s[0] * np.exp(share * learned)
    assert _cost(shape, device).latency_s == pytest.approx(expected, rel=1e-12)


def test_runtimes_without_a_paged_cache_keep_one_launch() -> None:
    assert _cost(DECODE, runtime="torch-eager").latency_s < _cost(DECODE).latency_s


def test_code_that_nobody_names_is_the_skeleton_on_a_gpu_and_one_launch_on_a_processor() -> None:
    device, runtime = load_device("mi300x"), load_runtime("vllm")
    assert runtime.attention_kernel(device.architecture, "bf16") is None
    kernel = _kernel(DECODE, "mi300x")
    constants = load_attention().phases["decode"].constants
    calls = paged_calls([kernel], device, None)
    terms, _ = paged_terms(
        calls, GpuFigures.of(device), constants, GpuEstimator().artefact.constants
    )
    assert _cost(DECODE, "mi300x").latency_s == terms.latency_s[0]
    processor = load_device("xeon-8480")
    kernel = _kernel(DECODE, "xeon-8480")
    named, unnamed = (
        GpuEstimator().estimate([kernel], processor, load_runtime(name))
        for name in ("vllm", "torch-eager")
    )
    assert named == unnamed


def test_costs_do_not_depend_on_the_company() -> None:
    shapes = [DECODE, {**PREFILL, "S": 64, "L": 64}, {**DECODE, "L": 100}, PREFILL]
    device, runtime = load_device("l40s"), load_runtime("vllm")
    kernels = [_kernel(shape, "l40s") for shape in shapes]
    kernels.append(_kernel(DECODE, "l40s", dtype="bf16_kv_fp8"))
    together = GpuEstimator().estimate(kernels, device, runtime)
    alone = [GpuEstimator().estimate([kernel], device, runtime)[0] for kernel in kernels]
    assert list(together) == alone


def test_measurements_correct_it() -> None:
    device = load_device("h200-sxm")
    plain = _cost(DECODE, device)
    entry = Measurement(
        op="attention", sizes=tuple(DECODE.items()), dtype="bf16", runtime="vllm",
        median_us=2e6 * plain.latency_s,
    )  # fmt: skip
    measured = _cost(DECODE, replace(device, measurements=(entry,)))
    assert 1.4 < measured.latency_s / plain.latency_s < 2.0
    assert measured.high_s / measured.low_s < plain.high_s / plain.low_s


def test_the_artefact_survives_its_file(tmp_path: Path) -> None:
    known = load_attention()
    save_attention(known, tmp_path / "copy.npz")
    copy = load_attention(tmp_path / "copy.npz")
    assert _latencies(copy).tolist() == _latencies(known).tolist()
    save_attention(copy, tmp_path / "again.npz")
    assert (tmp_path / "again.npz").read_bytes() == (tmp_path / "copy.npz").read_bytes()


def _latencies(artefact: AttentionArtefact) -> np.ndarray:
    kernels = [_kernel({**DECODE, "B": batch}) for batch in (1, 8, 64)]
    device = load_device("h100-sxm")
    return forecast(artefact, kernels, device, load_runtime("vllm"), CONSTANTS).latency_s
