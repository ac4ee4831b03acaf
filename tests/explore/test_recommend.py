"""The star on a front: the knee, unless it costs no less than what loses least."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

from dse.explore.problem.objectives import Objectives
from dse.explore.problem.records import Record
from dse.explore.recommend import recommend
from tests.explore.records import record_of

LOW, MIDDLE, HIGH = [0.010, 0.011, 0.012], [0.030, 0.031, 0.032], [0.150, 0.151, 0.152]


def recommended(front: list[Record], *, error: float) -> tuple[int, str]:
    """Trial and reason; latencies of neighbours are known to a factor of e^error."""
    costs = SimpleNamespace(
        latency_errors=lambda points, served: {
            "latency_s": np.array([[error * place] for (place,) in points])
        }
    )
    design: Any = SimpleNamespace(
        costs=costs, objectives=Objectives(costs=("latency_s",)), constraints=()
    )
    record, why = recommend(design, front)
    return record.trial, why


def of(trial: int, losses: list[float], latency: float) -> Record:
    return record_of(trial, losses, latency, report=losses)


def test_what_gains_nothing_that_is_told_apart_is_not_recommended() -> None:
    """Two points: the knee is the first of them, at ten times the loss."""
    front = [of(0, HIGH, 7.77), of(1, LOW, 7.79)]
    assert recommended(front, error=0.1) == (
        1, "least loss of the front's 2 points: the knee, #0, loses more, and is not told apart "
        "from it in cost",
    )  # fmt: skip
    trial, why = recommended(front, error=0.001)
    assert trial == 0
    assert why.startswith("knee of the front: least sum of report_quality_loss and latency_s")


def test_the_knee_is_recommended_where_its_gain_is_told_apart() -> None:
    front = [of(0, HIGH, 4.0), of(1, MIDDLE, 4.2), of(2, LOW, 8.0)]
    assert recommended(front, error=0.3)[0] == 1
    assert recommended(front, error=1.0)[0] == 2


def test_what_loses_less_within_the_noise_is_no_reason() -> None:
    front = [of(0, [0.0, 0.3, 0.0], 7.77), of(1, [0.0, 0.0, 0.29], 7.79)]
    assert recommended(front, error=0.5)[0] == 0
