"""A first look ends what is clearly worse, and changes nothing of what goes on."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dse.evaluate.evaluator import Evaluator
from dse.evaluate.hurdle import Hurdle, first_rows
from dse.evaluate.metric import Metric
from dse.evaluate.quality import SEPARATED, Quality
from dse.explore.measure.session import Session, prepare
from dse.graph.ir.assignment import Assignment
from dse.space.load import load_space
from tests.explore import metrics

SMOKE = Path("spaces/smoke.yaml")


@pytest.mark.parametrize(
    ("samples", "batch", "share", "rows"),
    [
        (16, 4, 0.25, (8, 9, 10, 11)),
        (16, 2, 0.5, (2, 3, 6, 7, 10, 11, 14, 15)),
        (9, 4, 0.34, (4, 5, 6, 7)),
        (10, 4, 0.99, (0, 1, 2, 3, 8, 9)),
        (8, 4, 0.01, (4, 5, 6, 7)),
        (4, 4, 0.5, ()),
    ],
)
def test_first_samples_are_whole_batches_spread_over_the_split(
    samples: int, batch: int, share: float, rows: tuple[int, ...]
) -> None:
    assert first_rows(samples, batch, share) == rows


def test_what_a_full_measurement_keeps_is_hardly_ever_given_up() -> None:
    """Populations whose true difference is what the full test just about keeps: the worst case."""
    rng = np.random.default_rng(0)
    rows, whole, given_up = first_rows(32, 4, 0.25), 32, 0
    for _ in range(2000):
        rival = rng.gamma(2.0, size=whole)
        gaps = rng.normal(size=whole)
        gaps = (gaps - gaps.mean()) / gaps.std(ddof=1) + SEPARATED / math.sqrt(whole)
        losses = (rival + gaps)[list(rows)]
        given_up += not Hurdle(rows=rows, rival=tuple(rival)).clears(losses)
    assert given_up <= 8  # 2,000 x MISTAKEN is 2.7


def test_what_is_clearly_worse_does_not_clear() -> None:
    rival = np.linspace(0.1, 0.4, 16)
    hurdle = Hurdle(rows=tuple(range(8)), rival=tuple(rival))
    worse = rival[:8] * 1.5
    assert not hurdle.clears(tuple(worse))
    assert hurdle.estimate(tuple(worse)) == pytest.approx(rival.mean() + 0.5 * rival[:8].mean())
    assert hurdle.clears(tuple(rival[:8] * 0.9))
    assert hurdle.clears(tuple(rival[:8] + np.linspace(-0.1, 0.15, 8)))


def test_without_a_spread_nothing_is_concluded() -> None:
    assert Hurdle(rows=(0, 1), rival=(0.5,) * 8).clears((1.0, 1.0))
    assert Hurdle(rows=(0,), rival=(0.5,) * 8).clears((9.0,))


def test_an_infinite_loss_ends_it_at_once() -> None:
    assert not Hurdle(rows=(0, 1), rival=(0.5,) * 8).clears((math.inf, 0.1))


@pytest.fixture(scope="module")
def sessions() -> dict[str, Session]:
    """The smoke space, judged by divergence and by a user's metric, four batches a split.

    Evaluators keep no values, so that an assignment costs as much again.
    """
    space = load_space(SMOKE)
    data = space.data.model_copy(update={"batch": 8})
    space = space.model_copy(update={"data": data})
    user = Metric(function=metrics.fidelity)
    found = {
        name: prepare(space, origin="smoke", folder=SMOKE.parent, metric=metric)
        for name, metric in (("divergence", None), ("user", user))
    }
    return {
        name: replace(session, evaluator=replace(session.evaluator, trace_bytes=0))
        for name, session in found.items()
    }


def measured(
    evaluator: Evaluator, assignment: Assignment, hurdle: Hurdle | None
) -> tuple[Quality, int]:
    """A quality, and the MACs it took."""
    evaluator.forward_macs("search")
    before = evaluator.macs
    quality = evaluator.measure(assignment, hurdle=hurdle)
    return quality, evaluator.macs - before


@pytest.mark.parametrize("judged_by", ["divergence", "user"])
def test_a_cleared_hurdle_changes_no_bit_and_costs_nothing(
    sessions: dict[str, Session], judged_by: str
) -> None:
    session = sessions[judged_by]
    assignment = session.design.problem.assignment(session.design.problem.uniforms["w4a4_nvfp4"])
    plain, effort = measured(session.evaluator, assignment, None)
    hurdle = Hurdle(rows=first_rows(32, 8, 0.5), rival=(9.0,) * 32)
    again, same = measured(session.evaluator, assignment, hurdle)
    assert repr(again) == repr(plain)  # NaN equals nothing
    assert same == effort


@pytest.mark.parametrize("judged_by", ["divergence", "user"])
def test_a_hurdle_that_is_not_cleared_leaves_the_first_samples(
    sessions: dict[str, Session], judged_by: str
) -> None:
    session = sessions[judged_by]
    assignment = session.design.problem.assignment(session.design.problem.uniforms["w4a4_nvfp4"])
    plain, effort = measured(session.evaluator, assignment, None)
    better = tuple(loss - 1 - 1e-3 * row for row, loss in enumerate(plain.losses))
    rows = first_rows(32, 8, 0.25)
    part, less = measured(session.evaluator, assignment, Hurdle(rows=rows, rival=better))
    assert part.losses == tuple(plain.losses[row] for row in rows)
    assert part.samples == len(rows)
    assert less == pytest.approx(effort / 4)
