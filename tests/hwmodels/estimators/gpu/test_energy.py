"""Energy of kernels: the terms of the equation one by one, by arithmetic."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hwmodels.devices.load import load_device
from hwmodels.estimators.gpu.energy import (
    Draw,
    EnergyConstants,
    Load,
    load_energy,
    save_energy,
)
from hwmodels.estimators.registry import estimator_of
from hwmodels.operators.lower import compute_elements, operator_kernels
from hwmodels.runtimes.load import load_runtime
from hwmodels.work.kernel import Kernel, KernelCost

H100 = load_device("h100-sxm")
EAGER = load_runtime("torch-eager")
BOARD = Draw(idle_w=100.0, active_w=200.0, limit_w=500.0, dram_j=5e-11, cache_j=1e-11,
             launch_s=1e-6)  # fmt: skip
NOTHING = Load(
    op_j=np.zeros(1), dram_bytes=np.zeros(1), cache_bytes=np.zeros(1), busy=np.zeros(1)
)  # fmt: skip


def joules(load: Load, seconds: float) -> float:
    return float(load.joules(BOARD, np.array([seconds]))[0])


def test_each_part_adds_its_energy() -> None:
    assert joules(NOTHING, 1e-5) == pytest.approx(100 * 1e-5)
    busy = replace(NOTHING, busy=np.array([0.5]))
    assert joules(busy, 1e-5) == pytest.approx(100 * 1e-5 + 200 * 0.5 * 9e-6)
    moving = replace(NOTHING, dram_bytes=np.array([1e6]), cache_bytes=np.array([2e6]))
    assert joules(moving, 1e-3) == pytest.approx(0.1 + 1e6 * 5e-11 + 2e6 * 1e-11)
    computing = replace(NOTHING, op_j=np.array([1e-2]))
    assert joules(computing, 1e-3) == pytest.approx(0.11)


def test_the_limit_caps_the_power() -> None:
    assert joules(replace(NOTHING, op_j=np.array([1.0])), 1e-3) == pytest.approx(0.5)


def test_a_launch_draws_no_more_than_idle() -> None:
    busy = replace(NOTHING, busy=np.ones(1))
    assert joules(busy, 1e-6) == pytest.approx(100 * 1e-6)


def cost(op: str, dtype: str, **shape: int) -> KernelCost:
    kernels = operator_kernels(op, shape, dtype, EAGER, compute_elements(dtype, H100))
    (found,) = estimator_of(H100).estimate(kernels[-1:], H100, EAGER)
    return found


def watts(found: KernelCost) -> float:
    return found.energy_j / found.latency_s


def test_rows_that_keep_few_cores_busy_draw_little_more_than_an_idle_board() -> None:
    """Seven rows of 15,240 drew 137 to 146 W on an H100, 62,193 of 80 in fp16 391 W."""
    few = cost("rmsnorm", "bf16", rows=7, cols=15240)
    many = cost("rmsnorm", "bf16", rows=62193, cols=80)
    assert 128 < watts(few) < 150
    assert watts(many) > 350


def test_a_product_that_fills_the_board_draws_its_limit() -> None:
    assert watts(cost("gemm", "bf16", M=8192, N=8192, K=8192)) == pytest.approx(700)


def test_bytes_of_main_memory_are_counted_once_at_the_device_s_figure() -> None:
    """A vector that one core copies: idle power, the core's share, bytes."""
    constants = load_energy()
    kernel: Kernel = operator_kernels(
        "relu", {"rows": 1, "cols": 4096}, "fp32", EAGER, ("fp32", "fp32")
    )[0]  # fmt: skip
    (found,) = estimator_of(H100).estimate([kernel], H100, EAGER)
    moved = 2 * 4096 * 4
    busy = moved / constants.core_bytes / 132
    active = constants.active_share * (700 - 128.4) * busy * (found.latency_s - 1.25e-6)
    assert found.energy_j == pytest.approx(128.4 * found.latency_s + active + 49e-12 * moved)


def test_constants_survive_a_file(tmp_path: Path) -> None:
    constants = EnergyConstants(
        active_share=0.5, cache_energy_j=1e-11, core_bytes=1e4, core_rows=2.0
    )
    save_energy(constants, tmp_path / "energy.json")
    assert load_energy(tmp_path / "energy.json") == constants
