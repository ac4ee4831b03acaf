from __future__ import annotations

import pytest

from dse.run.scheme import colours, formats_phrase, short_names
from hwmodels.formats.catalog import SCHEMES


@pytest.mark.parametrize(
    ("choices", "names"),
    [
        (["bf16", "w8a8_fp8_dynamic", "w4a4_nvfp4"], ["bf16", "fp8", "nvfp4"]),
        (["w8a8_fp8", "w8a8_fp8_dynamic"], ["fp8", "fp8_dynamic"]),
        (["w4a16", "w4a8_fp8", "w8a8_fp8"], ["w4a16", "w4a8_fp8", "fp8"]),
    ],
)
def test_short_names_drop_what_is_said_twice(choices: list[str], names: list[str]) -> None:
    assert list(short_names(choices).values()) == names


def test_all_schemes_keep_distinct_names_and_colours() -> None:
    choices = ["bf16", *SCHEMES]
    assert len(set(short_names(choices).values())) == len(choices)
    assert len(set(colours(choices).values())) == len(choices)


def test_the_most_frequent_format_comes_first() -> None:
    assert formats_phrase(["bf16", "nvfp4", "nvfp4"]) == "nvfp4 2, bf16 1"
