"""Products of codes on tensor cores, against exact sums and against products of values.

Where there are none, `product` multiplies the same bfloat16 factors in float32.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dse.execute import tensor_cores
from dse.execute.codes import SliceScales
from dse.execute.emulate import Emulator
from dse.execute.tensor_cores import (
    TensorCoreProduct,
    WeightCodes,
    has_tensor_cores,
    is_exact,
    parts,
    product,
    tensor_core_products,
)
from dse.numerics import QuantizerState, quantize
from dse.sensitivity.gradient import gradient_scores
from dse.space.build import build_problem
from dse.space.load import parse_space
from hwmodels.formats.catalog import FORMATS, SCHEMES, quantizer
from tests.cuda.networks import METHODS, network

HOST = torch.device("cpu")
LINEAR = [
    "bf16", "w8a16", "w4a16", "w8a8_int8", "w8a8_int8_static", "w8a8_fp8", "w8a8_fp8_dynamic",
    "w4a8_fp8", "w4a4_nvfp4", "w4a4_mxfp4", "w6a6_mxfp6", "w8a8_mxfp8", "uint8",
]  # fmt: skip
SPACE = """
model: given
data: {source: given}
targets: [{device: h100-sxm}]
candidates: [{match: {}, use: [bf16, w8a8_fp8, w4a4_mxfp4, w4a16]}]
"""


def products_of(evaluator, at_sites):
    return tensor_core_products(
        evaluator.program.analysis.flat.graph.nodes, at_sites, evaluator.sites
    )


def weight_of(evaluator, key):
    """The values of the weight of a product, by the key of its sum."""
    site = evaluator.sites[key.replace("/sum", "/in1")]
    return torch.tensor(evaluator.program.graph.initializers[site.value].numpy())


@given(
    st.lists(
        st.tuples(st.integers(-(2**16) + 1, 2**16 - 1), st.integers(-40, 40)),
        min_size=2, max_size=12,
    ),
    st.sampled_from([0, 1]),
)  # fmt: skip
def test_parts_are_the_values(numbers: list[tuple[int, int]], axis: int) -> None:
    values = torch.tensor([math.ldexp(*pair) for pair in numbers]).reshape(1, -1)
    found = parts(values, axis=axis)
    assert found.dtype == torch.bfloat16
    pieces = found.float().split(values.shape[axis], dim=axis)
    assert torch.equal(sum(pieces[1:], pieces[0]), values)
    few = all(abs(n) >> ((n & -n).bit_length() - 1) < 2**8 for n, _ in numbers if n)
    assert len(pieces) == (1 if few else 2)


@pytest.mark.parametrize("value", [1 + 2.0**-9 + 2.0**-20, math.nan, math.inf])
def test_what_is_no_sum_of_two_stays_float32(value: float) -> None:
    values = torch.tensor([[1.0, value]])
    assert parts(values, axis=1) is values


EXACT = [
    name
    for name, format in FORMATS.items()
    if is_exact(format) and (format.scale is None or format.tensor_scale is not None)
]
"""Formats whose values, off a tensor's scale, are what is multiplied."""


def test_there_are_exact_formats() -> None:
    assert {"bf16", "e4m3", "e5m2", "e2m1", "nvfp4"} <= set(EXACT)


@pytest.mark.parametrize("name", EXACT)
def test_exact_formats_are_exact(name: str) -> None:
    format = FORMATS[name]
    levels = format.tensor_scale is not None
    x = torch.randn(64, 64, generator=torch.Generator().manual_seed(0))
    state = QuantizerState(tensor_scale=1.0) if levels else None
    values = quantize(x, quantizer(name), axes=(1,), state=state)
    assert torch.equal(values.bfloat16().float(), values)


def test_the_formats_of_kernels_are_exact_and_wider_ones_are_not() -> None:
    exact = {name for name in FORMATS if is_exact(FORMATS[name])}
    assert {"bf16", "int8", "uint8", "e4m3", "e5m2", "nvfp4", "mxfp4", "mxfp8"} <= exact
    assert exact.isdisjoint({"fp32", "tf32", "fp16", "int16", "posit16_1", "nf4"})


@pytest.mark.parametrize("scheme", LINEAR)
@pytest.mark.parametrize("name", ["convolutional", "attention"])
def test_outputs_are_those_of_products_of_values(name: str, scheme: str) -> None:
    net = network(name)
    chosen = net.assignment(scheme)
    evaluator = net.evaluator(chosen, "cpu")
    at_sites = evaluator.bound(chosen)
    sums = products_of(evaluator, at_sites)
    assert len(sums) == (2 if name == "convolutional" else 4)
    feeds = {k: torch.from_numpy(v) for k, v in net.splits.search.inputs.items()}
    (output,) = net.graph.outputs
    with torch.inference_mode():
        full = evaluator.program.run(feeds).outputs[output]
        values = evaluator.program.run(feeds, at_sites).outputs[output]
        codes = evaluator.program.run(feeds, {**at_sites, **sums}).outputs[output]
    norm = torch.linalg.vector_norm
    assert norm(codes - values) < 0.1 * norm(values - full)  # a code that takes its neighbour
    for key, total in sums.items():
        assert isinstance(total, TensorCoreProduct)
        assert total.weight(weight_of(evaluator, key)).dtype == torch.bfloat16


