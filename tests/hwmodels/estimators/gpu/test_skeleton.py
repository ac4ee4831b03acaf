"""Laws of the skeleton: what no measurement may contradict."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hwmodels.devices.load import load_device
from hwmodels.estimators.gpu.constants import (
    CONSTANTS,
    constants_from_json,
    constants_to_json,
)
from hwmodels.estimators.gpu.conversions import quantised_as
from hwmodels.estimators.gpu.estimator import GpuEstimator
from hwmodels.estimators.gpu.kernels import TERMS, gemms_of
from hwmodels.estimators.gpu.overhead import Overhead, overhead_s
from hwmodels.estimators.gpu.skeleton import GpuFigures, gemm_terms, kept_share
from hwmodels.formats import catalog
from hwmodels.runtimes.load import load_runtime
from hwmodels.work.kernel import Kernel
from hwmodels.work.loops import ConvolutionLoops, ProductLoops, RowLoops
from hwmodels.work.work import plain_format

BF16 = plain_format(16)
H100 = load_device("h100-sxm")
L40S = load_device("l40s")


def gemm(m: int, n: int, k: int, **changes: object) -> Kernel:
    """A bf16 GEMM with everything warm."""
    kernel = Kernel(
        kind="gemm",
        loops=ProductLoops(m=m, n=n, k=k),
        input_format=BF16,
        weight_format=BF16,
        output_format=BF16,
        weight_element="bf16",
        input_element="bf16",
        input_bytes=2 * m * k,
        weight_bytes=2 * n * k,
        write_bytes=2 * m * n,
        weight_is_cold=False,
    )
    return replace(kernel, **changes)  # type: ignore[arg-type]


def seconds(kernel: Kernel, device: object = L40S) -> float:
    """The skeleton's time of a GEMM."""
    gpu = GpuFigures.of(device)  # type: ignore[arg-type]
    return float(gemm_terms(gemms_of([kernel], device), gpu, CONSTANTS).latency_s[0])  # type: ignore[arg-type]


def test_the_cache_keeps_what_little_else_has_passed() -> None:
    gpu = GpuFigures.of(L40S)
    needed = np.array([0.0, 0.5, 0.9, 1.5, 10.0]) * gpu.cache_bytes
    kept = kept_share(needed, gpu, CONSTANTS)
    assert kept[0] == kept[1] == 1.0
    assert 0.0 < kept[2] < 1.0
    assert kept[3] == kept[4] == 0.0


def test_five_copies_of_a_weight_do_not_fit_where_one_does() -> None:
    one = gemm(1, 4096, 4096)
    assert seconds(replace(one, weight_copies=5)) > 1.5 * seconds(one)
    small = gemm(1, 1024, 1024)
    assert seconds(replace(small, weight_copies=5)) == seconds(small)


def test_a_cold_weight_takes_at_least_its_bytes_over_the_bandwidth() -> None:
    kernel = gemm(1, 8192, 8192, weight_is_cold=True)
    assert seconds(kernel) > kernel.weight_bytes / L40S.main_memory.bandwidth_bytes_per_s.value


@pytest.mark.parametrize(("m", "bound"), [(4096, "compute"), (1, "memory")])
def test_the_bound_is_the_largest_term(m: int, bound: str) -> None:
    kernel = gemm(m, 8192, 8192, weight_is_cold=True)
    (cost,) = GpuEstimator().estimate([kernel], H100, load_runtime("vllm"))
    assert cost.bound == bound


@pytest.mark.parametrize(
    ("stored", "skipped"),
    [("bf16", 301_056), ("fp32", 602_112), ("e5m2", 150_528), ("e4m3", 150_528),
     ("e2m1", 75_264)],
)  # fmt: skip
def test_a_stride_skips_as_many_bytes_as_the_format_stores(stored: str, skipped: int) -> None:
    """A 1x1 kernel of stride 2 leaves three quarters of 64 channels of 56x56 unread."""
    fmt = catalog.format(stored)
    kernel = Kernel(
        kind="conv2d",
        loops=ConvolutionLoops(
            images=1, groups=1, in_channels=64, out_channels=128, in_size=(56, 56),
            out_size=(28, 28), kernel=(1, 1), stride=(2, 2),
        ),
        input_format=fmt,
        weight_format=fmt,
        weight_element="bf16",
        input_element="bf16",
        input_bytes=fmt.storage_bytes((1, 64, 56, 56)),
        inputs_are_cold=True,
    )  # fmt: skip
    assert kernel.bytes - gemms_of([kernel], H100).cold_bytes[0] == skipped


@pytest.mark.parametrize(
    ("kernel", "stride", "dilation", "share"),
    [(1, 2, 1, 1 / 4), (2, 4, 1, 1 / 4), (3, 2, 1, 1.0), (2, 4, 2, 1 / 4), (3, 4, 1, 9 / 16)],
)
def test_what_no_tap_touches_is_not_read(
    kernel: int, stride: int, dilation: int, share: float
) -> None:
    """Counted on a grid of pixels."""
    places = 64 // stride
    loops = ConvolutionLoops(
        images=1, groups=1, in_channels=8, out_channels=8, in_size=(64, 64),
        out_size=(places, places), kernel=(kernel, kernel), stride=(stride, stride),
        dilation=(dilation, dilation),
    )  # fmt: skip
    assert loops.read_share == pytest.approx(share, rel=0.05)


