"""Dominance and hypervolume laws, against counting by hand."""

import moocore
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dse.explore.solve.front import hypervolume, improvements, knee, nondominated

POINTS = st.lists(
    st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=12
)


@given(POINTS)
def test_a_front_has_no_dominated_point_and_dominates_the_rest(points: list) -> None:
    values = np.array(points, dtype=float)
    mask = nondominated(values)
    front = values[mask]
    for row in front:
        assert not ((front <= row).all(axis=1) & (front < row).any(axis=1)).any()
    for row in values[~mask]:
        assert (front <= row).all(axis=1).any()


@given(POINTS)
def test_hypervolume_counts_unit_cells(points: list) -> None:
    values = np.array(points, dtype=float)
    cells = np.stack(np.meshgrid(*[np.arange(10)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    inside = np.all(values[None] <= cells[:, None], axis=2)
    covered = np.any(inside, axis=1).sum()
    assert hypervolume(values, np.full(3, 10.0)) == pytest.approx(covered)


def test_points_beyond_the_reference_count_nothing() -> None:
    assert hypervolume(np.array([[2.0, 2.0]]), np.array([1.0, 1.0])) == 0.0


def test_improvement_is_what_a_point_adds_alone() -> None:
    front = np.array([[0.0, 1.0], [1.0, 0.0]])
    candidates = np.array([[0.5, 0.5], [1.0, 1.0]])
    assert improvements(candidates, front, np.array([2.0, 2.0])).tolist() == [0.25, 0.0]


@given(POINTS, POINTS)
def test_improvement_of_two_objectives_is_the_difference_of_hypervolumes(
    points: list, candidates: list
) -> None:
    front, wanted = (np.array(rows, dtype=float)[:, :2] for rows in (points, candidates))
    reference = np.array([7.0, 8.0])
    inside = front[(front < reference).all(axis=1)]
    before = moocore.hypervolume(inside, ref=reference) if len(inside) else 0.0
    for row, added in zip(wanted, improvements(wanted, front, reference), strict=True):
        with_row = np.vstack([inside, row[None][(row < reference).all()[None]]])
        after = moocore.hypervolume(with_row, ref=reference) if len(with_row) else 0.0
        assert added == pytest.approx(after - before)


def test_knee_is_the_bend() -> None:
    assert knee(np.array([[0.0, 10.0], [1.0, 1.0], [10.0, 0.0]])) == 1
    assert nondominated(np.zeros((0, 2))).tolist() == []
