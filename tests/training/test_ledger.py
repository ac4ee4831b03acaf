"""Memory by role, against figures of the sources of methods."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dse.training.ledger import bit_products, decoder_sizes, element_bytes, ledger, state_bytes
from dse.training.load import load_method
from dse.training.method import Operand
from tests.training.methods import method

LLAMA_7B = {"layers": 32, "width": 4096, "ffn": 11008, "vocabulary": 32000}
LLAMA_13B = {"layers": 40, "width": 5120, "ffn": 13824, "vocabulary": 32000}


@pytest.mark.parametrize(
    ("shape", "gpus", "batch"), [(LLAMA_7B, 4, 2), (LLAMA_13B, 8, 2), (LLAMA_7B, 2, 1)]
)
def test_coat_takes_as_much_less_memory_as_its_paper_says(
    shape: dict[str, int], gpus: int, batch: int
) -> None:
    """COAT, arXiv 2410.19313, abstract: 1.54 times less than bf16, end to end."""
    sizes = decoder_sizes(**shape, batch=batch, sequence=2048, gpus=gpus)
    wide, narrow = (ledger(load_method(name), sizes, gpus=gpus) for name in ("bf16", "coat"))
    assert wide.total / narrow.total == pytest.approx(1.54, abs=0.08)


def test_the_parts_of_the_ledger_are_those_of_seven_billion_parameters() -> None:
    sizes = decoder_sizes(**LLAMA_7B, batch=2, sequence=2048, gpus=4)
    found = ledger(load_method("bf16"), sizes, gpus=4)
    count = sum(sizes.parameters.values())
    assert count == pytest.approx(6.74e9, rel=0.005)
    assert found.weights == found.gradients == count
    assert found.moments == 2 * count
    unit = 2 * 2048 * 4096 * 2
    assert found.activations == pytest.approx(unit * 32 * (8 + 4 * 11008 / 4096))
    assert found.total / 1e9 == pytest.approx(48.7, rel=0.02)


def test_a_gpu_alone_holds_eighteen_bytes_a_parameter_in_bf16() -> None:
    """Megatron-LM, README of its distributed optimizer: 18 bytes for bf16 parameters and fp32
    gradients, 6 + 12/d where d GPUs share the optimizer's."""
    sizes = decoder_sizes(**LLAMA_7B, batch=1, sequence=2048)
    count = sum(sizes.parameters.values())
    found = ledger(load_method("bf16"), sizes)
    assert found.weights + found.copies + found.gradients + found.moments == 18 * count
    assert ledger(load_method("fp32"), sizes).copies == 0
    assert ledger(load_method("bf16_nearest"), sizes).copies == 0
    shared = decoder_sizes(**LLAMA_7B, batch=1, sequence=2048, gpus=4)
    assert ledger(load_method("bf16"), shared, gpus=4).copies == 0


def test_quantized_weights_are_kept_along_both_sums() -> None:
    """Transformer Engine's row-wise and column-wise data: 8 bits and a scale each 32."""
    sizes = replace(
        decoder_sizes(**LLAMA_7B, batch=1, sequence=2048),
        tables=frozenset({"embed_tokens.weight"}),
    )
    count, table = sum(sizes.parameters.values()), sizes.parameters["embed_tokens.weight"]
    found = ledger(method(roles={"weight": "mxfp8"}), sizes)
    assert found.copies == pytest.approx((count - table) * 2 * (1 + 1 / 32) + 2 * table)


def test_what_functions_read_is_not_rounded_with_the_inputs_of_products() -> None:
    sizes = decoder_sizes(**LLAMA_7B, batch=1, sequence=2048)
    read_again = {"format": "nvfp4", "of": "forward"}
    roles = {"activation": "nvfp4", "activation@wgrad": read_again}
    found = ledger(method(roles=roles), sizes).activations / (2048 * 32)
    assert found == pytest.approx(
        (2 * 4096 + 11008) * 4.5 / 8 + 2 * (2 * 4096 + 3 * 11008) + 2 * 4 * 4096
    )


def test_fp8_lm_takes_six_bytes_a_parameter_for_sixteen() -> None:
    """FP8-LM, arXiv 2310.18313, section 2.2: 2 + 1 + 1 + 2 in place of 4 + 4 + 4 + 4."""
    assert state_bytes(load_method("bf16")) == 16
    assert state_bytes(load_method("fp8_lm")) == pytest.approx(6)


