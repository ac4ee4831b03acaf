"""A training step priced: the passes, the formats that multiply, the bytes that move."""

from __future__ import annotations

import pytest

from dse.evaluate.phases import phase_work
from dse.graph.patterns.analysis import Analysis
from dse.model import open_model
from dse.training.ledger import ledger
from dse.training.load import load_method
from dse.training.price import step_cost
from dse.training.step import parts_of_step, sizes_of
from hwmodels.runtimes.platform import load_platform
from hwmodels.work.work import Work
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
    # Of a layer: both norms' inputs and results, what rotates and is rotated, v, the mix, the
    # product of gate and up; the head's input and the last norm's.
    layer = rows * (4 * 256 + 2 * (256 + 128) + 128 + 256 + 512)
    assert found.activations == 2 * (6 * layer + 2 * rows * 256)
    assert found.logits == 4 * rows * 256


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
        "attention": 2.5, "between products": 1.5,
    }  # fmt: skip
