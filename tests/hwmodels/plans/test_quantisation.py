"""Kernels that quantise activations, as the files of runtimes list them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hwmodels.adapt.prediction import predict_ops
from hwmodels.devices.load import load_device
from hwmodels.errors import RuntimeModeError
from hwmodels.formats import catalog
from hwmodels.formats.quantizer import Quantizer
from hwmodels.operators.lower import operator_kernels
from hwmodels.operators.optable import read_optable
from hwmodels.plans.conversion import fake_quantize_kernels
from hwmodels.plans.quantisation import quantising, rescaling
from hwmodels.plans.region import plan_region
from hwmodels.runtimes.load import load_runtime, runtime_names
from hwmodels.runtimes.quantisation import DEFAULT
from hwmodels.tables.network import CostTable, PhaseWork
from hwmodels.tables.price import price
from hwmodels.work.kernel import Kernel
from hwmodels.work.loops import RowLoops
from hwmodels.work.work import Op, Operand, OperandName, RegionWork, Work

MEASURED = Path(__file__).parents[2] / "data" / "h100_ops.csv.gz"
PAIR = ("e4m3", "e4m3")
EAGER = "torch-eager"


def activation(rows: int, cols: int, name: str) -> Operand:
    """An activation with a quantizer."""
    return Operand(
        name="input",
        value="x",
        shape=(rows, cols),
        contraction_axes=(1,),
        quantizer=catalog.quantizer(name),
    )


def launched(name: str, runtime: str = EAGER, *, rows: int = 64, cols: int = 128) -> list[Kernel]:
    """The kernels that quantise such an activation."""
    operand = activation(rows, cols, name)
    return list(
        quantising(operand, load_runtime(runtime).quantisation_of(catalog.quantizer(name)))
    )


@pytest.mark.parametrize(
    ("name", "details", "per_element", "more"),
    [
        # |x| 2+2, maximum 2, scale twice, x / scale 2+2, clamp 2+2, cast 2+1; one scale written.
        ("e4m3_tensor",
         ["abs", "whole_reduction", "scale", "scale", "div", "clip", "cast"], 17, 4),
        ("e4m3_tensor:static", ["cast"], 3, 4),
        ("e4m3", ["cast"], 3, 0),
        # x * scale 2+2, clamp 2+2, cast 2+1.
        ("int8:static", ["mul", "clip", "cast"], 11, 0),
        # |x| 4, maximum 2, division into float32 2+4, clamp 8, cast 5; a scale a row.
        ("e4m3_token",
         ["abs", "compute_scale", *["scale"] * 3, "strided", "clip", "cast"], 25, 4 * 64),
        ("int8_token",
         ["abs", "compute_scale", *["scale"] * 3, "strided", "round", "clip", "cast"], 33, 4 * 64),
    ],
)  # fmt: skip
def test_eager_mode_runs_the_operations_one_by_one(
    name: str, details: list[str], per_element: int, more: int
) -> None:
    kernels = launched(name)
    assert [kernel.detail for kernel in kernels] == details
    assert sum(kernel.bytes for kernel in kernels) == per_element * 64 * 128 + more


def test_only_the_first_kernel_finds_a_cold_activation_cold() -> None:
    operand = activation(64, 128, "e4m3_tensor")
    rule = load_runtime(EAGER).quantisation_of(catalog.quantizer("e4m3_tensor"))
    kernels = quantising(operand, rule, cold=True)
    assert [kernel.inputs_are_cold for kernel in kernels] == [True] + [False] * 6


def test_a_block_walks_along_a_small_tensor_and_many_share_a_large_one() -> None:
    """`Reduce.cuh`: 512 threads take 255 values each at most; more are split, 16 values each."""
    alone = launched("e4m3_tensor", rows=1, cols=131_071)[1]
    assert (alone.detail, alone.loops) == ("whole_reduction", RowLoops(rows=1, cols=131_071))
    _, counter, split, *_ = launched("e4m3_tensor", rows=32, cols=4096)
    assert (counter.detail, counter.bytes) == ("memset", 4)
    assert (split.detail, split.loops) == ("split_reduction", RowLoops(rows=16, cols=8192))
    assert split.bytes == 2 * 131_072 + 4


def test_int32_products_are_rescaled() -> None:
    """Static: to 16 bit 4+2, times the scale 2+2; scales of rows: 8 + 8 + 6."""
    product = replace(activation(8, 16, "int8"), name="output", quantizer=None)
    runtime = load_runtime(EAGER)
    sums = {
        name: sum(k.bytes for k in rescaling(product, runtime.quantisation_of(quantizer)))
        for name in ("int8:static", "int8_token", "e4m3_tensor")
        for quantizer in [catalog.quantizer(name)]
    }
    assert sums == {"int8:static": 10 * 128, "int8_token": 22 * 128, "e4m3_tensor": 0}


def _product(parts: tuple[int, ...], bits: int = 16) -> RegionWork:
    """A product of (32, 256) whose outputs are read in parts, in static int8."""
    x = activation(32, 256, "int8:static")
    weight = Operand(
        name="weight", value="w", shape=(sum(parts), 256), contraction_axes=(1,), is_weight=True,
        quantizer=catalog.quantizer("int8"),
    )  # fmt: skip
    outputs = tuple(
        Operand(name="output", value=f"y{index}", shape=(32, part), bits=bits)
        for index, part in enumerate(parts)
    )
    sizes = {"M": 32, "K": 256, "N": sum(parts)}
    op = Op(name="g", kind="gemm", sizes=sizes, operands=(x, weight, *outputs))
    return RegionWork(
        name="g", kind="gemm", role="qkv", ops=(op,), reads=(x, weight), writes=outputs
    )


def test_a_product_is_rescaled_once_whoever_reads_its_parts() -> None:
    """The int32 product is written in full, brought to 16 bit in full, and scaled in full."""
    plan = plan_region(_product((512, 128)), load_device("h100-sxm"), load_runtime(EAGER))
    gemm, cast, mul = plan.kernels
    count = 32 * 640
    assert gemm.write_bytes == 4 * count
    assert (cast.detail, cast.input_bytes, cast.write_bytes) == ("cast", 4 * count, 2 * count)
    assert (mul.detail, mul.input_bytes, mul.write_bytes) == ("mul", 2 * count, 2 * count)


def test_a_compiler_rescales_in_what_reads_the_product() -> None:
    plan = plan_region(_product((640,)), load_device("h100-sxm"), load_runtime("torch-compile"))
    (gemm,) = plan.kernels
    assert gemm.write_bytes == 4 * 32 * 640


def test_a_graph_that_asks_for_int32_gets_it() -> None:
    plan = plan_region(_product((640,), bits=32), load_device("h100-sxm"), load_runtime(EAGER))
    assert [kernel.kind for kernel in plan.kernels] == ["gemm"]


def test_a_compiler_finds_the_maximum_of_parts_in_the_producer() -> None:
    """The parts run in a norm and not in attention; the scale and the cast are kernels."""
    operand = activation(64, 128, "e4m3_tensor")
    rule = load_runtime("torch-compile").quantisation_of(catalog.quantizer("e4m3_tensor"))
    fused, alone = (quantising(operand, rule, fused=fused) for fused in (True, False))
    assert [kernel.kind for kernel in fused] == ["pointwise", "quantize"]
    assert [kernel.bytes for kernel in fused] == [0, 3 * 64 * 128 + 4]
    assert [kernel.kind for kernel in alone] == ["reduce", "pointwise", "quantize"]
    assert alone[0].input_bytes == 2 * 64 * 128


@pytest.mark.parametrize("runtime", ["vllm", "sglang", "tensorrt-llm", "llama-cpp"])
@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("e4m3_tensor", ["reduce", "quantize"]),
        ("e4m3_tensor:static", ["quantize"]),
        ("e4m3_token", ["quantize"]),
        ("nvfp4", ["quantize"]),
        ("int8", ["reduce", "quantize"]),
    ],
)
def test_a_serving_runtime_has_a_kernel_for_it(runtime: str, name: str, kinds: list[str]) -> None:
    assert [kernel.kind for kernel in launched(name, runtime)] == kinds


def test_a_file_that_says_nothing_gets_the_fewest_kernels() -> None:
    runtime = replace(load_runtime("vllm"), quantisation=())
    for name in ("e4m3_tensor", "e4m3_token", "mxfp8", "int4_g128"):
        assert runtime.quantisation_of(catalog.quantizer(name)) in DEFAULT


@pytest.mark.parametrize("runtime", runtime_names())
def test_every_list_is_reached_and_ends_in_the_format(runtime: str) -> None:
    """The last kernel writes the format; nothing of a list stands behind one that takes all."""
    lists = load_runtime(runtime).quantisation
    assert all(entry.kernels[-1].kind == "quantize" for entry in lists)
    all_taking = [
        not (entry.elements or entry.granularities or entry.timings) and entry.scaled is None
        for entry in lists
    ]
    assert not any(all_taking[:-1])


def test_onnx_runtime_rounds_with_a_pair_of_nodes() -> None:
    """QuantizeLinear 2+1, DequantizeLinear 1+2; others round in place, 2+2."""
    operand = activation(64, 128, "int8:static")
    pair = fake_quantize_kernels(operand, load_runtime("onnxruntime"))
    assert [kernel.detail for kernel in pair] == ["QuantizeLinear", "DequantizeLinear"]
    assert [kernel.bytes for kernel in pair] == [3 * 64 * 128 + 4, 3 * 64 * 128 + 4]
    (alone,) = fake_quantize_kernels(operand, load_runtime("vllm"))
    assert alone.bytes == 4 * 64 * 128


def test_modules_that_quantise_their_own_input_pay_for_it_each(pair: Work) -> None:
    """Two products of one activation: eager mode quantises it twice, a serving runtime once."""
    device = load_device("h100-sxm")
    formats: dict[OperandName, Quantizer] = {
        "weight": catalog.quantizer("e4m3_channel"), "input": catalog.quantizer("e4m3_token"),
    }  # fmt: skip
    for name, apart in ((EAGER, True), ("sglang", False)):
        runtime = load_runtime(name)
        table = CostTable.build(
            (PhaseWork(name="call", share=1.0, work=pair),),
            {region.name: (formats,) for region in pair.regions},
            device,
            runtime,
        )
        alone = [price(region.quantized(formats), device, runtime) for region in pair.regions]
        together = sum(cost.latency_s for cost in alone)
        if apart:
            assert table.total({}).latency_s == pytest.approx(together)
        else:
            assert table.total({}).latency_s < 0.95 * together
        assert table.has_conversions is not apart


@pytest.mark.parametrize(("runtime", "more"), [("torch-eager", 8), ("torch-compile", 1)])
def test_operators_are_quantised_as_their_runtime_does_it(runtime: str, more: int) -> None:
    sizes = {"M": 16, "K": 128, "N": 64}
    kernels = operator_kernels("gemm", sizes, "fp8_dynamic", load_runtime(runtime), PAIR)
    assert len(kernels) == more + 1
    assert [one.kind for one in kernels].count("gemm") == 1


def test_measured_quantisation_is_met_at_every_size() -> None:
    """13 sizes on an H100, 1 x 768 to 16384 x 8192, in which the block that walks alone shows."""
    table = read_optable(MEASURED, timed=True)
    rows = table.take(np.flatnonzero([op == "quant_fp8" for op in table.ops]))
    frame = predict_ops(rows, load_device("h100-sxm"), "torch-eager")
    ratio = frame["predicted_us"] / frame["median_us"]
    assert len(ratio) == 13
    assert ratio.between(0.8, 1.25).all()


def test_a_slow_weight_only_kernel_is_priced_as_its_runtime_says() -> None:
    """torch's int4 kernel has one small tile, 16 x 8; vLLM's is a library's."""
    table = read_optable(MEASURED, timed=True)
    large = [
        op == "gemm" and dtype == "w4a16" and sizes["M"] > 1000
        for op, dtype, sizes in zip(table.ops, table.dtypes, table.shapes, strict=True)
    ]
    rows = table.take(np.flatnonzero(large))
    device = load_device("h100-sxm")
    eager, served = (
        predict_ops(rows, device, name)["predicted_us"] for name in ("torch-eager", "vllm")
    )
    assert (eager > 5 * served).all()


def test_a_reduction_in_blocks_needs_both_sizes(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "{name: mine, title: m, version: '1', placement: consumer, source: me, quantisation: "
        "[{name: a, source: me, kernels: [{op: m, kind: reduce, read: 16, alone: 4}]}]}",
        encoding="utf-8",
    )
    with pytest.raises(RuntimeModeError, match=r"(?s)mine\.yaml.*quantisation.*given together"):
        load_runtime(path)