@pytest.mark.parametrize("scheme", ["w8a8_int8", "w4a16", "w4a4_nvfp4", "w8a8_fp8"])
@pytest.mark.parametrize("words", METHODS.values(), ids=METHODS)
def test_codes_of_learned_weights_are_their_codes(scheme: str, words: str) -> None:
    if words.startswith("equalize"):
        return  # its factors leave the grid
    net = network("convolutional")
    chosen = net.assignment(f"{scheme}:{words}")
    evaluator = net.evaluator(chosen, "cpu")
    at_sites = evaluator.bound(chosen)
    sums = products_of(evaluator, at_sites)
    assert len(sums) == 2
    for key, total in sums.items():
        assert isinstance(total, TensorCoreProduct)
        weight = weight_of(evaluator, key)
        made, scale = total.weight(weight), total.weight.scales
        assert made.dtype == torch.bfloat16
        axis = total.weight.emulator.axes[0]
        pieces = made.float().split(weight.shape[axis], dim=axis)
        values = sum(pieces[1:], pieces[0])
        values = values if scale is None else values * scale(weight)
        torch.testing.assert_close(values, total.weight.emulator(weight), rtol=1e-6, atol=0)


def test_a_product_of_integers_has_no_error_but_that_of_its_scales() -> None:
    x, w = (torch.randn(9, 400, generator=torch.Generator().manual_seed(s)) for s in (0, 1))
    one = Emulator(quantizer=quantizer("int8"), axes=(1,))
    scales = [made.abs().amax() / 127 for made in (x, w)]
    codes = [(made / scale).round().long() for made, scale in zip((x, w), scales, strict=True)]
    factors = WeightCodes(emulator=one, scales=SliceScales(emulator=one))
    left, right = factors(x), factors(w)
    assert torch.equal(product(left, right.T), (codes[0] @ codes[1].T).float())


def test_weights_that_are_no_codes_stay_what_they_are() -> None:
    w = torch.randn(6, 40, generator=torch.Generator().manual_seed(0))
    state = QuantizerState(values=w * 0.9)  # nothing that the grid has
    one = Emulator(quantizer=quantizer("int8_channel"), axes=(1,), state=state)
    scales = SliceScales(emulator=one)
    found = WeightCodes(emulator=one, scales=scales)(w)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found * scales(w), w * 0.9)
    x = torch.randn(3, 40, generator=torch.Generator().manual_seed(1))
    assert torch.equal(product(x, found.T), x @ found.T)


@pytest.mark.parametrize("words", ["hadamard", "smooth(0.5)"])
def test_what_leaves_the_grid_is_multiplied_as_values(words: str) -> None:
    net = network("attention")
    chosen = net.assignment(f"w8a8_int8:{words}")
    evaluator = net.evaluator(chosen, "cpu")
    assert not products_of(evaluator, evaluator.bound(chosen))


def test_a_sum_that_is_asked_for_is_kept() -> None:
    net = network("attention")
    chosen = net.assignment("w8a8_int8@int16:saturate")
    evaluator = net.evaluator(chosen, "cpu")
    assert not products_of(evaluator, evaluator.bound(chosen))


def test_weights_are_kept_as_codes_of_two_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    net = network("attention")
    chosen = net.assignment("w8a8_int8")
    sizes = []
    for there in (False, True):
        monkeypatch.setattr("dse.evaluate.evaluator.has_tensor_cores", lambda _, t=there: t)
        evaluator = net.evaluator(chosen, "cpu")
        evaluator.measure(chosen)
        sizes.append(evaluator.program._weights.bytes)
    count = sum(v.numpy().size for v in net.graph.initializers.values())
    scales = 4 * 16 * 4
    assert sizes == [4 * count, 2 * count + scales]


def test_scores_of_gradients_are_what_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    net = network("attention")
    problem = build_problem(parse_space(SPACE, origin="test"), net.analysis.regions)
    found = []
    for there in (False, True):
        monkeypatch.setattr("dse.evaluate.evaluator.has_tensor_cores", lambda _, t=there: t)
        evaluator = net.evaluator(net.assignment("e4m3"), "cpu")
        scores = gradient_scores(evaluator, problem, seed=1)
        found.append(np.concatenate(scores.losses(problem)))
    np.testing.assert_array_equal(found[0], found[1])


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_loss_is_the_same_within_what_sums_round(
    scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = network("attention")
    chosen = net.assignment(scheme)
    losses = []
    for there in (False, True):
        monkeypatch.setattr("dse.evaluate.evaluator.has_tensor_cores", lambda _, t=there: t)
        losses.append(net.evaluator(chosen, "cpu").measure(chosen).loss)
    assert losses[1] == pytest.approx(losses[0], rel=0.03)


def test_no_device_is_used_whose_sums_are_rounded(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not has_tensor_cores(HOST)

    class Device:
        type = "cuda"

    def tried(found: object) -> bool:
        has_tensor_cores.cache_clear()
        monkeypatch.setattr(tensor_cores, "product", found)
        monkeypatch.setattr(torch.Tensor, "to", lambda self, *_: self)
        return has_tensor_cores(Device())

    def refused(*_: object) -> None:
        raise NotImplementedError

    try:
        assert tried(lambda a, b: a @ b)
        assert not tried(lambda a, b: (a @ b).bfloat16().float())
        assert not tried(lambda a, b: (a @ b).bfloat16())
        assert not tried(refused)
    finally:
        has_tensor_cores.cache_clear()
