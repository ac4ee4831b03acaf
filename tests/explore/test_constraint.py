"""Constraints as users write them."""

import pytest

from dse.errors import SpaceError
from dse.explore.constraint import parse_constraints

COLUMNS = ("latency_s", "weight_bytes", "b200.decode.latency_s")


def test_numbers_and_prefixed_columns_are_read() -> None:
    parsed = parse_constraints(
        ["weight_bytes <= 2e9", "b200.decode.latency_s<=0.01"], COLUMNS, origin="s"
    )
    assert [str(constraint) for constraint in parsed] == [
        "weight_bytes<=2e+09",
        "b200.decode.latency_s<=0.01",
    ]
    assert parsed[0].holds({"weight_bytes": 2e9})
    assert not parsed[0].holds({"weight_bytes": 2.1e9})


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("weight_bytes < 3", "expected '<column><=<number>'"),
        ("weight_byte<=3", "did you mean 'weight_bytes'"),
        ("weight_bytes<=1e", "is not a number"),
        ("latency_s<=fast", "expected"),
    ],
)
def test_others_are_refused_with_their_place(text: str, says: str) -> None:
    with pytest.raises(SpaceError, match=f"^s.yaml: constraints.1: .*{says}"):
        parse_constraints(["latency_s<=1", text], COLUMNS, origin="s.yaml")
