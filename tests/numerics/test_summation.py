"""Rounded sums against sums that numpy rounds one by one."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
import torch

from dse.numerics import matmul
from dse.numerics.numba import summation as compiled
from dse.numerics.summation import _way, in_torch
from hwmodels.formats.accumulator import accumulator
from hwmodels.formats.catalog import format

SHAPES = [(3, 37, 150), (150, 37, 3), (1, 64, 1), (7, 200, 6)]
ROUNDED = {"fp16": np.float16, "bf16": ml_dtypes.bfloat16, "e4m3": ml_dtypes.float8_e4m3fn,
           "e5m2": ml_dtypes.float8_e5m2, "e3m2": ml_dtypes.float6_e3m2fn}  # fmt: skip


def drawn(shape, kind, seed=0):
    generator = np.random.default_rng(seed)
    values = generator.standard_normal(shape)
    if kind == "int8":
        return torch.tensor(generator.integers(-127, 128, shape), dtype=torch.float32)
    if kind == "spread":  # over 40 binades, subnormal numbers of the accumulators among them
        values = values * np.exp2(generator.integers(-28, 8, shape))
    return torch.tensor(values.astype(ROUNDED.get(kind, np.float16))
                        .astype(np.float32))  # fmt: skip


def one_by_one(a, b, rounded, chunk=1, every=0):
    """Sums in float64 that a function rounds after each chunk."""
    a, b = a.numpy().astype(np.float64), b.numpy().astype(np.float64)
    total = np.zeros((a.shape[0], b.shape[1]), np.float32)
    running = np.zeros_like(total, np.float64)
    for k in range(0, a.shape[1], chunk):
        if every and k and k % every == 0:
            total, running = total + running.astype(np.float32), np.zeros_like(running)
        exact = running + a[:, k : k + chunk] @ b[k : k + chunk]
        with np.errstate(over="ignore", invalid="ignore"):
            running = rounded(exact)
    return total + running.astype(np.float32)


def nearest(name):
    return lambda x: x.astype(ROUNDED[name]).astype(np.float64)


def cut(mantissa_bits):
    """Towards zero, by dropping bits of the float64."""
    mask = ~np.uint64((1 << (52 - mantissa_bits)) - 1)
    return lambda x: (x.view(np.uint64) & mask).view(np.float64)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", ["fp16", "bf16", "e5m2"])
@pytest.mark.parametrize("kind", ["e4m3", "int8", "fp16", "spread"])
def test_sums_rounded_after_every_product_are_numpys(shape, name, kind):
    m, depth, n = shape
    a, b = drawn((m, depth), kind), drawn((depth, n), kind, 1)
    expected = one_by_one(a, b, nearest(name))
    found = matmul(a, b, accumulator(name)).numpy()
    assert np.array_equal(found, expected, equal_nan=True)


@pytest.mark.parametrize("kind", ["int8", "e4m3", "e3m2"])
def test_sums_near_the_top_and_the_last_step_of_half_precision_are_numpys(kind):
    """Factors of all magnitudes of a format: sums overflow on both sides, or are subnormal."""
    generator = np.random.default_rng(5)
    if kind == "int8":
        codes = np.arange(-127, 128, dtype=np.float32)
    else:
        every = np.arange(64 if kind == "e3m2" else 256, dtype=np.uint8)
        codes = every.view(ROUNDED[kind]).astype(np.float32)
    codes = codes[np.isfinite(codes)]
    a, b = (torch.tensor(generator.choice(codes, shape)) for shape in ((9, 150), (150, 140)))
    a[:3] *= 2.0**-6 if kind != "int8" else 1
    expected = one_by_one(a, b, nearest("fp16"))
    found = matmul(a, b, accumulator("fp16")).numpy()
    assert np.array_equal(found, expected, equal_nan=True)
    if kind != "e3m2":
        assert {-np.inf, np.inf} <= set(found.ravel())


@pytest.mark.parametrize("name", ["fp16", "bf16", "e5m2", "fp16:chunk4", "bf16:chunk4"])
@pytest.mark.parametrize("kind", ["int8", "e4m3", "spread"])
def test_factors_that_are_infinite_or_no_number_are_summed_as_numpy_does(kind, name):
    a, b = drawn((9, 60), kind), drawn((60, 130), kind, 1)
    a[0, 3], a[1, 5], b[7, 2], b[50, 9], a[2, 0], a[2, 9] = (
        np.nan, np.inf, -np.inf, np.nan, np.inf, -np.inf,
    )  # fmt: skip
    chunk = 4 if ":" in name else 1
    with np.errstate(invalid="ignore"):
        expected = one_by_one(a, b, nearest(name.partition(":")[0]), chunk)
    found = matmul(a, b, accumulator(name)).numpy()
    assert np.array_equal(found, expected, equal_nan=True)
    assert np.isinf(found).any()


@pytest.mark.parametrize(("last", "total"), [(15, 65504), (16, np.inf), (17, np.inf)])
@pytest.mark.parametrize("sign", [1, -1])
def test_half_precision_overflows_from_halfway_to_the_next_binade(last, total, sign):
    """65504 + 16 is the tie, which goes to the even neighbour 65536: infinity."""
    a = torch.tensor([[32752.0, 32752.0, last, -1000.0]]) * sign
    found = matmul(a, torch.ones(4, 1), accumulator("fp16")).item()
    assert found == sign * (total if np.isinf(total) else np.float16(total - 1000.0))


def test_products_of_whole_steps_take_the_shorter_kernels():
    int8, e4m3 = ([drawn((8, 64), kind), drawn((64, 32), kind, 1)] for kind in ("int8", "e4m3"))
    spread = [drawn((8, 64), "spread"), drawn((64, 32), "spread", 1)]
    for (left, right), name, kernel in (
        (int8, "fp16", compiled.sum_stepped_to_infinity),
        (int8, "bf16", compiled.sum_stepped),
        (e4m3, "bf16", compiled.sum_stepped),
        (int8, "fp16:chunk4", compiled.sum_infinite_short),
        (spread, "bf16", compiled.sum_free),
    ):
        assert _way(left, right, accumulator(name), 0).kernel is kernel


@pytest.mark.parametrize(("chunk", "every"), [(4, 0), (16, 64), (1, 8), (64, 0)])
@pytest.mark.parametrize("kind", ["int8", "e4m3"])
def test_chunks_and_spills_are_numpys(chunk, every, kind):
    a, b = drawn((5, 203), kind), drawn((203, 40), kind, 1)
    words = f"bf16:chunk{chunk}" + (f":spill{every}" if every else "")
    expected = one_by_one(a, b, nearest("bf16"), chunk, every)
    assert np.array_equal(matmul(a, b, accumulator(words)).numpy(), expected)


def test_cutting_drops_what_lies_below_the_last_bit():
    a, b = drawn((6, 90), "fp16"), drawn((90, 70), "fp16", 1)
    found = matmul(a, b, accumulator("e8m9:zero")).numpy()
    assert np.array_equal(found, one_by_one(a, b, cut(9)))
    assert np.abs(found).sum() < np.abs(matmul(a, b, accumulator("e8m9")).numpy()).sum()


def test_what_overflows_is_infinite_or_stops():
    a, b = torch.full((1, 300), 100.0), torch.full((300, 1), 10.0)
    a[0, 200:] = -100.0
    assert matmul(a, b, accumulator("fp16")).item() == np.inf
    stopped = matmul(a, b, accumulator("fp16:saturate")).item()
    assert stopped == one_by_one(
        a, b, lambda x: np.clip(x, -65504, 65504).astype(np.float16).astype(np.float64)
    )
    assert stopped < 0
    assert matmul(a, b, accumulator("fp16:zero")).item() == one_by_one(
        a, b, lambda x: np.clip(cut(10)(x), -65504, 65504)
    )
    a[0, 0] = np.nan
    for name in ("fp16", "fp16:saturate", "fp16:zero", "fp16:stochastic", "bf16"):
        assert np.isnan(matmul(a, b, accumulator(name)).item())
    a[0, 0] = np.inf
    for name in ("fp16", "bf16", "fp16:zero"):
        assert matmul(a.clamp(-1), b, accumulator(name)).item() == np.inf


@pytest.mark.parametrize("name", ["fp16", "bf16:chunk8", "e5m4:zero:chunk2", "e4m3:spill64",
                                  "fp16:saturate", "e3m2", "fp32"])  # fmt: skip
@pytest.mark.parametrize("kind", ["e4m3", "spread"])
def test_torch_gives_the_bits_of_the_compiled_kernels(name, kind):
    a, b = drawn((9, 130), kind), drawn((130, 33), kind, 1)
    asked = accumulator(name)
    found = matmul(a, b, asked).numpy()
    assert np.array_equal(found, in_torch(a, b, asked).numpy(), equal_nan=True)


@pytest.mark.parametrize("run", [matmul, in_torch])
def test_drawn_sums_are_right_in_the_mean_and_neighbours_of_the_exact(run):
    """Each of two additions may go up or down: numbers around, whose mean is the sum."""
    a = torch.tensor([[1.0, 3 * 2.0**-12]]).repeat(4000, 1)
    found = run(a, torch.ones(2, 4), accumulator("fp16:stochastic"), seed=3)
    assert set(found.unique().tolist()) == {1.0, 1 + 2.0**-10}
    share = (found > 1).float().mean(0)
    assert torch.allclose(share, torch.full((4,), 0.75), atol=0.04)
    again = run(a, torch.ones(2, 4), accumulator("fp16:stochastic"), seed=3)
    assert torch.equal(found, again)
    other = run(a, torch.ones(2, 4), accumulator("fp16:stochastic"), seed=4)
    assert not torch.equal(found, other)


def python_integers(a, b, bits, overflow, every=0):
    half = 1 << (bits - 1)
    out = np.zeros((a.shape[0], b.shape[1]))
    for i in range(a.shape[0]):
        for j in range(b.shape[1]):
            total = running = 0
            for k in range(a.shape[1]):
                if every and k and k % every == 0:
                    total, running = total + running, 0
                running += int(a[i, k]) * int(b[k, j])
                if overflow == "wrap":
                    running = (running + half) % (2 * half) - half
                else:
                    running = min(max(running, -half), half - 1)
            out[i, j] = total + running
    return out


@pytest.mark.parametrize("words", ["", ":saturate", ":spill32", ":saturate:spill32"])
@pytest.mark.parametrize("bits", [12, 16, 24, 31])
def test_integers_wrap_or_stop_as_pythons_would(bits, words):
    a, b = drawn((5, 150), "int8").long(), drawn((150, 9), "int8", 1).long()
    a[0], b[:, 0] = 127, 127
    asked = accumulator(f"int{bits}{words}")
    expected = python_integers(a, b, bits, asked.overflow, asked.promote_every)
    assert np.array_equal(matmul(a, b, asked).numpy(), expected)


def test_wide_codes_stop_in_float64():
    a = torch.tensor([[30000, 30000, 30000, -30000]])
    found = matmul(a, a.T.abs(), accumulator("int31:saturate")).item()
    assert found == (1 << 30) - 1 - 900_000_000


def test_a_float_whose_last_code_is_no_number_ends_there():
    """e4m3, in steps of 32 up to 448: 400 is 384, 424 is 416, 432 a tie that goes to 448."""
    a = torch.tensor([[400.0, 40.0, 16.0, 100.0]])
    sums = [matmul(a[:, :n], torch.ones(n, 1), accumulator("e4m3")).item() for n in (2, 3, 4)]
    assert sums == [416.0, 448.0, np.inf]


def test_nothing_to_add_is_zero():
    assert (
        matmul(torch.ones(2, 0), torch.ones(0, 3), accumulator("fp16")).tolist() == [[0.0] * 3] * 2
    )
    assert matmul(torch.ones(0, 4), torch.ones(4, 3), accumulator("fp16")).shape == (0, 3)
    assert format("fp16").element.max == 65504
