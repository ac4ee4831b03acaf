from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from hwmodels.devices.load import load_device
from hwmodels.formats import catalog
from hwmodels.formats.quantizer import Quantizer
from hwmodels.plans.region import Context, plan_region, producer_tags
from hwmodels.runtimes.load import load_runtime
from hwmodels.tables.price import price
from hwmodels.work.cost import CostEstimate
from hwmodels.work.loops import ProductLoops
from hwmodels.work.work import Op, Operand, OperandName, RegionWork, Work


def _region(work: Work, role: str) -> RegionWork:
    return next(region for region in work.regions if region.role == role)


def _scheme(name: str) -> dict[OperandName, Quantizer]:
    entry = catalog.SCHEMES[name]
    pairs: tuple[tuple[OperandName, Quantizer | None], ...] = (
        ("weight", entry.weight),
        ("input", entry.input),
    )
    return {operand: quantizer for operand, quantizer in pairs if quantizer}


def _price(work: Work, role: str, scheme: str, device: str, runtime: str) -> CostEstimate:
    region = _region(work, role).quantized(_scheme(scheme))
    return price(region, load_device(device), load_runtime(runtime))


@pytest.fixture(name="big")
def big_fixture(llama: Callable[..., Work]) -> Work:
    return llama(tokens=4096, width=4096)


def test_nvfp4_on_an_h100_runs_as_another_kernel_and_says_so(big: Work) -> None:
    cost = _price(big, "down", "w4a4_nvfp4", "h100-sxm", "vllm")
    assert cost.status == "substituted"
    assert "nvfp4_w4a4 of vllm needs sm_100 and later; h100-sxm is sm_90" in cost.note
    assert "b200-sxm" in cost.note
    assert "nvfp4_marlin" in cost.note


def test_nvfp4_on_a_b200_is_native_and_faster_than_fp8(big: Work) -> None:
    fp4 = _price(big, "down", "w4a4_nvfp4", "b200-sxm", "vllm")
    fp8 = _price(big, "down", "w8a8_fp8", "b200-sxm", "vllm")
    assert fp4.status == fp8.status == "native"
    assert fp4.note == ""
    assert fp4.latency_s < fp8.latency_s


def test_int8_on_a_b300_is_slower_than_bf16(big: Work) -> None:
    """B300 computes int8 at 153.5 TOP/s, bf16 at 2250 TFLOP/s."""
    int8 = _price(big, "down", "w8a8_int8", "b300-sxm", "torch-eager")
    plain = price(_region(big, "down"), load_device("b300-sxm"), load_runtime("torch-eager"))
    assert int8.status == "native"
    assert int8.latency_s > 3 * plain.latency_s


def test_what_no_kernel_executes_gains_nothing(big: Work) -> None:
    plain = price(_region(big, "down"), load_device("h100-sxm"), load_runtime("vllm"))
    mxfp6 = _price(big, "down", "w6a6_mxfp6", "h100-sxm", "vllm")
    assert mxfp6.status == "emulated"
    assert mxfp6.latency_s > plain.latency_s
    assert mxfp6.weight_bytes == plain.weight_bytes


def test_an_architect_may_have_every_kernel(big: Work) -> None:
    cost = _price(big, "down", "w6a6_mxfp6", "h100-sxm", "free")
    assert cost.status == "upcast"
    assert "computes in e4m3" in cost.note


def test_dynamic_quantisation_is_a_kernel_of_its_own(big: Work) -> None:
    region = _region(big, "o").quantized(_scheme("w8a8_fp8_dynamic"))
    plan = plan_region(region, load_device("h100-sxm"), load_runtime("vllm"))
    assert [c.target for c in plan.conversions] == ["e4m3_token"]
    (kernel,) = plan.conversions[0].kernels
    elements = 4096 * 4096
    assert kernel.input_bytes == 2 * elements
    assert kernel.write_bytes == elements + 4096 * 4


def test_a_dynamic_scale_of_the_whole_tensor_needs_one_more_pass(big: Work) -> None:
    quantizers = {
        "weight": catalog.quantizer("e4m3_tensor"),
        "input": catalog.quantizer("e4m3_tensor"),
    }
    region = _region(big, "o").quantized(quantizers)  # type: ignore[arg-type]
    plan = plan_region(region, load_device("h100-sxm"), load_runtime("vllm"))
    assert [k.detail for k in plan.conversions[0].kernels] == ["compute_scale", "cast"]


def test_a_norm_takes_in_the_quantisation_where_the_runtime_fuses_it(big: Work) -> None:
    """vLLM fuses RMSNorm with FP8 quantisation; SGLang's table fuses nothing."""
    tags = {o.value: producer_tags(r) for r in big.regions for o in r.writes}
    region = _region(big, "qkv").quantized(_scheme("w8a8_fp8_dynamic"))
    device = load_device("h100-sxm")
    launches = {
        name: len(
            plan_region(region, device, load_runtime(name), Context(producers=tags))
            .conversions[0]
            .kernels
        )
        for name in ("vllm", "sglang", "torch-eager")
    }
    assert launches == {"vllm": 0, "sglang": 1, "torch-eager": 8}


