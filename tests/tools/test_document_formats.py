"""docs/formats.md is what the catalogue says."""

from __future__ import annotations

import math

import pytest

from tools.document_formats import DOCUMENT, document, exactly


def test_the_page_is_up_to_date():
    assert DOCUMENT.read_text(encoding="utf-8") == document(), (
        "run: python -m tools.document_formats"
    )


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (448, "448"), (2**-9, "2^-9"), (1.75, "7 x 2^-2"), (7.5, "15 x 2^-1"), (0.0, "0"),
        (2.0**127, "2^127"), (-6, "-6"), (math.pi, "3.141592653589793"),
    ],
)  # fmt: skip
def test_numbers_are_exact(value, text):
    assert exactly(value) == text
