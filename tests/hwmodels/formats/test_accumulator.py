"""Names of accumulators."""

from __future__ import annotations

import pytest

from hwmodels.errors import FormatError, UnknownFormatError
from hwmodels.formats.accumulator import ACCUMULATORS, Accumulator, accumulator


def test_known_names_are_the_catalogue():
    for name, entry in ACCUMULATORS.items():
        assert accumulator(name) is entry


def test_widths_and_words_are_spelled_out():
    assert accumulator("int16:saturate:spill128") == Accumulator(
        name="int16:saturate:spill128", kind="integer", bits=16, overflow="saturate",
        promote_every=128,
    )  # fmt: skip
    found = accumulator("e6m9:stochastic:chunk8")
    assert (found.kind, found.rounding, found.chunk) == ("float", "stochastic", 8)
    assert (found.element.exponent_bits, found.element.mantissa_bits) == (6, 9)
    assert found.element.overflow == "inf"
    assert found.stored_bits == 16
    assert accumulator("fp16:saturate").element.overflow == "saturate"
    assert accumulator("int20").stored_bits == 20


@pytest.mark.parametrize(
    ("name", "said"),
    [("int64", "4 to 48 bits"), ("fp17", "did you mean 'fp16'"), ("posit8_1", "expected a float"),
     ("int16:zero", "means nothing here"), ("int16:chunk4", "means nothing here"),
     ("fp16:wrap", "means nothing here"), ("fp16:chunk0", "did you mean 'chunk8'"),
     ("ue4m3", "with a sign")],
)  # fmt: skip
def test_what_means_nothing_is_said(name, said):
    with pytest.raises(UnknownFormatError, match=said):
        accumulator(name)


def test_sums_spill_after_whole_chunks():
    assert accumulator("fp16:chunk8:spill64").promote_every == 64
    with pytest.raises(FormatError, match="whole chunks of 8 products, got 12"):
        accumulator("fp16:chunk8:spill12")
