"""Operations as kernels: formats and bytes of what is multiplied, and of what is fused in."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hwmodels.devices.load import load_device
from hwmodels.errors import WorkError
from hwmodels.estimators.gpu.kernels import gemms_of
from hwmodels.formats.catalog import quantizer
from hwmodels.plans.operation import contraction_kernel, reads_of
from hwmodels.plans.region import plan_region
from hwmodels.runtimes.load import load_runtime
from hwmodels.work.kernel import Kernel
from hwmodels.work.loops import ConvolutionLoops, ProductLoops
from hwmodels.work.work import Op, Operand, RegionWork

H100 = load_device("h100-sxm")
COMPUTE = ("bf16", "bf16")


def product(m: int, k: int, n: int, **weight: object) -> Op:
    return Op(
        name="gemm",
        kind="gemm",
        sizes={"M": m, "K": k, "N": n},
        operands=(
            Operand(name="input", value="x", shape=(m, k), contraction_axes=(1,)),
            Operand(
                name="weight", value="w", shape=(k, n), contraction_axes=(0,), is_weight=True,
                **weight,  # type: ignore[arg-type]
            ),
            Operand(name="output", value="y", shape=(m, n)),
        ),
    )  # fmt: skip


def lowered(op: Op) -> Kernel:
    written = op.operands[-1].bytes
    return contraction_kernel([op], reads_of(op), written, compute=COMPUTE, accumulator="fp32")


def test_a_fused_residual_is_read_but_not_multiplied() -> None:
    gemm = product(64, 256, 512)
    add = Op(
        name="add",
        kind="elementwise",
        detail="add",
        sizes={},
        operands=(
            Operand(name="input", value="residual", shape=(64, 512)),
            Operand(name="other", value="y", shape=(64, 512)),
            Operand(name="output", value="z", shape=(64, 512)),
        ),
    )
    region = RegionWork(
        name="o", kind="gemm", role="o", ops=(gemm, add),
        reads=(*gemm.operands[:2], add.operands[0]), writes=add.operands[2:],
    )  # fmt: skip
    (kernel,) = plan_region(region, H100, load_runtime("free")).kernels
    assert kernel.input_bytes == 2 * 64 * 256
    assert kernel.other_bytes == 2 * 64 * 512
    assert gemms_of([kernel], H100).input_bytes == [2.0]


@pytest.mark.parametrize(("name", "width"), [("e4m3_channel", 1.0), ("int4_g128", 0.515625)])
def test_a_weight_is_as_wide_as_its_format_says(name: str, width: float) -> None:
    """Scales of output channels belong to no element: 256 rows do not make a wider format."""
    kernel = lowered(product(64, 256, 512, quantizer=quantizer(name)))
    assert kernel.weight_format == quantizer(name).format
    assert gemms_of([kernel], H100).weight_bytes == [width]


def test_rows_that_experts_gather_are_as_wide_as_they_are_stored() -> None:
    """Eight experts a token read each row eight times: that makes no element narrower."""
    tokens, topk = 64, 8
    op = Op(
        name="up",
        kind="grouped_gemm",
        sizes={"E": 32, "M": tokens * topk, "K": 256, "N": 512, "topk": topk},
        operands=(
            Operand(name="input", value="x", shape=(tokens, 256), contraction_axes=(1,)),
            Operand(
                name="weight", value="w", shape=(32, 256, 512), contraction_axes=(1,),
                is_weight=True,
            ),
            Operand(name="output", value="y", shape=(tokens * topk, 512)),
        ),
    )  # fmt: skip
    kernel = lowered(op)
    assert kernel.input_bytes == 2 * tokens * 256
    assert gemms_of([kernel], H100).input_bytes == [2.0]


def test_a_convolution_keeps_its_loop_nest() -> None:
    sizes = {
        "N": 2, "C": 16, "H": 9, "W": 11, "O": 32, "OH": 4, "OW": 5, "kh": 3, "kw": 3,
        "groups": 4, "sh": 2, "sw": 2, "dh": 1, "dw": 1,
    }  # fmt: skip
    op = Op(
        name="conv",
        kind="conv2d",
        sizes=sizes,
        operands=(
            Operand(name="input", value="x", shape=(2, 16, 9, 11), contraction_axes=(1,)),
            Operand(name="weight", value="w", shape=(32, 4, 3, 3), is_weight=True),
            Operand(name="output", value="y", shape=(2, 32, 4, 5)),
        ),
    )
    loops = lowered(op).loops
    assert loops == ConvolutionLoops(
        images=2, groups=4, in_channels=16, out_channels=32, in_size=(9, 11), out_size=(4, 5),
        kernel=(3, 3), stride=(2, 2),
    )  # fmt: skip
    assert loops.product == ProductLoops(batch=4, m=2 * 4 * 5, n=8, k=4 * 9)
    assert loops.macs == op.macs


def test_equal_kernels_are_one_key() -> None:
    first, second = lowered(product(64, 256, 512)), lowered(product(64, 256, 512))
    assert len({first, second, replace(first, efficiency=0.5)}) == 2


def test_a_missing_size_and_a_missing_format_are_named() -> None:
    broken = replace(product(1, 2, 3), sizes={"M": 1, "K": 2})
    with pytest.raises(WorkError, match=r"gemm \(gemm\): sizes missing: N"):
        lowered(broken)
    with pytest.raises(WorkError, match="formats of both operands"):
        Kernel(kind="gemm", loops=ProductLoops(m=1, n=1, k=1))
    with pytest.raises(WorkError, match="expected ConvolutionLoops, got ProductLoops"):
        Kernel(kind="conv2d", loops=ProductLoops(m=1, n=1, k=1))