def test_qkv_is_one_gemm_and_one_quantisation_under_vllm(big: Work) -> None:
    region = _region(big, "qkv").quantized(_scheme("w8a8_fp8"))
    plan = plan_region(region, load_device("h100-sxm"), load_runtime("vllm"))
    (kernel,) = plan.kernels
    assert isinstance(kernel.loops, ProductLoops)
    assert (kernel.kind, kernel.loops.product.n) == ("gemm", 4096 + 2 * 1024)
    assert len(plan.conversions) == 1
    eager = plan_region(region, load_device("h100-sxm"), load_runtime("torch-eager"))
    assert len(eager.kernels) == 3
    # Each module casts its own input; the copies follow each other in one place.
    assert [len(one.kernels) for one in eager.conversions] == [1, 1, 1]
    assert [one.copy_bytes > 0 for one in eager.conversions] == [True, False, False]


def test_eager_mode_launches_a_rotary_embedding_in_pieces() -> None:
    """Ten kernels that move q and k five times; one kernel where it is fused."""
    q = Operand(name="input", value="q", shape=(1, 32, 64, 128))
    op = Op(
        name="rope",
        kind="elementwise",
        detail="rope",
        sizes={},
        operands=(q, replace(q, name="output", value="turned")),
    )
    region = RegionWork(
        name="rope", kind="elementwise", role="rotary", ops=(op,), reads=(q,), writes=()
    )
    eager, fused = (
        plan_region(region, load_device("h100-sxm"), load_runtime(name)).kernels
        for name in ("torch-eager", "vllm")
    )
    assert len(eager) == 10
    assert len(fused) == 1
    assert sum(kernel.bytes for kernel in eager) == 5 * fused[0].bytes


def test_a_fused_epilogue_writes_nothing_in_between(big: Work) -> None:
    """`free` adds the residual in the GEMM: reads x, w, residual; writes the sum."""
    plan = plan_region(_region(big, "o"), load_device("h100-sxm"), load_runtime("free"))
    (kernel,) = plan.kernels
    matrix = 2 * 4096 * 4096
    assert kernel.other_bytes == matrix
    assert kernel.write_bytes == matrix
    apart = plan_region(_region(big, "o"), load_device("h100-sxm"), load_runtime("torch-eager"))
    assert [k.kind for k in apart.kernels] == ["gemm", "pointwise"]


@pytest.mark.parametrize("role", ["qkv", "o", "gate_up", "down"])
@pytest.mark.parametrize("device", ["h100-sxm", "b200-sxm", "l40s"])
def test_traffic_never_falls_when_bits_rise(
    llama: Callable[..., Work], role: str, device: str
) -> None:
    """Of weights; a narrower activation may cost the traffic of its conversion."""
    for tokens in (1, 64, 2048):
        work = llama(tokens=tokens, width=2048)
        runtime = load_runtime("free")
        traffic = [
            price(
                _region(work, role).quantized({"weight": q}),
                load_device(device),
                runtime,
            ).traffic_bytes
            for q in map(catalog.quantizer, ("int4_channel", "mxfp6", "int8_channel", "bf16"))
        ]
        assert traffic == sorted(traffic)


@pytest.mark.parametrize("device", ["h100-sxm", "mi300x", "t4", "ethos-u55"])
@pytest.mark.parametrize("scheme", sorted(catalog.SCHEMES))
def test_nothing_is_faster_than_light(
    llama: Callable[..., Work], device: str, scheme: str
) -> None:
    """Operations over the fastest rate, and weights over the bandwidth, bound every latency."""
    hardware = load_device(device)
    fastest = max(rate.ops_per_s.value for unit in hardware.units for rate in unit.rates)
    bandwidth = hardware.main_memory.bandwidth_bytes_per_s.value
    for tokens in (1, 512):
        region = _region(llama(tokens=tokens), "down").quantized(_scheme(scheme))
        cost = price(region, hardware, load_runtime("free"))
        assert cost.low_s >= 2 * region.macs / fastest
        coded = 0.75 if hardware.npu is not None else 1.0  # the entropy of normal weights
        assert cost.low_s >= coded * cost.weight_bytes / bandwidth * (1 - 1e-9)
        assert cost.low_s <= cost.latency_s <= cost.high_s


def test_the_npu_runs_int8_and_leaves_floats_to_its_host(cnn: Work) -> None:
    region = _region(cnn, "conv")
    device, runtime = load_device("ethos-u55"), load_runtime("vela")
    int8 = {"weight": catalog.quantizer("int8_channel"), "input": catalog.quantizer("int8:static")}
    native = price(region.quantized(int8), device, runtime)  # type: ignore[arg-type]
    floats = price(region, device, runtime)
    assert native.status == "native"
    assert floats.status == "emulated"
    assert floats.latency_s > 20 * native.latency_s


def test_scales_that_change_with_every_tensor_are_beyond_the_npu(cnn: Work) -> None:
    """Vela compiles scales into its commands: they are fixed before anything runs."""
    device, runtime = load_device("ethos-u55"), load_runtime("vela")
    int8 = {
        "weight": catalog.quantizer("int8_channel"),
        "input": catalog.quantizer("int8:dynamic"),
    }
    cost = price(_region(cnn, "conv").quantized(int8), device, runtime)  # type: ignore[arg-type]
    assert cost.status == "emulated"


def test_fewer_weight_bits_save_flash_traffic_on_the_npu(cnn: Work) -> None:
    device, runtime = load_device("ethos-u55"), load_runtime("vela")
    costs = [
        price(
            _region(cnn, "conv").quantized(
                {"weight": catalog.quantizer(w), "input": catalog.quantizer("int8:static")}
            ),
            device,
            runtime,
        )
        for w in ("int4_channel", "int8_channel")
    ]
    assert costs[0].status == "weight_only"
    assert costs[0].traffic_bytes < costs[1].traffic_bytes
    assert costs[0].energy_j < costs[1].energy_j
