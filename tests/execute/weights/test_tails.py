"""Percentiles of activations against those of every value, which numpy sorts."""

from __future__ import annotations

import math
from itertools import pairwise
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from dse.errors import AssignmentError
from dse.execute.emulate import emulators, static_state
from dse.execute.weights import tails
from dse.execute.weights.calibrate import Calibration, Observer, Statistics
from dse.execute.weights.tails import TAIL, Tails, weighted
from dse.graph.ir.assignment import Assignment
from dse.numerics import StateError, calibrated_state
from dse.numerics.percentile import largest, lower_rank, upper_rank
from dse.numerics.scales import derived_scales
from hwmodels.formats.catalog import quantizer
from tests.cuda.networks import network

COUNT = 3_000_000
"""Values of which a sample of at most 16,384 says nothing beyond 99.99 %."""
Values = NDArray[np.float32]
shapes = st.sampled_from(("normal", "heavy", "one-sided", "few values"))


def _drawn(shape: str, count: int, seed: int) -> Values:
    rng = np.random.default_rng(seed)
    match shape:
        case "normal":
            x = rng.standard_normal(count)
        case "heavy":
            x = rng.standard_t(2, count)
        case "one-sided":
            x = np.maximum(rng.standard_normal(count), 0)
        case _:
            x = rng.integers(-3, 9, count).astype(float)
    return x.astype(np.float32)


def _seen(parts: list[Tensor]) -> Statistics:
    observer = Observer(())
    for part in parts:
        observer(part)
    return observer.statistics()


def _cut(x: Values, seed: int, most: int = 6) -> list[Tensor]:
    rng = np.random.default_rng(seed)
    ends = [0, *sorted(rng.integers(0, len(x) + 1, rng.integers(0, most))), len(x)]
    return [torch.from_numpy(x[a:b]) for a, b in pairwise(ends)]


@pytest.mark.parametrize("name", ["int8", "uint8"])
@pytest.mark.parametrize("percentile", [99.9, 99.99, 99.999, 99.9999, 100.0])
@pytest.mark.parametrize("shape", ["normal", "heavy", "one-sided"])
def test_fine_percentiles_are_those_of_every_value(
    shape: str, percentile: float, name: str
) -> None:
    x = _drawn(shape, COUNT, 0)
    found = static_state(quantizer(f"{name}:percentile{percentile}:static"), _seen(_cut(x, 1)))
    ends = np.abs(x) if name == "int8" else x
    # The next ranks, too: no share is a binary number.
    shares = [percentile / 100 + step / COUNT for step in (-1, 1)]
    narrow, wide = (
        float(np.quantile(ends, min(share, 1.0), method="inverted_cdf"))
        - (0 if name == "int8" else float(np.quantile(ends, max(1 - share, 0), method="lower")))
        for share in shares
    )
    assert found.scales is not None
    levels = 127 if name == "int8" else 255
    assert narrow * (1 - 1e-6) <= found.scales.item() * levels <= wide * (1 + 1e-6)
    assert wide < narrow * 1.01 or percentile > 99.99


