"""What calibration and learning find on a device is what they find on the CPU, and stays there."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from dse.execute.emulate import static_state
from dse.execute.weights.calibrate import Observer, observe
from dse.execute.weights.learn import WeightStates
from dse.numerics import (
    QuantizerState,
    calibrated_state,
    discquant,
    gptq,
    learned_state,
    neighbours,
    output_range,
    quantize,
    quantize_with_gradient,
    with_gains,
)
from dse.numerics.delayed import DelayedScale
from dse.numerics.grids.state import TENSORS
from hwmodels.formats.catalog import quantizer
from tests.cuda.networks import network

WEIGHTS = [
    "int4_g32",
    "int4_channel",
    "uint4_channel",
    "int4",
    "nvfp4",
    "mxfp4",
    "int4@b8x32/fp16",
]
STATISTICS = ["absmax", "mse", "percentile99.0", "mean_channel_range", "rms"]


def _weight() -> Tensor:
    return torch.randn(24, 64, generator=torch.Generator().manual_seed(0))


def _second_moment() -> Tensor:
    rows = torch.randn(256, 64, generator=torch.Generator().manual_seed(1))
    return rows.mT @ rows / 256


def _alike(there: QuantizerState, here: QuantizerState, device: str, **tolerance: float) -> None:
    for name in TENSORS:
        found, expected = getattr(there, name), getattr(here, name)
        assert (found is None) == (expected is None)
        if found is not None:
            assert found.device.type == torch.device(device).type
            torch.testing.assert_close(
                found.cpu(), expected, rtol=tolerance.get("rtol", 0), atol=tolerance.get("atol", 0)
            )
    assert there.tensor_scale == here.tensor_scale


@pytest.mark.parametrize("statistic", STATISTICS)
@pytest.mark.parametrize("name", ["int8", "uint8", "e4m3_tensor", "posit8_1@tensor", "nvfp4"])
def test_static_scales_are_the_same(name: str, statistic: str, device: str) -> None:
    chosen = quantizer(f"{name}:{statistic}:static")
    here = calibrated_state(_weight(), chosen, axes=(1,))
    there = calibrated_state(_weight().to(device), chosen, axes=(1,))
    # Means are sums, whose order is the device's.
    _alike(there, here, device, rtol=1e-6 if statistic in ("mean_channel_range", "rms") else 0.0)


@pytest.mark.parametrize("name", WEIGHTS)
def test_ranges_of_least_output_error_are_the_same(name: str, device: str) -> None:
    here = output_range(_weight(), _second_moment(), quantizer(name))
    there = output_range(_weight().to(device), _second_moment().to(device), quantizer(name))
    _alike(there, here, device)


@pytest.mark.parametrize(
    "name", ["int4_g32", "uint4_channel", "e2m1@channel", "nvfp4", "posit6_1@channel"]
)
@pytest.mark.parametrize("rounding", ["gptq", "discquant"])
def test_learned_roundings_are_the_same(name: str, rounding: str, device: str) -> None:
    chosen = quantizer(f"{name}:{rounding}")
    here = learned_state(_weight(), _second_moment(), chosen)
    there = learned_state(_weight().to(device), _second_moment().to(device), chosen)
    assert there.values is not None
    assert here.values is not None
    assert there.values.device.type == torch.device(device).type
    differing = (there.values.cpu() != here.values).float().mean()
    assert differing < 0.01


@pytest.mark.parametrize("name", ["int4_g32", "uint4_channel", "int8"])
def test_outputs_get_their_strength_back_alike(name: str, device: str) -> None:
    """The same codes on both sides: sums alone may differ, and the scales' own rounding."""
    chosen, weight = quantizer(f"{name}:gptq").settled(weight=True), _weight()
    given = learned_state(weight, _second_moment(), chosen)
    image = weight.double() @ _second_moment().double()
    here = with_gains(given, weight, image, chosen)
    assert not torch.equal(here.values, given.values)  # type: ignore[arg-type]
    there = given.on(torch.device(device))
    there = with_gains(there, weight.to(device), image.to(device), chosen)
    _alike(there, here, device, rtol=2e-3, atol=1e-6)


def test_the_pieces_of_learning_stay_on_the_device(device: str) -> None:
    weight, second = _weight().to(device), _second_moment().to(device)
    near = neighbours(weight, quantizer("int4_channel"), axes=(1,))
    rounded = discquant(weight, near, lambda w: ((w - weight) @ second * (w - weight)).sum())
    for found in (near.up, near.down, rounded, gptq(weight, second, quantizer("int4_channel"))):
        assert found.device.type == torch.device(device).type


