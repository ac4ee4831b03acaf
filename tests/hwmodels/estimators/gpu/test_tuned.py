"""Products that a tuner has picked: what is measured of them, on which device, how sure it is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hwmodels.devices.device import Measurement
from hwmodels.devices.load import load_device
from hwmodels.estimators.gpu.learned_tuned import (
    load_tuned,
    save_tuned,
    tuned_forecast,
    tuned_terms,
    type_of,
)
from hwmodels.estimators.registry import estimator_of
from hwmodels.operators.lower import compute_elements, operator_kernels
from hwmodels.runtimes.load import load_runtime
from hwmodels.work.kernel import Kernel, KernelCost

AITER = load_runtime("aiter")
SHAPE = {"M": 4096, "N": 7168, "K": 2048}


def product(dtype: str, device: str = "mi300x", shape: dict[str, int] | None = None) -> Kernel:
    board = load_device(device)
    compute = compute_elements(dtype, board)
    (kernel,) = operator_kernels("gemm", shape or SHAPE, dtype, AITER, compute)
    return kernel


def cost(kernel: Kernel, device: str = "mi300x") -> KernelCost:
    board = load_device(device)
    (found,) = estimator_of(board).estimate([kernel], board, AITER)
    return found


def test_a_tuner_times_products_alone_and_cold() -> None:
    kernel = product("fp8_block")
    assert kernel.kind == "gemm"
    assert kernel.inputs_are_cold
    assert kernel.weight_is_cold
    serving = load_runtime("vllm")
    quantised = operator_kernels("gemm", SHAPE, "fp8_block", serving, ("e4m3", "e4m3"))
    assert len(quantised) == 2


def test_a_number_type_gets_the_kernel_whose_scales_are_shared_alike() -> None:
    """Both have e4m3 operands; only blocks are scaled on the way along K."""
    assert product("fp8_block").efficiency == 0.612
    assert product("fp8_dynamic").efficiency == 1
    assert type_of(product("fp8_block")) == "e4m3/block"


def test_measured_products_are_within_a_fifth() -> None:
    """Five rows of ROCm/aiter's tuned table of an MI300X, at e404860 (microseconds)."""
    for shape, measured in (
        ({"M": 2, "N": 7168, "K": 2048}, 8.1), ({"M": 256, "N": 5120, "K": 12800}, 92.2),
        ({"M": 4096, "N": 7168, "K": 2048}, 144.3), ({"M": 512, "N": 512, "K": 7168}, 19.5),
        ({"M": 32384, "N": 1280, "K": 5120}, 550.0),
    ):  # fmt: skip
        predicted = cost(product("fp8_block", shape=shape)).latency_s * 1e6
        assert predicted == pytest.approx(measured, rel=0.2), shape


def test_trees_count_where_their_type_and_generation_were_measured() -> None:
    artefact = load_tuned()
    for name, share in (("mi300x", 1.0), ("mi325x", 0.5), ("mi308x", 0.5), ("mi355x", 0.0)):
        assert artefact.share(product("fp8_block"), load_device(name)) == share
    assert artefact.share(product("bf16"), load_device("mi300x")) == 0
    device = load_device("mi300x")
    kernels = [product("fp8_block"), product("bf16")]
    terms, features = tuned_terms(kernels, device, artefact.constants)
    learned = artefact.trees.predict(features[:1])[0]
    found = tuned_forecast(artefact, kernels, device).latency_s
    assert found[0] == pytest.approx(terms.latency_s[0] * np.exp(learned))
    assert found[1] == terms.latency_s[1]


def test_doubt_grows_with_the_distance_from_what_was_measured() -> None:
    artefact, device = load_tuned(), load_device("mi300x")
    assert artefact.standing(product("fp8_block"), device) == "seen"
    assert artefact.standing(product("bf16"), device) == "other type"
    assert artefact.standing(product("fp8_block"), load_device("mi308x")) == "other device"
    widths = [high - low for low, high in (
        artefact.ends[name] for name in ("seen", "other type", "other device")
    )]  # fmt: skip
    assert widths == sorted(widths)


def test_a_full_product_runs_at_the_clock_under_load() -> None:
    """AMD's own best on an MI300X: 708 TFLOP/s in bf16, 1273 in fp8, of 1307 and 2615."""
    shape = {"M": 4096, "N": 4864, "K": 32896}
    for dtype, best in (("bf16", 708e12), ("fp8", 1273e12)):
        found = cost(product(dtype, shape=shape))
        operations = 2 * 4096 * 4864 * 32896
        assert operations / found.latency_s == pytest.approx(best, rel=0.1)


def test_samples_of_a_device_count() -> None:
    device = load_device("mi300x")
    kernel = product("bf16")
    plain = cost(kernel).latency_s
    twice = tuple(
        Measurement(
            op="gemm", sizes=tuple(sorted({**SHAPE, "M": m}.items())), dtype="bf16",
            runtime="aiter",
            median_us=2e6 * cost(product("bf16", shape={**SHAPE, "M": m})).latency_s,
        )
        for m in (512, 1024, 2048, 4096, 8192)
    )  # fmt: skip
    known = replace(device, measurements=twice)
    (found,) = estimator_of(known).estimate([kernel], known, AITER)
    assert found.latency_s == pytest.approx(2 * plain, rel=0.25)


def test_the_artefact_survives_a_file(tmp_path: Path) -> None:
    artefact = load_tuned()
    save_tuned(artefact, tmp_path / "tuned.npz")
    again = load_tuned(tmp_path / "tuned.npz")
    assert again.constants == artefact.constants
    assert again.ends == artefact.ends
    inputs = np.random.default_rng(0).normal(size=(20, 17))
    assert np.array_equal(again.trees.predict(inputs), artefact.trees.predict(inputs))