@given(
    shape=shapes, count=st.integers(1, 60_000), seed=st.integers(0, 2**16),
    percentile=st.sampled_from((60.0, 97.0, 99.0, 99.9, 99.97, 99.999, 100.0)),
    name=st.sampled_from(("int8", "uint8", "e4m3_tensor")),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_tails_are_exact_and_the_middle_is_the_samples(
    shape: str, count: int, seed: int, percentile: float, name: str
) -> None:
    """With small tails, so that both cases and their border come up."""
    x = _drawn(shape, count, seed)
    chosen = quantizer(f"{name}:percentile{percentile}:static")
    with mock.patch.object(tails, "TAIL", 64), mock.patch.object(tails, "CHUNK", 5000):
        statistics = _seen(_cut(x, seed))
    everything = calibrated_state(torch.from_numpy(x), chosen, axes=(0,))
    rank = upper_rank(percentile / 100, count)
    if rank <= 64 or statistics.sample.numel() == count:
        found = static_state(chosen, statistics)
        assert found.scales is not None
        assert everything.scales is not None
        assert torch.equal(found.scales, everything.scales)
        return
    values, counts = statistics.weighted
    assert counts.sum().item() == pytest.approx(count, rel=1e-12)
    try:
        value = largest(values, counts, rank).item()
    except StateError:
        # So few of the sample lie beyond that it could be others.
        assert rank < 16 * counts.max().item()
        return
    error = 6 * math.sqrt(rank * counts.max().item())
    above, not_below = int((x > value).sum()), int((x >= value).sum())
    assert above - error <= rank <= not_below + error


@given(shape=shapes, count=st.integers(1, 30_000), seed=st.integers(0, 2**16), data=st.data())
@settings(max_examples=60, deadline=None)
def test_any_order_of_batches_has_the_same_tails(
    shape: str, count: int, seed: int, data: st.DataObject
) -> None:
    x = _drawn(shape, count, seed)
    parts = [part for part in _cut(x, seed) if part.numel()]
    ordered = np.sort(x)
    with mock.patch.object(tails, "TAIL", 300), mock.patch.object(tails, "CHUNK", 1000):
        for order in (parts, data.draw(st.permutations(parts))):
            found = Tails()
            for part in order:
                found.see(part)
            assert found.count == count
            assert np.array_equal(found.lowest.numpy(), ordered[:300])
            assert np.array_equal(found.highest.numpy(), ordered[::-1][:300])


def test_where_the_sample_is_everything_no_tails_are_kept() -> None:
    found = _seen([torch.randn(100), torch.randn(50)])
    assert (found.count, found.lowest.numel(), found.highest.numel()) == (150, 0, 0)
    values, counts = found.weighted
    assert torch.equal(values, found.sample)
    assert torch.equal(counts, torch.ones(150, dtype=torch.float64))


def test_tails_that_meet_are_everything() -> None:
    x = torch.arange(10.0)
    values, counts = weighted(x[:1], x[:7], x.flip(0)[:7], 10)
    assert sorted(values.tolist()) == x.tolist()
    assert counts.tolist() == [1.0] * 10


def test_a_sample_without_a_middle_leaves_its_bounds() -> None:
    values, counts = weighted(torch.tensor([0.0, 9.0]), torch.tensor([0.0, 1.0]),
                              torch.tensor([9.0, 8.0]), 10)  # fmt: skip
    assert values.tolist() == [0, 1, 9, 8, 1, 8]
    assert counts.tolist() == [1, 1, 1, 1, 3, 3]


def _vague() -> Statistics:
    """60 million values, of which a hundredth of a per mille is far beyond what is kept."""
    sample, ends = torch.linspace(-1, 1, 6000), torch.linspace(1, 2, TAIL)
    return Statistics(
        minimum=-2.0, maximum=2.0, channel_absmax=torch.full((1,), 2.0), sample=sample,
        count=1_000_000_000, lowest=-ends.flip(0), highest=ends.flip(0),
    )  # fmt: skip


@pytest.mark.parametrize("name", ["int8", "uint8"])
def test_a_percentile_that_is_not_known_is_an_error(name: str) -> None:
    with pytest.raises(StateError, match="of an end and a sample of the others"):
        static_state(quantizer(f"{name}:percentile99.99:static"), _vague())
    for known in ("percentile99.0", "percentile99.9999", "percentile100.0", "mse", "absmax"):
        static_state(quantizer(f"{name}:{known}:static"), _vague())


def test_behind_transforms_only_the_sample_tells() -> None:
    with pytest.raises(StateError, match="behind transforms"):
        static_state(quantizer("int8:percentile99.999:static:hadamard(16)"), _vague())
    static_state(quantizer("int8:percentile99.9:static:hadamard(16)"), _vague())


def test_the_error_names_the_site() -> None:
    net = network("convolutional")
    key = next(key for key, site in net.analysis.by_key.items() if site.role == "activation")
    chosen = Assignment.of({key: quantizer("uint8:percentile99.99:static")})
    with pytest.raises(AssignmentError, match=f"site '{key}': uint8:percentile99.99"):
        emulators(chosen, net.analysis.by_key, Calibration(statistics={key: _vague()}))


@pytest.mark.parametrize("name", ["int8", "uint8", "e4m3_tensor", "posit8_1@tensor"])
@pytest.mark.parametrize("statistic", ["mse", "rms", "percentile90.0"])
def test_counts_are_repetitions(name: str, statistic: str) -> None:
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(300, generator=generator) * 3
    counts = torch.randint(1, 6, (300,), generator=generator)
    # A quarter stands for itself, the large ones.
    counts = torch.where(values.abs() > values.abs().quantile(0.75), 1, counts)
    chosen = quantizer(f"{name}:{statistic}:static")
    found = calibrated_state(values, chosen, axes=(0,), counts=counts.double())
    wanted = calibrated_state(values.repeat_interleave(counts), chosen, axes=(0,))
    assert found.scales is not None
    assert wanted.scales is not None
    torch.testing.assert_close(found.scales, wanted.scales, rtol=1e-6, atol=0)


def test_the_range_of_least_error_knows_how_rare_the_largest_are() -> None:
    """Eight of two million are 20 times as large: no sample knows how rare they are."""
    x = _drawn("normal", 2_000_000, 3)
    x[::250_000] = 80.0
    chosen = quantizer("int8:mse:static")
    found = static_state(chosen, _seen(_cut(x, 2)))
    wanted = derived_scales(torch.from_numpy(x).reshape(1, -1), chosen)
    assert found.scales is not None
    assert wanted.scales is not None
    assert found.scales.item() == pytest.approx(wanted.scales.item(), rel=0.05)


def test_ranks_are_those_of_order_statistics() -> None:
    assert [upper_rank(kept, 100) for kept in (1.0, 0.9, 0.5, 0.001)] == [1, 11, 51, 100]
    assert [lower_rank(kept, 100) for kept in (1.0, 0.9, 0.5)] == [1, 10, 51]
