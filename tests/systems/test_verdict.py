"""Conditions hold where they should and nowhere else."""

from __future__ import annotations

import math

import pytest

from dse.systems.run import result
from dse.systems.schema import Claim, Expectation
from dse.systems.verdict import judged

ROWS = {"a": 1.0, "b": 2.0, "c": 3.0, "zero": 0.0, "none": math.nan}


@pytest.mark.parametrize(
    ("condition", "holds"),
    [
        (Expectation(row="a", value=1.0, within=0.0), True),
        (Expectation(row="a", value=1.2, within=0.1), False),
        (Expectation(row="b", value=1.9, relative=0.1), True),
        (Expectation(row="b", value=1.9, relative=0.01), False),
        (Expectation(row="c", over="b", value=1.5, within=0.0), True),
        (Expectation(row="c", minus="b", at_least=1.0, at_most=1.0), True),
        (Expectation(row="c", at_most=2.9), False),
        (Expectation(row="c", at_least=3.1), False),
        (Expectation(rising=("a", "b", "c")), True),
        (Expectation(rising=("a", "c", "b")), False),
        (Expectation(rising=("a", "a")), False),
        (Expectation(row="none", at_most=1.0), False),
        (Expectation(rising=("a", "none")), False),
        (Expectation(row="a", over="zero", at_least=0.0), False),
    ],
)
def test_a_condition_holds_or_not(condition: Expectation, holds: bool) -> None:
    assert judged(condition, ROWS).holds is holds


def test_both_numbers_are_told() -> None:
    found = judged(Expectation(row="c", over="b", value=1.6, relative=0.1), ROWS)
    assert (found.what, found.found, found.wanted) == ("c / b", "1.5", "1.6 ± 0.16")


def test_a_mean_over_seeds_is_judged_and_its_spread_is_told() -> None:
    options = {"data": {"shape": [4, 64]}, "formats": {"int4": "int4_g32"}}
    claim = Claim(
        says="x", evidence="ours", measure="quantization_error", options=options,
        expect=(Expectation(row="int4", at_most=1.0),), seeds=3,
    )  # fmt: skip
    found = result(claim)
    assert (found.seeds, found.seeds_holding) == (3, 3)
    spread = found.rows["int4"]
    assert spread.low < spread.mean < spread.high
    assert spread.deviation > 0
    assert result(claim, seeds=2).seeds == 2
