"""`dse evaluate --accumulator`."""

from __future__ import annotations

import json

import pytest

from tests.cli.conftest import Dse

FASHION = ("evaluate", "zoo:fashion-resnet", "--samples", "8", "--format")


def test_a_narrow_accumulator_loses_and_a_wide_one_does_not(dse: Dse) -> None:
    def loss(*more: str) -> float:
        (row,) = json.loads(dse(*FASHION, "int8", *more, "--json").out)
        return row["loss"]

    plain, wide = loss(), loss("--accumulator", "int32")
    assert wide == pytest.approx(plain, rel=0.1)  # the order of a sum moves what lies on a border
    assert loss("--accumulator", "int12:saturate") > 10 * plain


def test_products_that_keep_their_sums_are_counted(dse: Dse) -> None:
    outcome = dse(*FASHION, "w4a16", "--accumulator", "fp16:chunk16")
    assert outcome.code == 0
    assert "keep float32 sums" not in outcome.err


@pytest.mark.parametrize(
    ("words", "said"),
    [(("int8", "--accumulator", "int99"), "4 to 48 bits"),
     (("w4a16", "--accumulator", "int16"), "no product can take it"),
     (("int8", "--accumulator", "quire"), "a quire is not emulated")],
)  # fmt: skip
def test_what_cannot_be_is_an_error(dse: Dse, words: tuple[str, ...], said: str) -> None:
    outcome = dse(*FASHION, *words)
    assert outcome.code == 2
    assert said in outcome.err
