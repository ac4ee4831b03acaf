"""Elements spelled out with their parameters, in names and in Python."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from hwmodels.errors import FormatError
from hwmodels.formats import catalog
from hwmodels.formats.constructor import CONSTRUCTORS, codebook, floating
from hwmodels.formats.encodings import ENCODINGS
from hwmodels.formats.names import quantizer_object
from hwmodels.formats.numbers import sorted_values


@pytest.mark.parametrize(
    ("spelled", "named"),
    [
        ("float(e=3, m=2)", "e3m2"), ("float(4,3)", "e4m3"), ("posit(8, 1)", "posit8_1"),
        ("posit(bits=9, es=2)", "posit9_2"), ("int(5)", "int5"),
        ("int(5, symmetric=False)", "int5a"),
        ("int(4, signed=False)", "uint4"), ("fixed(10, fraction=6)", "fixed10_6"),
        ("lns(8, 3)", "lns8_3"),
    ],
)  # fmt: skip
def test_what_has_a_name_is_the_same_element(spelled: str, named: str) -> None:
    assert catalog.quantizer(f"{spelled}@channel").format.element == (
        catalog.quantizer(f"{named}@channel").format.element
    )


def test_parameters_of_a_float_decide_its_values() -> None:
    made = catalog.format("float(e=4, m=3, bias=11, specials=fnuz)").element
    theirs = np.arange(256, dtype=np.uint8).view(ml_dtypes.float8_e4m3b11fnuz).astype(np.float64)
    assert list(sorted_values(made)) == sorted(set(theirs[np.isfinite(theirs)]))
    assert floating(3, 2).specials == "ieee"
    assert catalog.format("float(e=3, m=2)").element == ENCODINGS["e3m2"]


def test_a_codebook_has_its_values_in_as_few_bits() -> None:
    made = codebook(1, -1, 0.25, 0, 0.5)
    assert (made.codes, made.bits) == ((-1.0, 0.0, 0.25, 0.5, 1.0), 3)
    assert catalog.quantizer("codebook(1, -1, 0.25, 0, 0.5)@g64/fp16").format.element == made


@pytest.mark.parametrize(
    "name",
    ["float(e=3, m=2, bias=2)@g32/e8m0", "posit(8, 1)", "codebook(-1, 0, 1, 2)@g64/fp16:mse",
     "int(6)@channel:static"],
)  # fmt: skip
def test_a_spelled_out_name_is_read_back(name: str) -> None:
    found = catalog.quantizer(name)
    assert catalog.quantizer(found.name) == found
    assert catalog.quantizer(quantizer_object(found)) == found


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("float(e=12, m=2)", "e: expected a whole number from 2 to 8, got 12"),
        ("float(e=3)", "missing a required argument: 'm'"),
        ("float(e=3, m=2, specials=ocp)", "specials: expected one of ieee"),
        ("posti(8, 1)", "did you mean 'posit'"),
        ("posit(8, x)", "es: expected a whole number from 0 to 7, got 'x'"),
        ("codebook(1, 1)", "2 to 256 different numbers"),
        ("codebook(a, b)", "2 to 256 different numbers"),
    ],
)
def test_wrong_arguments_are_refused_with_what_was_expected(name: str, says: str) -> None:
    with pytest.raises(FormatError, match=says):
        catalog.quantizer(name)


def test_every_constructor_is_documented() -> None:
    assert all(make.__doc__ for make in CONSTRUCTORS.values())
