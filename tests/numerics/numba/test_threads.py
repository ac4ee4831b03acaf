"""Work shared by threads."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from dse.numerics import quantize
from dse.numerics.numba.threads import ELEMENTS_PER_THREAD, shared
from hwmodels.formats.catalog import quantizer

NAMES = ("e4m3", "e4m3_tensor", "int8_channel", "mxfp4", "nvfp4", "e4m3:stochastic", "nf4")


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("items", [1, 2, 7, 1000])
def test_every_item_is_done_once(items: int) -> None:
    parts = shared(items, 3 * ELEMENTS_PER_THREAD, range)
    assert sorted(i for part in parts for i in part) == list(range(items))


def test_little_work_stays_in_one_piece() -> None:
    assert shared(1000, ELEMENTS_PER_THREAD, lambda first, last: (first, last)) == [(0, 1000)]


def test_an_error_of_a_part_comes_out() -> None:
    def fail(first: int, last: int) -> None:
        if last == 1000:
            raise ValueError(first)

    with pytest.raises(ValueError, match=r"\d+"):
        shared(1000, 3 * ELEMENTS_PER_THREAD, fail)


@pytest.mark.parametrize("name", NAMES)
def test_threads_change_no_bit(name: str) -> None:
    x = torch.randn(1024, 1024, generator=torch.Generator().manual_seed(0))
    together = quantize(x, quantizer(name), axes=(1,))
    torch.set_num_threads(1)
    assert torch.equal(quantize(x, quantizer(name), axes=(1,)), together)
