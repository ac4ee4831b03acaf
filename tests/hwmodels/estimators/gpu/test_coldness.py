"""Cold weights: what their warm tables taught counts as far as those read main memory, too."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from hwmodels.devices.load import load_device
from hwmodels.estimators.gpu.coldness import holding_share
from hwmodels.estimators.gpu.estimator import GpuEstimator
from hwmodels.estimators.gpu.kernels import gemms_of
from hwmodels.estimators.gpu.residual import load_artefact
from hwmodels.estimators.gpu.skeleton import GpuFigures, gemm_terms
from hwmodels.operators.lower import compute_elements, op_kernels
from hwmodels.runtimes.load import load_runtime
from hwmodels.work.kernel import Kernel
from studies.served_models.cold import RESULTS

DEVICE = load_device("h100-sxm")
GPU = GpuFigures.of(DEVICE)
CONSTANTS = load_artefact().constants
MIB = 2**20


def gemm(n: int, k: int) -> Kernel:
    """A bf16 product of one row in a network: its weights come from main memory."""
    shape = {"M": 1, "N": n, "K": k}
    (kernel,) = op_kernels(
        "gemm", shape, "bf16", compute_elements("bf16", DEVICE), cold=False
    )  # fmt: skip
    return replace(kernel, weight_is_cold=True, weight_copies=1)


def share(kernel: Kernel, runtime: str = "vllm") -> float:
    return float(holding_share([kernel], runtime, GPU, CONSTANTS)[0])


def test_weights_whose_copies_the_cache_held_teach_nothing_of_cold_ones() -> None:
    """Five copies of 2 MiB stay in an H100's 50 MB, of 64 MiB nothing does."""
    assert share(gemm(1024, 1024)) == pytest.approx(0)
    assert share(gemm(8192, 4096)) == 1
    # Five of 9 MiB and a little beside are 0.94 of the cache, between what stays and what goes.
    bytes_ = 5 * 9 * MIB + 2 * (4608 + 1024)
    kept = (CONSTANTS.evicted_share - bytes_ / GPU.cache_bytes) / (
        CONSTANTS.evicted_share - CONSTANTS.resident_share
    )
    assert share(gemm(1024, 4608)) == pytest.approx(1 - kept)


def test_warm_products_and_runtimes_that_were_measured_cold_have_all_of_it() -> None:
    small = gemm(1024, 1024)
    assert share(replace(small, weight_is_cold=False)) == 1
    assert share(small, "torch-eager") == 1


def test_a_small_cold_product_takes_what_the_skeleton_says() -> None:
    small, runtime = gemm(1024, 1024), load_runtime("vllm")
    (cost,) = GpuEstimator().estimate([small], DEVICE, runtime)
    terms = gemm_terms(gemms_of([small], DEVICE), GPU, CONSTANTS)
    assert cost.latency_s == pytest.approx(float(terms.latency_s[0]))


def test_the_share_is_what_cold_rows_bear_out() -> None:
    """Trees of warm rows worsen cold rows whose copies were held, and the share mends that."""
    table = pd.read_csv(RESULTS / "cold.csv").set_index(["weights", "runtime"])
    held, whole = table.loc["held"], table.loc["all"]
    assert (held["trees"] > held["no_trees"] + 1).all()
    assert (held["by_share"] < held["no_trees"] + 0.5).all()
    assert (whole["by_share"] < np.minimum(whole["no_trees"], whole["trees"])).all()
    assert (held["slope"] < 0.05).all()
    assert (table.loc["not held"]["slope"] > 0.4).all()