@pytest.mark.parametrize(
    "name",
    ["int8_channel:hadamard(16)", "int8_channel:random_hadamard(16)", "e4m3_tensor:clamp(99)",
     "int4_channel:outlier_split(1)", "e4m3_token:expand(16)", "e4m3_token:power(0.5)",
     "int4:requant8", "int4_channel:requant_floor8", "int8:mean_channel_range",
     "e4m3:random_directed", "int8@tensor/fp32-global_min", "int4@channel/fp32-ratio"],
)  # fmt: skip
def test_transforms_and_composed_quantizers_have_close_values(name: str, device: str) -> None:
    chosen = quantizer(name)
    here = quantize(_weight(), chosen, axes=(1,))
    there = quantize(_weight().to(device), chosen, axes=(1,))
    # Rotations and powers are sums and functions, which devices round differently.
    off = ((there.cpu() - here).abs() > 1e-4).float().mean()
    assert off < 0.005


@pytest.mark.parametrize("name", ["int8_channel:smooth(0.5)", "int8_channel:equalize(1,0)"])
def test_states_of_the_host_serve_values_of_the_device(name: str, device: str) -> None:
    factors = torch.rand(64, generator=torch.Generator().manual_seed(2)) + 0.5
    chosen, state = quantizer(name), QuantizerState(channel_factors=factors)
    here = quantize(_weight(), chosen, axes=(1,), state=state)
    there = quantize(_weight().to(device), chosen, axes=(1,), state=state)
    assert torch.equal(there.cpu(), here)
    fixed = chosen.replaced(timing="static")
    found = calibrated_state(_weight().to(device), fixed, axes=(1,), state=state)
    moved = quantize(_weight().to(device), fixed, axes=(1,), state=found)
    assert torch.equal(moved.cpu(), here)


def test_delayed_scales_serve_values_of_the_device(device: str) -> None:
    chosen = quantizer("e4m3_tensor:delayed")
    here, there = DelayedScale(chosen), DelayedScale(chosen)
    for factor in (1.0, 3.0, 0.5):
        x = _weight() * factor
        expected = quantize(x, chosen, axes=(1,), state=here.state(x))
        found = quantize(x.to(device), chosen, axes=(1,), state=there.state(x.to(device)))
        assert torch.equal(found.cpu(), expected)


@pytest.mark.parametrize("gradient", ["ste", "clipped_ste"])
def test_gradients_through_quantizers_are_the_same(gradient: str, device: str) -> None:
    chosen = quantizer("int8_channel:percentile90.0")
    found = []
    for place in ("cpu", device):
        x = _weight().to(place).requires_grad_()
        values = quantize_with_gradient(x, chosen, axes=(1,), gradient=gradient)  # type: ignore[arg-type]
        (values * values).sum().backward()
        assert x.grad is not None
        found.append(x.grad.cpu())
    assert torch.equal(found[1], found[0])


def test_calibration_is_the_same_and_on_the_host(device: str) -> None:
    net = network("convolutional")
    places = net.analysis.sites
    chosen = net.assignment("w8a8_fp8")
    here, there = (net.evaluator(chosen, place) for place in ("cpu", device))
    assert set(here.calibration.statistics) == set(there.calibration.statistics)
    for key, expected in here.calibration.statistics.items():
        found = there.calibration.statistics[key]
        assert found.channel_absmax.device.type == "cpu"
        torch.testing.assert_close(found.channel_absmax, expected.channel_absmax)
        assert found.count == expected.count
        for part in ("sample", "lowest", "highest"):
            values, known = getattr(found, part), getattr(expected, part)
            assert values.device.type == "cpu"
            torch.testing.assert_close(values, known, rtol=1e-4, atol=1e-5)
    assert observe(there.program, [], places[:0]).statistics == {}


def test_tails_of_parts_are_the_same_and_on_the_host(device: str) -> None:
    parts = [torch.randn(40_000, generator=torch.Generator().manual_seed(i)) for i in range(3)]
    here, there = Observer(()), Observer(())
    for part in parts:
        here(part)
        there(part.to(device))
    found, expected = there.statistics(), here.statistics()
    assert found.count == expected.count == 120_000
    for end in ("lowest", "highest"):
        assert torch.equal(getattr(found, end), getattr(expected, end))
    for words in ("percentile99.99", "mse"):
        chosen = quantizer(f"uint8:{words}:static")
        state = static_state(chosen, found, torch.device(device))
        _alike(state, static_state(chosen, expected), device)


def test_what_was_learned_is_saved_and_loaded(tmp_path: Path, device: str) -> None:
    net = network("convolutional")
    chosen = net.assignment("w4a16:gptq")
    evaluator = net.evaluator(chosen, device)
    digest = evaluator.weights.save(tmp_path)
    again = WeightStates(evaluator.program, evaluator.sites, lambda: iter(()))
    again.load(tmp_path)
    for key, found in chosen:
        first, second = evaluator.weights.state(key, found), again.state(key, found)
        if first is not None and second is not None:
            _alike(second, first.on(torch.device("cpu")), device)
    assert again.macs == 0
    assert again.save(tmp_path) == digest
