"""Narrow and exact accumulators against numpy, rational arithmetic and softposit."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from dse.errors import DseError
from dse.numerics import ACCUMULATORS, Accumulator, matmul, quantize
from hwmodels.formats.catalog import quantizer

M, K, N = 5, 300, 4
HOPPER = Path(__file__).parent / "data" / "hopper.npz"


@pytest.fixture(scope="module")
def operands():
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(M, K, generator=generator), torch.randn(K, N, generator=generator)
    return (quantize(x, quantizer("e4m3_tensor"), axes=()) for x in (a, b))


@pytest.fixture(scope="module")
def pair(operands):
    return tuple(operands)


def _sequential(a, b, dtype):
    out = np.zeros((M, N), dtype)
    for k in range(K):
        product = a[:, k, None].numpy().astype(np.float64) * b[None, k].numpy().astype(np.float64)
        out = (out.astype(np.float64) + product).astype(dtype)
    return out.astype(np.float32)


@pytest.mark.parametrize(("name", "dtype"), [("fp16", np.float16), ("fp32", np.float32)])
def test_sequential_sums_are_numpys(pair, name, dtype):
    a, b = pair
    got = matmul(a, b, ACCUMULATORS[name])
    assert np.array_equal(got.numpy(), _sequential(a, b, dtype))


def test_the_quire_is_exact(pair):
    a, b = pair
    got = matmul(a, b, ACCUMULATORS["quire"])
    for i in range(M):
        for j in range(N):
            terms = zip(a[i].tolist(), b[:, j].tolist(), strict=True)
            exact = sum((Fraction(x) * Fraction(y) for x, y in terms), Fraction(0))
            below = np.nextafter(np.float32(got[i, j]), np.float32(-np.inf))
            above = np.nextafter(np.float32(got[i, j]), np.float32(np.inf))
            distance = abs(Fraction(float(got[i, j])) - exact)
            assert distance <= abs(Fraction(float(below)) - exact)
            assert distance <= abs(Fraction(float(above)) - exact)


def test_the_quire_sees_what_float64_cancels():
    a = torch.tensor([[2.0**60, 1.0, -(2.0**60), 2.0**-60]])
    got = matmul(a, torch.ones(4, 1), ACCUMULATORS["quire"])
    assert got.item() == 1.0


def test_a_quire_of_posits_is_softposits():
    softposit = pytest.importorskip("softposit", reason="oracle for quires")
    generator = torch.Generator().manual_seed(1)
    a = quantize(torch.randn(1, 12, generator=generator), quantizer("posit8_0"), axes=())
    b = quantize(torch.randn(12, 1, generator=generator), quantizer("posit8_0"), axes=())
    quire = softposit.quire8()
    for x, y in zip(a[0].tolist(), b[:, 0].tolist(), strict=True):
        quire.qma(softposit.posit8(x), softposit.posit8(y))
    got = quantize(matmul(a, b, ACCUMULATORS["quire"]), quantizer("posit8_0"), axes=())
    assert got.item() == float(quire.toPosit())


@pytest.mark.parametrize("distribution", ["normal", "positive"])
@pytest.mark.parametrize(
    ("kernel", "name"),
    [
        ("fp8_fast", "hopper_fp8"),
        ("fp8_precise", "hopper_fp8_promoted"),
        ("bf16", "hopper_16bit"),
        ("fp16", "hopper_16bit"),
    ],
)
def test_hopper_sums_are_an_h100s(kernel, name, distribution):
    """Outputs of torch on an H100 that no parameter was fitted to; see studies/silicon."""
    with np.load(HOPPER) as recorded:
        left, right, output = (
            recorded[f"{kernel}_{distribution}_{part}"] for part in ("left", "right", "output")
        )
    # bfloat16, which numpy lacks, is kept as the upper half of float32.
    a, b = (
        torch.from_numpy(x).view(torch.bfloat16).float()
        if x.dtype == np.int16
        else torch.from_numpy(x).float()
        for x in (left, right)
    )
    assert np.array_equal(matmul(a, b.t(), ACCUMULATORS[name]).numpy(), output)


def test_alignment_loses_what_lies_below_the_largest_term():
    a = torch.tensor([[1.0, 2.0**-13, 2.0**-14, 2.0**-14]])
    b = torch.ones(4, 1)
    assert matmul(a, b, ACCUMULATORS["hopper_fp8"]).item() == 1 + 2.0**-13
    assert matmul(a, b, ACCUMULATORS["fp32"]).item() == 1 + 2.0**-12


def test_promotion_recovers_precision_over_long_sums():
    """DeepSeek-V3, arXiv 2412.19437: K = 4096 needs promotion."""
    generator = torch.Generator().manual_seed(2)
    a, b = torch.rand(4, 4096, generator=generator), torch.rand(4096, 4, generator=generator)
    exact = a.double() @ b.double()

    def error(name):
        return ((matmul(a, b, ACCUMULATORS[name]) - exact) / exact).abs().mean().item()

    assert error("fp32") < 1e-5
    assert error("hopper_fp8") > 5e-4
    assert error("hopper_fp8_promoted") < 0.2 * error("hopper_fp8")


def test_sixteen_bits_overflow_where_predicted():
    """FBGEMM: dense 8-bit products overflow int16 from the third on, and not when spilled."""
    for depth, overflows in ((2, False), (3, True)):
        a, b = torch.full((1, depth), 127), torch.full((depth, 1), 127)
        plain = Accumulator(name="int16", kind="integer", bits=16)
        assert (matmul(a, b, plain).item() != depth * 127 * 127) == overflows
        spilled = Accumulator(name="int16_spill2", kind="integer", bits=16, promote_every=2)
        assert matmul(a, b, spilled).item() == depth * 127 * 127


def test_int32_is_exact():
    generator = torch.Generator().manual_seed(3)
    a = torch.randint(-127, 128, (M, K), generator=generator)
    b = torch.randint(-127, 128, (K, N), generator=generator)
    assert torch.equal(matmul(a, b, ACCUMULATORS["int32"]), a @ b)


def test_shapes_and_types_are_checked():
    with pytest.raises(DseError, match="do not match"):
        matmul(torch.ones(2, 3), torch.ones(2, 3), ACCUMULATORS["fp32"])
    with pytest.raises(DseError, match="adds integer codes"):
        matmul(torch.ones(2, 3), torch.ones(3, 2), ACCUMULATORS["int32"])
