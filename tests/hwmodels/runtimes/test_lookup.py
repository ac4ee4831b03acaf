"""Kernels that look products up, or sum them in 16 bits, as modes of a user's runtime file."""

from __future__ import annotations

from pathlib import Path

from hwmodels.devices.load import load_device
from hwmodels.estimators.registry import estimator_of
from hwmodels.formats import catalog
from hwmodels.formats.quantizer import Quantizer
from hwmodels.plans.region import plan_region
from hwmodels.runtimes.load import load_runtime
from hwmodels.work.kernel import Kernel
from hwmodels.work.work import Op, Operand, RegionWork

RUNTIME = """
name: tables
title: kernels of papers
version: "1"
placement: consumer
source: "DeepGEMM, arXiv:2304.09049; FBGEMM, arXiv:2101.05615"
modes:
  - name: deepgemm
    ops: [gemm]
    operands: {weight: {element: [int2]}, input: {element: [int2]}}
    compute: [int8, int8]
    accumulator: int32
    lookup: {index_bits: 4, instructions: 6.75}
    source: "arXiv:2304.09049"
  - name: acc16
    ops: [gemm]
    operands: {weight: {element: [int4]}, input: {element: [int8]}}
    compute: [int8, int8]
    accumulator: int16
    outliers: 0.01
    source: "arXiv:2101.05615"
  - name: acc32
    ops: [gemm]
    operands: {weight: {element: [int8]}, input: {element: [int8]}}
    compute: [int8, int8]
    accumulator: int32
    source: "arXiv:2101.05615"
"""


def _kernel(tmp_path: Path, weight: str, activation: str) -> tuple[Kernel, float]:
    """The product's kernel as the runtime plans it, and its seconds on an AVX2 processor."""
    path = tmp_path / "tables.yaml"
    path.write_text(RUNTIME, encoding="utf-8")
    runtime, device = load_runtime(path), load_device("cpu-avx2")
    held = {"weight": catalog.format(weight), "input": catalog.format(activation)}
    shapes = {"input": (256, 1024), "weight": (1024, 1024)}
    operands = [
        Operand(name=name, value=name, shape=shapes[name], contraction_axes=(-1,),
                quantizer=Quantizer(format=held[name]), is_weight=name == "weight")
        for name in ("input", "weight")
    ]  # fmt: skip
    output = Operand(name="output", value="y", shape=(256, 1024))
    op = Op(name="g", kind="gemm", sizes={"M": 256, "K": 1024, "N": 1024},
            operands=(*operands, output))  # fmt: skip
    region = RegionWork(
        name="r", kind="gemm", role="linear", ops=(op,), reads=tuple(operands), writes=(output,)
    )
    kernel = next(one for one in plan_region(region, device, runtime).kernels if one.macs)
    (cost,) = estimator_of(device).estimate([kernel], device, runtime)
    return kernel, cost.latency_s


def test_a_table_and_a_narrow_sum_reach_the_kernel(tmp_path: Path) -> None:
    table, _ = _kernel(tmp_path, "int2", "int2")
    assert table.lookup is not None
    assert table.lookup.table_bytes == 16
    narrow, _ = _kernel(tmp_path, "int4", "int8")
    assert (narrow.accumulator, narrow.outliers) == ("int16", 0.01)
    assert _kernel(tmp_path, "int8", "int8")[0].accumulator == "int32"


def test_16_bit_sums_beat_32_bit_ones_without_vnni(tmp_path: Path) -> None:
    assert _kernel(tmp_path, "int4", "int8")[1] < _kernel(tmp_path, "int8", "int8")[1]
