"""A training step priced: the passes, the formats that multiply, the bytes that move."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from dse.evaluate.phases import phase_work
from dse.graph.patterns.analysis import Analysis
from dse.model import open_model
from dse.training.ledger import ledger
from dse.training.load import load_method
from dse.training.price import left_out, step_cost
from dse.training.step import parts_of_step, sizes_of
from hwmodels.runtimes.platform import load_platform
from hwmodels.work.work import Op, Operand, RegionWork, Work
from tests.training.methods import method

DIMS = {"batch": 8, "sequence": 512}
PASSES = ("fprop", "dgrad", "wgrad")


@pytest.fixture(scope="module")
def work() -> Work:
    return phase_work(Analysis(open_model("zoo:byte-gpt").graph), DIMS, 1)


def test_each_pass_does_the_products_of_the_forward_pass(work: Work) -> None:
    parts = {part.name: part for part in parts_of_step(work, load_method("bf16"))}
    attention = parts["attention"].work.macs
    products = work.macs - attention
    assert products > 0
    assert parts["dgrad"].work.macs == parts["wgrad"].work.macs == products
    assert parts["fprop"].work.macs == work.macs


def test_a_product_of_a_pass_has_the_formats_of_its_pass(work: Work) -> None:
    roles = {"weight": "mxfp8", "activation": "mxfp4", "activation_gradient": "nvfp4"}
    parts = {part.name: part for part in parts_of_step(work, method(roles=roles))}
    found = {
        name: {
            tuple(choice[key].format.name for key in ("input", "weight"))
            for choice in parts[name].choices.values()
            if choice
        }
        for name in PASSES
    }
    assert found == {
        "fprop": {("mxfp4", "mxfp8")},
        "dgrad": {("nvfp4", "mxfp8")},
        "wgrad": {("mxfp4", "nvfp4")},
    }


def test_bf16_names_no_format(work: Work) -> None:
    for part in parts_of_step(work, load_method("bf16")):
        assert not any(part.choices.values())


def test_a_convolution_has_three_passes_too() -> None:
    small = phase_work(Analysis(open_model("zoo:fashion-resnet").graph), {"batch": 4}, 1)
    parts = {part.name: part for part in parts_of_step(small, load_method("fp8_current"))}
    assert parts["dgrad"].work.macs == parts["wgrad"].work.macs == small.macs
    assert (
        step_cost(small, load_method("fp8_current"), load_platform("h100-sxm:free")).energy_j > 0
    )


EXPERTS, TOPK, TOKENS, WIDTH, INNER = 8, 2, 512, 256, 384


def mixture_work() -> Work:
    """Products of experts, then one of activations."""
    rows = TOKENS * TOPK
    x = Operand(name="input", value="x", shape=(TOKENS, WIDTH))
    w = Operand(name="weight", value="up", shape=(EXPERTS, WIDTH, INNER), is_weight=True,
                contraction_axes=(1,))  # fmt: skip
    y = Operand(name="output", value="y", shape=(TOPK, TOKENS, INNER))
    sizes = {"E": EXPERTS, "M": rows, "K": WIDTH, "N": INNER, "topk": TOPK}
    up = Op(name="layers.0.experts.up", kind="grouped_gemm", sizes=sizes, operands=(x, w, y))
    a = Operand(name="input", value="a", shape=(4, TOKENS, 64))
    b = Operand(name="weight", value="b", shape=(4, 64, TOKENS))
    c = Operand(name="output", value="c", shape=(4, TOKENS, TOKENS))
    both = Op(name="layers.0.scores", kind="bmm", operands=(a, b, c),
              sizes={"B": 4, "M": TOKENS, "K": 64, "N": TOKENS})  # fmt: skip
    return Work(
        name="mixture",
        regions=(
            RegionWork(name="up", kind="grouped_gemm", role="experts_up", ops=(up,), reads=(x, w),
                       writes=(y,)),
            RegionWork(name="scores", kind="bmm", role="bmm", ops=(both,), reads=(a, b),
                       writes=(c,)),
        ),
        outputs=("c",),
    )  # fmt: skip


def test_products_of_experts_have_three_passes_in_their_formats() -> None:
    work = mixture_work()
    parts = {part.name: part for part in parts_of_step(work, method(roles={
        "weight": "mxfp8", "activation": "mxfp8", "activation_gradient": "mxfp8",
    }))}  # fmt: skip
    products = TOKENS * TOPK * WIDTH * INNER
    assert parts["dgrad"].work.macs == parts["wgrad"].work.macs == products
    (dgrad,), (wgrad,) = (parts[name].work.regions for name in ("dgrad", "wgrad"))
    assert (dgrad.kind, wgrad.kind) == ("grouped_gemm", "bmm")
    assert wgrad.ops[0].sizes == {"B": EXPERTS, "M": WIDTH, "K": 128, "N": INNER}
    # A gradient of each matrix is written, chosen or not.
    assert wgrad.writes[0].shape == (EXPERTS, WIDTH, INNER)
    for name in PASSES:
        assert {one.format.name for one in next(iter(parts[name].choices.values())).values()} == {
            "mxfp8"
        }
    assert not parts["between products"].work.regions


def test_products_of_activations_have_two_more_each() -> None:
    parts = {part.name: part for part in parts_of_step(mixture_work(), load_method("bf16"))}
    part = parts["products of activations"]
    assert (part.work.macs, part.times) == (4 * TOKENS * 64 * TOKENS, 2)
    found = step_cost(mixture_work(), load_method("bf16"), load_platform("b200-sxm:free"))
    assert found.parts["products of activations"].latency_s > 0


def test_narrow_products_and_narrow_moments_are_what_gets_faster() -> None:
    dims = {"batch": 1, "sequence": 2048, "past": 0}
    work = phase_work(Analysis(open_model("zoo:llama-3-8b").graph), dims, 1)
    platform = load_platform("b200-sxm:free")
    wide, narrow, states = (
        step_cost(work, load_method(name), platform) for name in ("bf16", "nvfp4", "adam8bit")
    )
    for name in PASSES:
        assert narrow.parts[name].latency_s < wide.parts[name].latency_s
        assert states.parts[name].latency_s == wide.parts[name].latency_s
    assert narrow.parts["attention"] == wide.parts["attention"]
    assert states.parts["update"].latency_s < wide.parts["update"].latency_s
    assert narrow.status == "native"
    assert "rounding gradients" in narrow.parts
    assert "rounding gradients" not in wide.parts
    assert wide.low_s < wide.latency_s < wide.high_s


def test_what_a_device_does_not_multiply_is_marked(work: Work) -> None:
    found = step_cost(work, load_method("nvfp4"), load_platform("h100-sxm:free"))
    assert found.status == "upcast"
    assert "multiplies no e2m1" in found.parts["wgrad"].note


def test_the_memory_is_that_of_all_parameters_and_of_what_operators_read(work: Work) -> None:
    sizes = sizes_of(work)
    assert sum(sizes.parameters.values()) == 3_673_344
    found = ledger(load_method("bf16"), sizes)
    assert found.weights == found.gradients == 4 * 3_673_344
    rows = 8 * 512
    # Of a layer: both norms' inputs and results, q, k, v, the mix, gate, up and their product; the
    # head's input and the last norm's.
    layer = rows * (4 * 256 + 256 + 2 * 128 + 256 + 3 * 512)
    assert found.activations == 2 * (6 * layer + 2 * rows * 256)
    assert found.logits == 4 * rows * 256
    assert found.copies == 2 * 3_673_344


def test_a_layer_keeps_what_autograd_keeps(work: Work) -> None:
    """Torch in bf16, but for norms (in fp32 there) and what one kernel of SwiGLU need not keep."""
    rows, width, ffn, shapes = 8 * 512, 256, 512, {"q": (8, 4), "k": (8, 2), "v": (8, 2)}
    weights = {
        name: torch.nn.Parameter(torch.zeros(*shape, dtype=torch.bfloat16))
        for name, shape in {
            "q": (256, width), "k": (128, width), "v": (128, width), "o": (width, width),
            "gate": (ffn, width), "up": (ffn, width), "down": (width, ffn),
        }.items()
    }  # fmt: skip
    own = {one.untyped_storage().data_ptr() for one in weights.values()}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        place = tensor.untyped_storage()
        if tensor.dtype == torch.bfloat16 and place.data_ptr() not in own:
            kept[place.data_ptr()] = place.nbytes() // 2
        return tensor

    normed = [torch.zeros(8, 512, width, dtype=torch.bfloat16) for _ in range(2)]
    linear = torch.nn.functional.linear
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        q, k, v = (
            linear(normed[0], weights[name]).view(8, 512, heads, 64).transpose(1, 2)
            for name, (_, heads) in shapes.items()
        )
        mix = torch.nn.functional.scaled_dot_product_attention(
            q, k, v, is_causal=True, enable_gqa=True
        )
        hidden = linear(mix.transpose(1, 2).reshape(8, 512, width), weights["o"])
        gate, up = (linear(normed[1], weights[name]) for name in ("gate", "up"))
        silu = torch.nn.functional.silu(gate)
        whole = hidden + linear(silu * up, weights["down"])
    assert whole.requires_grad
    layer = sum(one.elements for one in sizes_of(work).saved if one.site.block == 3)
    assert layer == sum(kept.values()) - silu.numel() + 2 * rows * width


def test_a_rectified_map_is_kept_once_and_sums_are_not() -> None:
    """A residual network whose norms are folded: inputs of convolutions are results of ReLUs."""
    small = phase_work(Analysis(open_model("zoo:fashion-resnet").graph), {"batch": 4}, 1)
    inputs = {
        op.operands[0].value: op.operands[0].elements
        for region in small.regions for op in region.ops if op.kind in ("conv2d", "gemm")
    }  # fmt: skip
    (last,) = [op for r in small.regions for op in r.ops if op.kind == "reduce"]
    assert sum(one.elements for one in sizes_of(small).saved) == (
        sum(inputs.values()) + last.operands[0].elements
    )


def test_both_encodings_of_fp8_go_through_one_multiplier(work: Work) -> None:
    platform = load_platform("h100-sxm:free")
    costs = [
        step_cost(
            work,
            method(roles={
                "weight": "e4m3_tensor", "activation": "e4m3_tensor", "activation_gradient": one,
            }),
            platform,
        )
        for one in ("e4m3_tensor", "e5m2_tensor")
    ]  # fmt: skip
    for name in ("dgrad", "wgrad"):
        same, mixed = (one.parts[name] for one in costs)
        assert same.latency_s == mixed.latency_s
        assert same.status == mixed.status == "native"


def test_gradients_of_eight_bits_are_rounded_by_a_kernel_of_their_own(work: Work) -> None:
    """One read of 16 bits and one write of 8 an element, each gradient of a product once."""
    narrow = method(roles={"activation_gradient": "e5m2_tensor"})
    parts = {part.name: part for part in parts_of_step(work, narrow)}
    rounding = parts["rounding gradients"].work
    products = [op for region in parts["dgrad"].work.regions for op in region.ops]
    assert len(rounding.regions) == len(products) == len(parts["wgrad"].work.regions)
    wide = {part.name: part for part in parts_of_step(work, load_method("bf16"))}
    assert not wide["rounding gradients"].work.regions


def test_attention_costs_two_and_a_half_forward_passes_and_other_rows_one_and_a_half(
    work: Work,
) -> None:
    """FlashAttention-2, arXiv 2307.08691, section 4.1: five products for two."""
    parts = {part.name: part for part in parts_of_step(work, load_method("bf16"))}
    assert {name: part.times for name, part in parts.items() if part.times != 1} == {
        "attention": 2.5, "between products": 1.5, "products of activations": 2,
    }  # fmt: skip


def test_scaled_channels_are_read_once_more_and_cast_by_kernels_of_their_own(work: Work) -> None:
    """Two reads of 16 bits and one write of 8 an element of the input, and the weight's cast."""
    plain = {"weight": "e4m3_tensor", "activation": "e4m3_tensor"}
    smooth = {"format": "e4m3_tensor", "smooth": True}
    rule = {"match": {"name": "*down_proj*"}, "roles": {"activation": smooth}}
    scaled = {p.name: p for p in parts_of_step(work, method(roles=plain, rules=[rule]))}
    without = {p.name: p for p in parts_of_step(work, method(roles=plain))}
    assert not without.pop("scaling channels").work.regions
    part = scaled.pop("scaling channels")
    assert {name: one.work for name, one in scaled.items()} == {
        name: one.work for name, one in without.items()
    }
    assert [op.kind for region in part.work.regions for op in region.ops] == 6 * [
        "reduce", "elementwise", "elementwise",
    ]  # fmt: skip
    rows, inner, outputs = 8 * 512, 512, 256
    assert sum(op.sizes["rows"] * op.sizes["cols"] for r in part.work.regions for op in r.ops) == (
        6 * (2 * rows * inner + inner * outputs)
    )
    moved = sum(
        one.elements * one.bits // 8 for r in part.work.regions for one in (*r.reads, *r.writes)
        if one.quantizer is None
    )  # fmt: skip
    assert moved == 6 * (2 * 2 * rows * inner + 2 * inner * outputs + 3 * 4 * inner)


