"""Rows of an operator table as kernels: the same as those of a network's regions."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hwmodels.devices.load import load_device
from hwmodels.operators.lower import compute_elements, op_kernels, operation_of
from hwmodels.operators.number_type import NUMBER_TYPES
from hwmodels.plans.region import plan_region
from hwmodels.runtimes.load import load_runtime
from hwmodels.work.kernel import Kernel
from hwmodels.work.loops import ConvolutionLoops
from hwmodels.work.work import RegionWork

H100 = load_device("h100-sxm")
ROWS = {
    "gemm": {"M": 64, "K": 256, "N": 512},
    "bmm": {"B": 8, "M": 64, "K": 64, "N": 64},
    "conv2d": {"N": 2, "C": 64, "H": 56, "W": 56, "O": 128, "k": 1, "stride": 2, "groups": 1},
    "attention": {"B": 2, "H": 8, "HK": 2, "S": 64, "L": 128, "D": 64, "causal": 1},
    "softmax": {"rows": 64, "cols": 512},
    "add": {"rows": 64, "cols": 512},
    "embedding": {"vocab": 1000, "dim": 64, "tokens": 32},
}


def in_a_network(kernel: Kernel) -> Kernel:
    """The kernel without what only its table says: the caches that it was measured with."""
    return replace(kernel, weight_copies=1, inputs_are_cold=False, weight_is_cold=True)


@pytest.mark.parametrize("op", ROWS)
def test_a_row_and_a_region_of_the_same_operation_are_one_kernel(op: str) -> None:
    operation = operation_of(op, ROWS[op], NUMBER_TYPES["bf16"])
    region = RegionWork(
        name=op, kind=operation.kind, role="", ops=(operation,),
        reads=operation.operands[:-1], writes=operation.operands[-1:],
    )  # fmt: skip
    (ours,) = plan_region(region, H100, load_runtime("free")).kernels
    (row,) = op_kernels(op, ROWS[op], "bf16", compute_elements("bf16", H100), cold=True)
    assert in_a_network(row) == in_a_network(ours)


def test_a_convolution_of_a_table_keeps_its_stride() -> None:
    (kernel,) = op_kernels("conv2d", ROWS["conv2d"], "fp16", ("fp16", "fp16"), cold=True)
    assert kernel.loops == ConvolutionLoops(
        images=2, groups=1, in_channels=64, out_channels=128, in_size=(56, 56), out_size=(28, 28),
        kernel=(1, 1), stride=(2, 2),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("dtype", "elements", "bytes_"),
    [
        ("fp8_dynamic", ("e4m3", "e4m3"), (1, 1)),
        ("fp8_block", ("e4m3", "e4m3"), (1 + 4 / 128, 1 + 4 / 128**2)),
        ("nvfp4", ("e2m1", "e2m1"), (0.5625, 0.5625)),
        ("mxfp4", ("e2m1", "e2m1"), (0.53125, 0.53125)),
        ("w4a16", ("bf16", "bf16"), (2, 0.515625)),
        ("w8a16", ("bf16", "bf16"), (2, 1)),
        ("tf32", ("tf32", "tf32"), (4, 4)),
    ],
)
def test_number_types_are_formats(
    dtype: str, elements: tuple[str, str], bytes_: tuple[float, float]
) -> None:
    number = NUMBER_TYPES[dtype]
    assert (number.weight_element, number.input_element) == elements
    assert (number.input_bytes, number.weight_bytes) == bytes_
