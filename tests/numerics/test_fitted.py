"""Fitted scales: offsets, scales of scales, either sign; less error than the plain range."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dse.numerics import (
    QuantizeError,
    QuantizerState,
    StateError,
    calibrated_state,
    gptq,
    load_states,
    quantize,
    save_states,
)
from dse.numerics.delayed import DelayedScale
from dse.numerics.fitted import fitted_scales
from dse.numerics.output_range import output_range
from hwmodels.errors import FormatError
from hwmodels.formats.catalog import FORMATS, quantizer
from studies.language_rivals.llamacpp import quantized

FITTED = [name for name in FORMATS if quantizer(name).is_fitted]
COMPOSED = ["int3@g64/fp16-fitted", "uint3@g24/fp16-fitted~~fp16", "e2m1@g16/e4m3-fitted^32/fp16"]


@pytest.fixture(scope="module")
def x() -> torch.Tensor:
    x = torch.randn(8, 700, generator=torch.Generator().manual_seed(0)) * 0.03
    x[1] = 0
    x[2] = x[2].abs() + 1
    x[3, :40] = -0.25
    x[4] *= 1e-6
    return x


def error(x: torch.Tensor, y: torch.Tensor) -> float:
    return float((y.double() - x).square().sum())


@pytest.mark.parametrize("name", [*FITTED, *COMPOSED])
def test_a_search_errs_less_than_the_range(name: str) -> None:
    x = torch.randn(16, 512, generator=torch.Generator().manual_seed(3))
    found, plain = (
        quantize(x, quantizer(f"{name}:{how}"), axes=(1,)) for how in ("mse", "absmax")
    )
    assert error(x, found) < error(x, plain)
    assert torch.equal(found, quantize(x, quantizer(name), axes=(1,))), "the search is the default"


@pytest.mark.parametrize("name", [*FITTED, *COMPOSED])
def test_values_are_few_in_a_group_and_rows_do_not_know_each_other(
    name: str, x: torch.Tensor
) -> None:
    chosen = quantizer(name)
    y = quantize(x, chosen, axes=(1,))
    assert torch.isfinite(y).all()
    group = chosen.format.group
    for start in range(0, x.shape[1], group):
        kinds = [len(row.unique()) for row in y[:, start : start + group]]
        assert max(kinds) <= 2**chosen.format.element.bits
    for row in range(len(x)):
        assert torch.equal(quantize(x[row : row + 1], chosen, axes=(1,))[0], y[row])
    assert torch.equal(quantize(x.t(), chosen, axes=(0,)), y.t())
    assert (y[1] == 0).all()


@pytest.mark.parametrize("name", FITTED)
def test_scales_and_offsets_are_products_of_what_is_stored(name: str, x: torch.Tensor) -> None:
    format = quantizer(name).format
    found = fitted_scales(x, quantizer(f"{name}:mse"))
    offsets = found.scales if found.offsets is None else found.offsets
    assert found.scales.shape == offsets.shape == (8, -(-700 // format.group))
    if format.super_scale is None:
        for part in (found.scales, offsets):
            assert torch.equal(part.half().float(), part)
    else:
        assert (offsets <= 0).all() or format.offset is None
        many = format.super_group // format.group
        for part in (found.scales, offsets):
            for block in part.split(many, dim=1):
                largest = block.abs().amax(1, keepdim=True).clamp(min=1e-30)
                steps = block / largest
                assert format.scale is not None
                codes = 2**format.scale.encoding.bits
                whole = [
                    torch.isclose(steps * k, (steps * k).round(), atol=1e-4).all(1)
                    for k in range(1, codes)
                ]
                assert torch.stack(whole).any(0).all()


def test_a_group_that_is_no_number_costs_its_super_group_only() -> None:
    x = torch.randn(2, 768, generator=torch.Generator().manual_seed(1))
    x[0, 300] = torch.nan
    y = quantize(x, quantizer("q4_k"), axes=(1,))
    assert y[0, 256:512].isnan().all()
    assert torch.isfinite(y[0, :256]).all()
    assert torch.isfinite(y[0, 512:]).all()
    assert torch.isfinite(y[1]).all()


@pytest.mark.parametrize("name", ["q4_k", "q3_k", "q4_0", "q5_1", "iq4_nl"])
def test_errors_count_as_much_as_the_inputs_that_they_meet(name: str) -> None:
    generator = torch.Generator().manual_seed(2)
    weight = torch.randn(32, 512, generator=generator)
    inputs = torch.randn(64, 512, generator=generator) * torch.linspace(0.05, 4, 512).roll(100)
    second = inputs.T @ inputs
    chosen = quantizer(f"{name}:output_mse")
    state = output_range(weight, second, chosen)
    counts = second.diagonal()

    def counted(y: torch.Tensor) -> float:
        return float(((y - weight).square() * counts).sum())

    found = quantize(weight, chosen, axes=(1,), state=state)
    assert counted(found) < counted(quantize(weight, quantizer(f"{name}:mse"), axes=(1,)))


@pytest.mark.parametrize("name", ["q4_k", "q6_k", "q4_1"])
def test_a_learned_rounding_stays_on_the_fitted_grid(name: str) -> None:
    generator = torch.Generator().manual_seed(5)
    weight = torch.randn(16, 256, generator=generator)
    inputs = torch.randn(64, 256, generator=generator) @ torch.randn(256, 256, generator=generator)
    second = inputs.T @ inputs
    chosen = quantizer(f"{name}:gptq:mse")
    state = calibrated_state(weight, chosen.replaced(rounding="nearest_even"), axes=(1,))
    values = gptq(weight, second, chosen, state=state)
    nearest = chosen.replaced(rounding="nearest_even")
    again = quantize(values, nearest, axes=(1,), state=state)
    torch.testing.assert_close(again, values, rtol=0, atol=1e-6)
    plain = quantize(weight, nearest, axes=(1,), state=state)

    def energy(y: torch.Tensor) -> float:
        return float((inputs @ (y - weight).T).square().sum())

    assert energy(values) < energy(plain)


def test_a_state_keeps_offsets(tmp_path) -> None:
    x = torch.randn(4, 256, generator=torch.Generator().manual_seed(0))
    chosen = quantizer("q4_k")
    state = calibrated_state(x, chosen, axes=(1,))
    save_states({"a": state}, tmp_path / "s.safetensors")
    again = load_states(tmp_path / "s.safetensors")["a"]
    assert torch.equal(quantize(x, chosen, axes=(1,), state=again), quantize(x, chosen, axes=(1,)))
    with pytest.raises(StateError, match="no offsets"):
        quantize(x, chosen, axes=(1,), state=QuantizerState(scales=state.scales))


@pytest.mark.parametrize("words", ["percentile99.9", "rms", "learned"])
def test_other_statistics_are_refused(words: str) -> None:
    with pytest.raises(QuantizeError, match="are fitted; expected a statistic of absmax"):
        quantize(torch.ones(2, 32), quantizer(f"q4_0:{words}"), axes=(1,))


def test_a_delayed_scale_is_refused() -> None:
    with pytest.raises(QuantizeError, match="leave the timing dynamic"):
        DelayedScale(quantizer("q4_0:delayed"))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("uint4@g32/uint6~~uint6^256/fp16", "expected scale rule 'fitted'"),
        ("uint4@g32/fp16-fitted~uint4", "no zero points"),
        ("int4@g32/int6a-fitted^100/fp16", "in multiples of a group"),
        ("int4@channel/int6a-fitted^256/fp16", "in multiples of a group"),
    ],
)  # fmt: skip
def test_levels_that_do_not_fit_are_refused(name: str, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        quantizer(name)


@pytest.mark.parametrize(("name", "type"), [("q4_0", "Q4_0"), ("q4_1", "Q4_1"), ("q5_0", "Q5_0"),
                                            ("q5_1", "Q5_1"), ("q8_0", "Q8_0")])  # fmt: skip
def test_the_search_errs_less_than_gguf_py(name: str, type: str) -> None:
    gguf = pytest.importorskip("gguf")
    x = torch.randn(64, 512, generator=torch.Generator().manual_seed(4)) * 0.02
    kind = gguf.GGMLQuantizationType[type]
    theirs = gguf.quants.dequantize(gguf.quants.quantize(x.numpy(), kind), kind)
    ours = quantize(x, quantizer(name), axes=(1,))
    assert error(x, ours) < error(x, torch.from_numpy(theirs))
    assert np.abs(theirs - ours.numpy()).max() < 0.02


@pytest.mark.parametrize("name", [*FITTED, *COMPOSED])
def test_where_inputs_are_independent_a_learned_rounding_is_the_nearest(name: str) -> None:
    weight = torch.randn(8, 512, generator=torch.Generator().manual_seed(5))
    state = calibrated_state(weight, quantizer(name), axes=(1,))
    plain = quantize(weight, quantizer(name), axes=(1,), state=state)
    found = gptq(weight, torch.eye(512), quantizer(f"{name}:gptq"), state=state)
    tied = (found - weight).abs() == (plain - weight).abs()
    assert ((found == plain) | tied).all()


@pytest.mark.parametrize("name", FITTED)
def test_weights_have_the_ranges_that_their_inputs_ask_for_unasked(name: str) -> None:
    assert quantizer(name).settled(weight=True).statistic == "output_mse"
    assert quantizer(name).settled(weight=False).statistic == "mse"
    assert quantizer(f"{name}:mse").settled(weight=True).statistic == "mse"


@pytest.mark.parametrize(
    "name", ["q4_0", "q5_0", "iq4_nl", "q4_1", "q5_1", "q4_k", "q5_k", "q6_k"]
)
def test_no_more_is_lost_than_with_llama_cpp_and_its_importance_matrix(name: str) -> None:
    """A few inputs are twenty times as large as others, as in a decoder's residual stream."""
    generator = torch.Generator().manual_seed(6)
    weight = 0.05 * torch.randn(64, 512, generator=generator)
    sizes = torch.ones(512)
    sizes[::37] = 20
    counts = sizes.square() * (0.5 + torch.rand(512, generator=generator))
    ours = quantize(
        weight,
        quantizer(f"{name}:output_mse"),
        axes=(1,),
        state=output_range(weight, counts.diag(), quantizer(f"{name}:output_mse")),
    )
    theirs, _ = quantized(weight.numpy(), name.upper(), counts.numpy())

    def counted(y: torch.Tensor) -> float:
        return float(((y - weight).square() * counts).sum())

    assert counted(ours) < 1.01 * counted(torch.from_numpy(theirs))
