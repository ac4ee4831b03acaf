"""Codes of points stand for tuples of choice indices."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from dse.explore.solve.points import decoded, encoded

POINTS = st.lists(
    st.tuples(*[st.integers(0, 70_000)] * 3), min_size=1, max_size=8
)  # more than two bytes hold


@given(POINTS)
def test_codes_sort_as_points_do_and_are_read_back(points: list) -> None:
    ordered = sorted(encoded(np.array(points)))
    assert [tuple(row) for row in decoded(ordered, 3).tolist()] == sorted(points)