def test_a_stride_beyond_the_kernel_reads_a_part_of_the_input() -> None:
    dense = Kernel(
        kind="conv2d",
        loops=ConvolutionLoops(
            images=32,
            groups=1,
            in_channels=256,
            out_channels=128,
            in_size=(56, 56),
            out_size=(28, 28),
            kernel=(1, 1),
            stride=(2, 2),
        ),
        input_format=BF16,
        weight_format=BF16,
        weight_element="bf16",
        input_element="bf16",
        input_bytes=2 * 32 * 256 * 56 * 56,
        weight_bytes=2 * 256 * 128,
        write_bytes=2 * 32 * 128 * 28 * 28,
        inputs_are_cold=True,
    )
    gemms = gemms_of([dense], H100)
    assert gemms.cold_bytes[0] == dense.bytes - dense.input_bytes * 3 / 4


def test_three_channels_keep_a_convolution_off_the_matrix_unit() -> None:
    def image(channels: int) -> Kernel:
        return Kernel(
            kind="conv2d",
            loops=ConvolutionLoops(
                images=8,
                groups=1,
                in_channels=channels,
                out_channels=64,
                in_size=(224, 224),
                out_size=(112, 112),
                kernel=(7, 7),
                stride=(2, 2),
            ),
            input_format=BF16,
            weight_format=BF16,
            weight_element="bf16",
            input_element="bf16",
            input_bytes=2 * 8 * channels * 224 * 224,
            weight_bytes=2 * 64 * 49 * channels,
            write_bytes=2 * 100352 * 64,
        )

    gpu = GpuFigures.of(H100)
    three, eight = TERMS["conv2d"]([image(3), image(8)], H100, gpu, CONSTANTS).latency_s
    assert three > eight


def test_constants_survive_json() -> None:
    assert constants_from_json(constants_to_json(CONSTANTS)) == CONSTANTS


def test_an_unmeasured_runtime_takes_the_fastest_quantisation() -> None:
    slow, fast = (
        Overhead(
            launches=launches, row_cycles=0, depth_cycles=0, element_cycles=0, passes=0,
            fixed_cycles=0,
        )
        for launches in (3.0, 1.0)
    )  # fmt: skip
    known = {"vllm/fp8_dynamic": slow, "tensorrt-llm/fp8_dynamic": fast}
    basis = np.ones((2, 6))
    assert overhead_s(known, "sglang", "fp8_dynamic", basis) == pytest.approx([1.0, 1.0])
    assert overhead_s(known, "vllm", "fp8_dynamic", basis) == pytest.approx([3.0, 3.0])
    assert overhead_s(known, "vllm", "w4a16", basis) == pytest.approx([0.0, 0.0])


def test_a_static_cast_is_no_dynamic_quantisation() -> None:
    assert quantised_as(cast_to("e4m3_tensor")) == ""


def cast_to(name: str, stored: str | None = None) -> Kernel:
    """The quantisation of 16 rows to a format, stored in it or in another."""
    grid = catalog.format(name)
    return Kernel(
        kind="quantize",
        detail=grid.granularity,
        loops=RowLoops(rows=16, cols=128),
        input_format=BF16,
        output_format=catalog.format(stored) if stored else grid,
        grid=grid,
        input_bytes=2 * 16 * 128,
        write_bytes=grid.storage_bytes((16, 128)),
    )


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("e4m3_token", "fp8_dynamic"),
        ("int8_token", "fp8_dynamic"),
        ("e4m3@g128/fp32", "fp8_block"),
        ("mxfp8", "fp8_block"),
        ("nvfp4", "nvfp4"),
        ("mxfp4", "mxfp4"),
        ("int4_token", "int4_token"),
        ("mxfp6", "mxfp6"),
    ],
)
def test_a_quantisation_is_known_by_its_format(name: str, dtype: str) -> None:
    assert quantised_as(cast_to(name)) == dtype


def test_an_emulated_quantisation_packs_nothing() -> None:
    assert quantised_as(cast_to("mxfp4", stored="bf16")) == "fp8_block"


def test_a_type_that_nobody_measured_takes_the_fastest_measured_one() -> None:
    fast, slow = (
        Overhead(
            launches=launches, row_cycles=0, depth_cycles=0, element_cycles=0, passes=0,
            fixed_cycles=0,
        )
        for launches in (1.0, 3.0)
    )  # fmt: skip
    known = {"vllm/nvfp4": slow, "vllm/fp8_dynamic": fast}
    basis = np.ones((1, 6))
    assert overhead_s(known, "vllm", "mxfp4", basis) == [1.0]
    assert overhead_s(known, "vllm", "int4_token", basis) == [1.0]
    assert overhead_s(known, "vllm", "nvfp4", basis) == [3.0]
