"""Prices of methods: narrower is faster, and rounding costs nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from dse.errors import SpaceError
from dse.training.load import load_method
from dse.training.search.cost import StepPrices, open_prices
from dse.training.search.schema import StepModel
from tests.training.search.spaces import problem

LLAMA = StepModel(model="zoo:llama-3-8b", dims={"batch": 1, "sequence": 2048, "past": 0})


@pytest.fixture(scope="module")
def prices() -> StepPrices:
    return open_prices(LLAMA, "b200-sxm", None, origin="SPACE.yaml", folder=Path())


def test_a_step_falls_as_formats_narrow(prices: StepPrices) -> None:
    found = problem()
    steps = [
        prices.of(found.point({**found.start.choices, "wgrad_grid": grid}).method).step_s
        for grid in ("bf16", "mxfp8", "e2m1")
    ]
    assert steps == sorted(steps, reverse=True)
    assert len(set(steps)) == 3
    assert prices.of(load_method("bf16")).step_s > steps[0]


def test_rounding_is_priced_once(prices: StepPrices) -> None:
    found = problem()
    turned = found.point({**found.start.choices, "fprop_activation": "four over six"})
    assert prices.of(turned.method) is prices.of(found.start.method)


def test_sizes_that_are_missing_are_named() -> None:
    lacking = StepModel(model="zoo:llama-3-8b", dims={"batch": 1})
    with pytest.raises(SpaceError, match=r"cost\.dims: expected a value for .*sequence"):
        open_prices(lacking, "b200-sxm", None, origin="SPACE.yaml", folder=Path())