def test_channels_that_only_the_weight_gradient_reads_scaled_take_their_maxima_alone(
    work: Work,
) -> None:
    roles = {"activation": "e4m3_tensor", "activation@wgrad": {"format": "e4m3_tensor",
                                                               "smooth": True}}  # fmt: skip
    parts = {part.name: part for part in parts_of_step(work, method(roles=roles))}
    kinds = {op.kind for region in parts["scaling channels"].work.regions for op in region.ops}
    assert kinds == {"reduce"}


def test_scaling_channels_costs_time_and_no_more_than_its_bytes_take(work: Work) -> None:
    platform = load_platform("h100-sxm:free")
    smooth = load_method("smooth_swiglu")
    found = step_cost(work, smooth, platform)
    plain = step_cost(work, replace(smooth, rules=()), platform)
    extra = found.parts["scaling channels"]
    assert found.latency_s == pytest.approx(plain.latency_s + extra.latency_s)
    assert 0 < extra.latency_s < 0.2 * plain.latency_s


def _moved(work: Work, **given: object) -> tuple[list[str], list[str]]:
    """States of one parameter that the update reads, and those that it writes."""
    parts = {part.name: part for part in parts_of_step(work, method(**given))}
    (region,) = parts["update"].work.regions
    name = "model.layers.0.mlp.down_proj.weight."
    return tuple(
        sorted(one.value.removeprefix(name) for one in side if one.value.startswith(name))
        for side in (region.reads, region.writes)
    )  # type: ignore[return-value]


