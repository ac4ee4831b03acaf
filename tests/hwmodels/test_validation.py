"""Errors of files: one line a problem, with path, expected, came and nearest name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import pytest
from pydantic import BeforeValidator, Field, TypeAdapter

from hwmodels.validation import INLINE, LONGEST_VALUE, Entry, validated


@dataclass(frozen=True, slots=True, kw_only=True)
class Length(Entry):
    value: Annotated[float, Field(gt=0)]
    unit: Literal["m", "km"] = "m"


def _gathered(content: dict[str, object]) -> dict[str, object]:
    inner = {key: content[key] for key in ("value", "unit") if key in content}
    return {key: content[key] for key in content if key not in inner} | {INLINE: inner}


@dataclass(frozen=True, slots=True, kw_only=True)
class Side(Entry):
    name: str
    length: Annotated[Length, Field(validation_alias=INLINE)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape(Entry):
    sides: Annotated[tuple[Annotated[Side, BeforeValidator(_gathered)], ...], Field(min_length=1)]
    paint: str | Length | None = None
    height: Length | None = None


ADAPTER = TypeAdapter(Shape)
SIDE = {"name": "a", "value": 3}


class WrongError(Exception):
    """What these tests ask for."""


def _lines(content: object) -> list[str]:
    with pytest.raises(WrongError) as raised:
        validated(ADAPTER, content, "x.yaml", WrongError)
    return str(raised.value).splitlines()


def test_content_that_fits_is_the_record() -> None:
    found = validated(ADAPTER, {"sides": [SIDE], "paint": "red"}, "x.yaml", WrongError)
    assert found.sides[0].length == Length(value=3.0)
    assert found.paint == "red"


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ({}, "sides: missing; it is required"),
        ({"sides": []}, "sides: expected at least 1 entry, got 0"),
        ({"sides": [SIDE | {"value": -1}]}, "sides.0.value: expected greater than 0, got -1"),
        ({"sides": [{"name": "a"}]}, "sides.0.value: missing; it is required"),
        (
            {"sides": [SIDE | {"unit": "kn"}]},
            "sides.0.unit: expected 'm' or 'km', got 'kn'; did you mean 'km'?",
        ),
        (
            {"sides": [SIDE | {"vlaue": 2}]},
            "sides.0.vlaue: unknown key; did you mean 'value'? (known: name, value, unit)",
        ),
        (
            {"sides": [SIDE], "hight": 3},
            "hight: unknown key; did you mean 'height'? (known: sides, paint, height)",
        ),
        (
            {"sides": [SIDE], "height": {"value": 1, "unti": "m"}},
            "height.unti: unknown key; did you mean 'unit'? (known: value, unit)",
        ),
        ({"sides": [SIDE], "paint": {"value": 0}}, "paint.value: expected greater than 0, got 0"),
        (
            {"sides": [SIDE], "height": 3},
            "height: expected a mapping with the keys value, unit, got 3",
        ),
        ([1], "expected a mapping with the keys sides, paint, height, got a list of 1"),
    ],
)
def test_one_problem_is_one_line(content: object, line: str) -> None:
    assert _lines(content) == [f"x.yaml: {line}"]


def test_all_problems_come_at_once_in_the_order_of_the_record() -> None:
    lines = _lines({"sides": [{"value": "x"}], "height": {"unit": "m"}, "colour": 1})
    assert [line.split(": ")[1] for line in lines] == [
        "sides.0.name",
        "sides.0.value",
        "height.value",
        "colour",
    ]


def test_a_long_value_is_shortened() -> None:
    (line,) = _lines({"sides": [SIDE], "height": {"value": "x" * 10_000}})
    assert len(line) < LONGEST_VALUE + 150
    assert line.endswith("...")