def test_eight_bit_moments_take_two_bytes_and_their_scales() -> None:
    """8-bit Optimizers, arXiv 2110.02861: blocks of 2048 with a scale in fp32."""
    found = method(roles={"optimizer_m": "dynamic8_g2048", "optimizer_v": "udynamic8_g2048"})
    assert state_bytes(found) - 8 == pytest.approx(2 + 8 / 2048)


def test_expanded_moments_keep_power_middle_and_scale_of_a_group() -> None:
    coat = load_method("coat")
    moments = state_bytes(coat) - 8
    assert moments == pytest.approx(2 + 24 / 128)


def test_a_compensation_takes_as_much_as_the_weight() -> None:
    nearest, kahan = (state_bytes(load_method(f"bf16_{name}")) for name in ("nearest", "kahan"))
    assert kahan - nearest == 2


def test_a_watch_takes_four_numbers_a_weight() -> None:
    plain = method(roles={"weight": "nvfp4"})
    watched = method(roles={"weight": "nvfp4"}, oscillation={})
    assert state_bytes(watched) - state_bytes(plain) == 16


def test_small_parameters_keep_wide_moments() -> None:
    found = load_method("adam8bit")
    sizes = decoder_sizes(layers=1, width=8, ffn=8, vocabulary=8, batch=1, sequence=2)
    assert ledger(found, sizes).moments == 8 * sum(sizes.parameters.values())


def test_what_is_read_again_as_it_was_rounded_is_kept_so() -> None:
    sizes = decoder_sizes(**LLAMA_7B, batch=1, sequence=2048)
    plain, again = (ledger(load_method(name), sizes) for name in ("nvfp4", "quartet_ii"))
    assert again.activations < plain.activations
    assert element_bytes(Operand(format="nvfp4")) == pytest.approx(4.5 / 8)


@pytest.mark.parametrize(
    ("shares", "expected"),
    [((25, 25, 25, 25), 0.564), ((40, 20, 20, 20), 0.498), ((50, 20, 20, 10), 0.421)],
)
def test_progressive_bits_cost_what_fractrain_says(
    shares: tuple[int, ...], expected: float
) -> None:
    """FracTrain, arXiv 2012.13113: 3-4-6-8 bits forward, 6-6-8-8 backward, over 8 and 8."""

    def cost(forward: int, backward: int) -> float:
        narrow, wide = f"int{forward}", f"int{backward}"
        roles = {"weight": narrow, "activation": narrow, "activation_gradient": wide}
        return bit_products(method(roles=roles))

    stages = [cost(3, 6), cost(4, 6), cost(6, 8), cost(8, 8)]
    mixed = sum(share * stage for share, stage in zip(shares, stages, strict=True)) / 100
    assert mixed / cost(8, 8) == pytest.approx(expected, abs=6e-4)


@pytest.mark.parametrize("tokens", [2048, 4096])
def test_adapters_on_a_pruned_network_take_a_third_of_the_memory(tokens: int) -> None:
    """APT, arXiv 2401.12200, section 5.2: 60 to 75 % less than fine-tuning all in 16 bits."""
    roles = {"master_weight": "fp16", "weight_gradient": "fp16", "weight": "fp16",
             "optimizer_m": "fp16", "optimizer_v": "fp16"}  # fmt: skip
    sizes = decoder_sizes(**LLAMA_13B, batch=1, sequence=tokens)
    whole = ledger(method(roles=roles), sizes)
    tuned = ledger(method(roles=roles, tuning={"rank": 8, "density": 0.7}), sizes)
    assert whole.weights + whole.gradients + whole.moments == pytest.approx(8 * 13.0e9, rel=0.01)
    assert tuned.weights == pytest.approx(2 * 0.7 * 13.0e9, rel=0.02)
    assert 0.60 < 1 - tuned.total / whole.total < 0.75


def test_a_layer_that_is_gathered_takes_two_bytes_a_weight_on_several_gpus() -> None:
    shape = {"layers": 2, "width": 64, "ffn": 128, "vocabulary": 100}
    found = [
        ledger(load_method("bf16"), decoder_sizes(**shape, batch=1, sequence=2, gpus=g), gpus=g)
        for g in (1, 4)
    ]
    assert [one.gathered for one in found] == [0, 2 * (4 * 64 * 64 + 3 * 64 * 128)]
