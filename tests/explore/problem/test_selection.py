"""Who is decided on the report split, who is on the front, and what counts as tied."""

from dataclasses import replace

import numpy as np
import pytest

from dse.explore.problem.constraint import parse_constraints
from dse.explore.problem.objectives import Objectives
from dse.explore.problem.records import Record
from dse.explore.problem.selection import (
    contenders,
    front_indices,
    runnable,
    tied_with_uniform,
)
from tests.explore.records import record_of

OBJECTIVES = Objectives(costs=("latency_s",))


def _all(records: list[Record]) -> np.ndarray:
    return np.ones(len(records), dtype=bool)


def test_a_paired_difference_decides_where_the_losses_own_noise_would_not() -> None:
    noisy = [0.1, 0.2, 0.4, 0.8]
    records = [
        record_of(0, noisy, 1.0),
        record_of(1, [loss * 1.05 for loss in noisy], 1.0),
        record_of(2, [0.11, 0.19, 0.42, 0.79], 1.0),
        record_of(3, [loss * 2 for loss in noisy], 2.0, source="uniform"),
    ]
    assert contenders(records, OBJECTIVES, feasible=_all(records)) == [0, 2, 3]


def test_what_violates_a_constraint_is_no_contender_and_beats_nobody() -> None:
    records = [record_of(0, [0.1, 0.1], 1.0), record_of(1, [0.2, 0.3], 1.0)]
    feasible = np.array([False, True])
    assert contenders(records, OBJECTIVES, feasible=feasible) == [1]


def test_the_front_is_decided_on_the_report_split() -> None:
    records = [
        record_of(0, [0.1, 0.1], 1.0, report=[0.3, 0.3]),
        record_of(1, [0.2, 0.2], 1.0, report=[0.2, 0.2]),
        record_of(2, [0.01, 0.01], 2.0),
        record_of(3, [0.3, 0.3], 0.5, report=[0.4, 0.4]),
    ]
    assert front_indices(records, OBJECTIVES, feasible=_all(records)) == [3, 1]


@pytest.mark.parametrize(("uniform", "tied"), [([0.11, 0.19], True), ([0.2, 0.31], False)])
def test_a_point_within_the_noise_of_a_cheaper_uniform_is_tied(
    uniform: list[float], tied: bool
) -> None:
    point = record_of(0, [0.1, 0.2], 1.0, report=[0.1, 0.2])
    other = record_of(1, uniform, 1.0, source="uniform", report=uniform)
    assert tied_with_uniform(point, [point, other], OBJECTIVES) is tied


def _native(trial: int, **shares: float) -> Record:
    columns = {f"{name}.native_share": share for name, share in shares.items()}
    record = record_of(trial, [0.1, 0.2], 1.0)
    return replace(record, costs={**record.costs, **columns})


def test_what_every_target_runs_natively_is_recommended_first() -> None:
    front = [_native(0, a=1.0, b=1.0), _native(1, a=1.0, b=0.9), _native(2, a=1.0, b=1.0)]
    assert [record.trial for record in runnable(front, ())] == [0, 2]
    assert [record.trial for record in runnable(front[1:2], ())] == [1]


def test_a_bound_on_the_native_share_says_how_much_is_enough() -> None:
    front = [_native(0, a=1.0), _native(1, a=0.9)]
    (bound,) = parse_constraints(["native_share>=0.5"], ["native_share"], origin="s")
    assert runnable(front, [bound]) == front
