"""What eager torch launches for the operations of a network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from hwmodels.devices.load import load_device
from hwmodels.plans.region import plan_region
from hwmodels.runtimes.load import load_runtime
from hwmodels.work.kernel import Kernel
from hwmodels.work.work import Op, Operand, OperandName, OpKind, RegionWork

MAPS = (8, 64, 56, 56)
ROWS = (512, 1024)


def operand(name: str, shape: Sequence[int], *, is_part: bool = False) -> Operand:
    role: OperandName = "input" if name == "x" else "other"
    return Operand(name=role, value=name, shape=tuple(shape), is_part=is_part)


def launched(
    detail: str,
    output: Sequence[int],
    *reads: Operand,
    runtime: str = "torch-eager",
    kind: OpKind = "elementwise",
) -> list[Kernel]:
    """The kernels of one operation that is a region of its own."""
    written = Operand(name="output", value="y", shape=tuple(output))
    op = Op(name="op", kind=kind, detail=detail, sizes={}, operands=(*reads, written))
    region = RegionWork(
        name="op", kind=kind, role="", ops=(op,), reads=tuple(reads), writes=(written,)
    )
    plan = plan_region(region, load_device("h100-sxm"), load_runtime(runtime))
    return list(plan.kernels)


def test_dense_operands_of_one_shape_are_vectorised() -> None:
    (kernel,) = launched("add", MAPS, operand("x", MAPS), operand("other", MAPS))
    assert kernel.detail == "add"


@pytest.mark.parametrize("shape", [(1, 64, 1, 1), (8, 64, 1, 1), (1, 64, 56, 56)])
def test_an_operand_that_broadcasts_is_not(shape: tuple[int, ...]) -> None:
    reads = operand("x", MAPS), operand("other", shape)
    assert [one.detail for one in launched("mul", MAPS, *reads)] == ["strided"]
    assert [one.detail for one in launched("mul", MAPS, *reads, runtime="torch-compile")] == [
        "mul"
    ]


def test_a_number_does_not_broadcast() -> None:
    (kernel,) = launched("mul", ROWS, operand("x", ROWS), operand("other", ()))
    assert kernel.detail == "mul"


def test_a_part_of_a_fused_product_has_gaps_between_its_rows() -> None:
    (kernel,) = launched("silu", ROWS, operand("x", ROWS, is_part=True))
    assert kernel.detail == "strided"
    assert launched("silu", ROWS, operand("x", ROWS))[0].detail == "silu"


def test_a_batch_norm_prepares_its_channels_with_two_kernels() -> None:
    """`batch_norm_cuda_out`: a copy of the mean, 1/sqrt(variance + eps), then the map."""
    kernels = launched("batchnormalization", MAPS, operand("x", MAPS))
    assert [one.detail for one in kernels] == ["channels", "channels", "strided"]
    compiled = launched("batchnormalization", MAPS, operand("x", MAPS), runtime="torch-compile")
    assert len(compiled) == 1


@pytest.mark.parametrize(
    ("detail", "kind", "name"),
    [
        ("maxpool", "pool", "maps_maxpool"),
        ("averagepool", "pool", "maps_averagepool"),
        ("reducemean", "reduce", "maps_mean"),
        ("concat", "copy", "concat"),
    ],
)
def test_maps_have_kernels_of_their_own(detail: str, kind: OpKind, name: str) -> None:
    (kernel,) = launched(detail, (8, 64, 28, 28), operand("x", MAPS), kind=kind)
    assert kernel.detail == name


def test_a_convolution_adds_its_bias_element_by_element() -> None:
    sizes = {
        "N": 8,
        "C": 64,
        "O": 64,
        "H": 56,
        "W": 56,
        "groups": 1,
        "OH": 56,
        "OW": 56,
        "kh": 3,
        "kw": 3,
    }
    x = operand("x", MAPS)
    weight = Operand(name="weight", value="w", shape=(64, 64, 3, 3), is_weight=True)
    bias = Operand(name="bias", value="b", shape=(64,), is_weight=True)
    written = replace(x, name="output", value="y")
    op = Op(name="c", kind="conv2d", sizes=sizes, operands=(x, weight, bias, written))
    region = RegionWork(
        name="c", kind="conv2d", role="", ops=(op,), reads=(x, weight, bias), writes=(written,)
    )
    plan = plan_region(region, load_device("h100-sxm"), load_runtime("torch-eager"))
    assert [(one.kind, one.detail) for one in plan.kernels] == [
        ("conv2d", ""),
        ("pointwise", "strided"),
    ]
    assert plan.kernels[1].bytes == 2 * written.bytes