def test_the_update_moves_what_its_method_keeps(work: Work) -> None:
    pure = {"master_weight": "bf16", "optimizer_m": "bf16", "optimizer_v": "bf16"}
    states = ["master_weight", "optimizer_m", "optimizer_v"]
    new = [f"{one}.new" for one in states]
    # One copy in bf16 is read by both passes; scales of narrower ones run along either sum.
    assert _moved(work) == ([*states, "weight_gradient"], [*new, "weight@fprop.new"])
    copies = ["weight@dgrad.new", "weight@fprop.new"]
    assert _moved(work, roles={"weight": "mxfp8"})[1] == [*new, *copies]
    # Weights that are multiplied as they are kept have no copies.
    only = {"mode": "nearest"}
    assert _moved(work, roles=pure, update=only) == ([*states, "weight_gradient"], new)
    kahan = _moved(work, roles=pure, update={"mode": "kahan"})
    assert kahan == (["compensation", *states, "weight_gradient"], ["compensation.new", *new])
    first = {"master_weight": "bf16", "optimizer_m": "bf16"}
    sgd = _moved(work, roles=first, update={"mode": "nearest", "optimizer": "sgd"})
    assert sgd[1] == ["master_weight.new", "optimizer_m.new"]


def test_small_parameters_move_moments_in_full(work: Work) -> None:
    given = {"roles": {"optimizer_m": "bf16", "optimizer_v": "bf16"}}
    parts = parts_of_step(work, method(**given, update={"states_from": 1000}))
    (region,) = next(part for part in parts if part.name == "update").work.regions
    bits = {
        one.value.rpartition(".")[0]: one.quantizer.format.element.bits
        for one in region.reads
        if one.quantizer and one.value.endswith("optimizer_m")
    }
    assert bits["model.norm.weight"] == 32
    assert bits["model.layers.0.mlp.down_proj.weight"] == 16


def test_what_a_price_does_not_hold_is_said() -> None:
    assert not list(left_out(load_method("fp16_mixed")))
    assert "16 bits" in next(left_out(load_method("fp32")))
    (line,) = left_out(method(roles={"accumulator": "fp16"}))
    assert "sums" in line


def test_a_teacher_is_one_more_forward_pass(work: Work) -> None:
    tuning = {"rank": 2, "density": 0.5, "prune": {"layers": ["*up_proj"]}}
    roles = {"weight": "mxfp8", "activation": "mxfp4"}
    alone = parts_of_step(work, method(roles=roles, tuning=tuning))
    taught = parts_of_step(work, method(roles=roles, tuning={**tuning, "distill": {}}))
    (teacher,) = [part for part in taught if part.name not in {one.name for one in alone}]
    assert teacher.work.macs == alone[0].work.macs
    assert teacher.choices == alone[0].choices
