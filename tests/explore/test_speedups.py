"""Speed-ups of records: who is compared with whom, and how sure that is."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from dse.explore.problem.records import Record
from dse.explore.speedups import costs_less, point_speedups
from dse.run.entries import PointSpeedup

ERRORS = np.array([[0.3, 0.4], [0.3, 0.0], [0.0, 0.0]])
"""Of the three records below, in units of half-widths."""
LATENCIES = (2.0, 1.0, 0.99)
Found = Mapping[tuple[str, int, str, int], PointSpeedup]


def record(trial: int, source: str, told: tuple[str, ...] = (), **costs: float) -> Record:
    costs = {name.replace("__", "."): value for name, value in costs.items()}
    return cast(
        "Record",
        SimpleNamespace(
            trial=trial, source=source, point=(trial,), costs=costs, measured_outside=told
        ),
    )


def found(records: list[Record], *labels: str, quantity: str = "latency_s") -> Found:
    """Of a front that lacks the first record."""
    columns = [f"{label}.{quantity}" for label in labels] or [quantity]
    costs = SimpleNamespace(
        targets=[SimpleNamespace(label=label) for label in labels or ("here",)],
        latency_errors=lambda points, served: {
            column: ERRORS[[point[0] for point in points]] for column in columns
        },
    )
    design: Any = SimpleNamespace(costs=costs, objectives=SimpleNamespace(costs=columns))
    entries = point_speedups(design, records, records[1:])
    return {(one.column, one.trial, one.base_column, one.base): one for one in entries}


def half(one: PointSpeedup) -> float:
    return math.log(one.high / one.speedup)


def test_a_front_is_compared_with_the_reference_and_with_its_neighbours() -> None:
    records = [
        record(trial, source, latency_s=latency)
        for trial, (source, latency) in enumerate(
            zip(("reference", "sampler", "sampler"), LATENCIES, strict=True)
        )
    ]
    pairs = found(records)
    key = "latency_s"
    assert set(pairs) == {(key, 1, key, 0), (key, 2, key, 0), (key, 2, key, 1)}
    assert pairs[key, 1, key, 0].speedup == pytest.approx(2.0)
    assert half(pairs[key, 1, key, 0]) == pytest.approx(0.4)
    assert half(pairs[key, 2, key, 0]) == pytest.approx(0.5)
    assert half(pairs[key, 2, key, 1]) == pytest.approx(0.3)
    assert pairs[key, 2, key, 1].found.is_tied


def told(*records: Record, column: str = "latency_s") -> bool:
    costs = SimpleNamespace(
        latency_errors=lambda points, served: {"latency_s": ERRORS[[one[0] for one in points]]}
    )
    objectives = SimpleNamespace(costs=tuple(dict.fromkeys(("latency_s", column))))
    return costs_less(cast("Any", SimpleNamespace(costs=costs, objectives=objectives)), *records)


def test_a_cost_is_less_where_the_interval_of_both_excludes_one() -> None:
    slow, fast, near = (record(n, "sampler", latency_s=one) for n, one in enumerate(LATENCIES))
    assert told(fast, slow)  # 2.0 in the error of 0.4
    assert not told(slow, fast)
    assert not told(near, fast)  # 1.01 in the error of 0.3
    small, large = (
        record(n + 1, "sampler", latency_s=one, weight_bytes=size)
        for n, (one, size) in enumerate(((1.0, 5.0), (0.99, 5.1)))
    )
    assert told(small, large, column="weight_bytes")  # bytes are exact
    assert not told(large, small, column="weight_bytes")
    measured = record(2, "sampler", ("latency_s",), latency_s=0.99)
    assert told(measured, record(1, "sampler", ("latency_s",), latency_s=1.0))


def test_a_latency_that_was_measured_has_no_error_of_its_own() -> None:
    told = ("latency_s",)
    records = [record(0, "reference", told, latency_s=2.0), record(1, "sampler", latency_s=1.0)]
    (one,) = found(records).values()
    assert half(one) == pytest.approx(0.3)
    records[1] = record(1, "sampler", told, latency_s=1.0)
    (one,) = found(records).values()
    assert (one.low, one.speedup, one.high) == (2.0, 2.0, 2.0)


def test_errors_of_two_targets_have_nothing_in_common() -> None:
    costs = {"a__latency_s": 2.0, "b__latency_s": 3.0}
    pairs = found([record(0, "uniform", (), **costs), record(1, "sampler", (), **costs)], "a", "b")
    one = pairs["a.latency_s", 1, "b.latency_s", 0]
    assert one.speedup == pytest.approx(1.5)
    assert half(one) == pytest.approx(math.hypot(0.3, 0.5))


def test_costs_of_an_objective_are_compared_between_targets_as_latencies_are() -> None:
    costs = {"a__load_cost_per_mtok": 2.0, "b__load_cost_per_mtok": 3.0}
    records = [record(0, "uniform", (), **costs), record(1, "sampler", (), **costs)]
    pairs = found(records, "a", "b", quantity="load_cost_per_mtok")
    one = pairs["a.load_cost_per_mtok", 1, "b.load_cost_per_mtok", 0]
    assert one.speedup == pytest.approx(1.5)
    assert half(one) == pytest.approx(math.hypot(0.3, 0.5))


@pytest.mark.parametrize("latency", [0.0, math.inf])
def test_what_takes_no_time_or_has_none_is_not_compared(latency: float) -> None:
    records = [record(0, "reference", latency_s=2.0), record(1, "sampler", latency_s=latency)]
    assert not found(records)
