"""Experts of mixtures: which code is asked, how much of what was learned counts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hwmodels.devices.load import load_device
from hwmodels.estimators.gpu.estimator import GpuEstimator
from hwmodels.estimators.gpu.experts import (
    expert_inputs,
    expert_kernel,
    has_experts,
    load_experts,
    save_experts,
)
from hwmodels.estimators.gpu.residual import load_artefact
from hwmodels.estimators.gpu.standing import Standing
from hwmodels.fit.experts import FORMATS, expert_layer
from hwmodels.plans.conversion import kernels_of
from hwmodels.plans.region import plan_region
from hwmodels.runtimes.load import load_runtime
from hwmodels.work.kernel import Kernel

LAYER = {
    "tokens": 64, "hidden": 4096, "inner": 1536, "topk": 8, "experts": 128, "tensor_parts": 1,
    "expert_parts": 1, "skew": 101, "gated": 1,
}  # fmt: skip
# Rows of aiconfigurator's moe tables at 095f58a: device, runtime, dtype, sizes that differ from
# `LAYER`, milliseconds.
MEASURED = (
    ("h100-sxm", "vllm", "bfloat16", {"tokens": 64}, 1.467),
    ("h100-sxm", "vllm", "fp8", {"tokens": 64}, 3.792),
    ("h100-sxm", "vllm", "fp8", {"tokens": 4096, "expert_parts": 8}, 1.575),
    ("b200-sxm", "vllm", "nvfp4", {"tokens": 4096}, 0.573),
    ("b200-sxm", "vllm", "bfloat16", {"tokens": 64}, 0.609),
    ("l40s", "vllm", "fp8", {"tokens": 1}, 0.242),
    ("a100-sxm-80gb", "tensorrt-llm", "bfloat16", {"tokens": 64, "expert_parts": 8}, 0.369),
)


def kernels(device: str, runtime: str, dtype: str, **sizes: int) -> list[Kernel]:
    """All kernels of a layer."""
    found: list[Kernel] = []
    for region in expert_layer({**LAYER, **sizes}):
        plan = plan_region(
            region.quantized(FORMATS[dtype]), load_device(device), load_runtime(runtime)
        )
        found += [*kernels_of(plan.conversions), *plan.kernels]
    return found


def products(device: str, runtime: str, dtype: str, **sizes: int) -> list[Kernel]:
    """The products among them."""
    named = load_runtime(runtime)
    layer = kernels(device, runtime, dtype, **sizes)
    return [one for one in layer if has_experts(one, named)]


def seconds(device: str, runtime: str, dtype: str, **sizes: int) -> float:
    layer = kernels(device, runtime, dtype, **sizes)
    costs = GpuEstimator().estimate(layer, load_device(device), load_runtime(runtime))
    return sum(cost.latency_s for cost in costs)


@pytest.mark.parametrize(("device", "runtime", "dtype", "sizes", "measured_ms"), MEASURED)
def test_layers_take_what_they_were_measured_at(
    device: str, runtime: str, dtype: str, sizes: dict[str, int], measured_ms: float
) -> None:
    assert seconds(device, runtime, dtype, **sizes) * 1e3 == pytest.approx(measured_ms, rel=0.3)


@pytest.mark.parametrize(
    ("device", "runtime", "dtype", "name"),
    [
        ("b200-sxm", "vllm", "nvfp4", "trtllm-gen"),
        ("b300-sxm", "vllm", "bfloat16", "trtllm-gen"),
        ("b200-sxm", "vllm", "int4_wo", "marlin"),
        ("h200-sxm", "vllm", "fp8", "flashinfer-cutlass"),
        ("h100-sxm", "vllm", "w4a16_mxfp4", "triton-mxfp4"),
        ("l40s", "vllm", "w4a16_mxfp4", "marlin"),
        ("a100-sxm-80gb", "tensorrt-llm", "bfloat16", "cutlass"),
    ],
)
def test_the_code_is_that_of_device_and_elements(
    device: str, runtime: str, dtype: str, name: str
) -> None:
    for kernel in products(device, runtime, dtype):
        assert expert_kernel(kernel, load_device(device), load_runtime(runtime)) == name


def test_half_of_what_was_learned_counts_where_a_kernel_was_not_measured() -> None:
    """Triton's kernel on an H100 is one of those measured; on an H100 of another instruction set
    version nobody measured it."""
    device, runtime = load_device("h100-sxm"), load_runtime("vllm")
    strange = replace(
        device, name="strange", architecture=replace(device.architecture, version=11.0)
    )
    both = products("h100-sxm", "vllm", "bfloat16", tokens=4096)
    terms, _ = expert_inputs(both, device, load_artefact().constants)
    known, guessed = (
        np.array([cost.latency_s for cost in GpuEstimator().estimate(both, one, runtime)])
        for one in (device, strange)
    )
    assert np.log(guessed / terms.latency_s) == pytest.approx(
        np.log(known / terms.latency_s) / 2, rel=1e-6
    )


def test_intervals_widen_from_measured_devices_to_siblings_to_others() -> None:
    artefact, (h100, h200, ada) = (
        load_experts(), [load_device(name) for name in ("h100-sxm", "h200-sxm", "rtx-pro-6000")]
    )  # fmt: skip
    standings: tuple[Standing, ...] = ("seen", "sibling", "unseen")
    ends = [
        artefact.interval(standing, "triton", device)
        for standing, device in zip(standings, (h100, h200, ada), strict=True)
    ]
    widths = [high - low for low, high in ends]
    assert widths[0] < widths[1] < widths[2]


def test_experts_of_runtimes_that_name_no_code_are_gemms() -> None:
    runtime = load_runtime("torch-eager")
    for region in expert_layer(LAYER):
        plan = plan_region(region, load_device("h100-sxm"), runtime)
        assert not any(has_experts(one, runtime) for one in plan.kernels)


def test_the_artefact_is_read_as_it_was_written(tmp_path: Path) -> None:
    artefact = load_experts()
    save_experts(artefact, tmp_path / "again.npz")
    again = load_experts(tmp_path / "again.npz")
    assert (again.seen, again.unseen, again.kernels) == (
        artefact.seen, artefact.unseen, artefact.kernels,
    )  # fmt: skip
    assert np.array_equal(again.trees.value, artefact.trees.value)
