"""The page on trust quotes warnings that exist, and links to what is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "trust.md").read_text(encoding="utf-8")
WARNINGS = PAGE.split("## What the warnings mean")[1]
CONSTANT_PARTS = (
    "taken for",
    "as nothing says",
    "is not counted",
    "is left out",
    "no measured output is reached from",
    "the loss is the same for every choice of",
    "answers the same to every",
    "nothing of the network is left",
    "weights that hold NaN or Inf",
    "quantized already, left as it is",
    "runs no candidate natively there",
    "of the work is native",
    "products of 8-bit integers",
    "values fall below it",
)
"""Of the messages that the table quotes, as the program has them."""


@pytest.fixture(scope="module")
def source() -> str:
    files = [*(ROOT / "dse").rglob("*.py"), *(ROOT / "hwmodels").rglob("*.py")]
    text = " ".join(path.read_text(encoding="utf-8") for path in files)
    # A message may be broken into several literals.
    return re.sub(r'"\s*f?"', "", text)


@pytest.mark.parametrize("part", CONSTANT_PARTS)
def test_a_warning_that_it_explains_is_one_of_the_programs(part: str, source: str) -> None:
    assert part.removeprefix("as ") in source


def test_every_explained_warning_is_held_to_the_program() -> None:
    rows = [line.split("|")[1] for line in WARNINGS.splitlines() if line.startswith("| ")][1:]
    assert len(rows) > 10
    assert [row for row in rows if not any(part in row for part in CONSTANT_PARTS)] == []


def test_every_link_and_folder_is_there() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", PAGE)
    folders = re.findall(r"`((?:tests|hwmodels)/[a-z_./]+)`", PAGE)
    assert len(links) > 4
    assert [one for one in links if not (ROOT / "docs" / one).exists()] == []
    assert [one for one in folders if not (ROOT / one).exists()] == []
