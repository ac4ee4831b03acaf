"""Searches in which nothing is to be told apart, or something cannot be run at all."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dse.errors import InfeasibleError
from dse.evaluate.costs import Costs
from dse.evaluate.metric import Metric, Run
from dse.explore.loop import run
from dse.explore.measure.session import Session, prepare
from dse.explore.solve.surrogate import Surrogate
from dse.explore.study.front_sampler import FrontSampler
from dse.report.html import write_report
from dse.report.records import front_rows
from dse.space.load import load_space
from dse.space.schema import Match, Rule, Space, Target
from dse.zoo.split import Split
from tests.explore.synthetic import Truth, synthetic_problem, synthetic_task

SMOKE = Path("spaces/smoke.yaml")
FORMATS = ("bf16", "w8a8_fp8", "w4a4_nvfp4")


def nothing_lost(run: Run, data: Split) -> np.ndarray:
    assert data.labels is not None
    return np.ones(len(data.labels))


def small(use: tuple[str, ...] = FORMATS, **changes: object) -> Space:
    space = load_space(SMOKE)
    few = {"calibration": 8, "search": 8, "report": 8, "batch": 8}
    return space.model_copy(
        update={
            "data": space.data.model_copy(update=few),
            "candidates": (
                Rule(match=Match(name="blocks.[0-1]/*"), use=use),
                Rule(use=("bf16",)),
            ),
            "search": space.search.model_copy(update={"trials": 6, "sensitivity_samples": 8}),
            **changes,
        }
    )


def session(space: Space) -> Session:
    metric = Metric(function=nothing_lost, name="nothing")
    return prepare(space, origin="smoke", folder=SMOKE.parent, metric=metric)


class Endless:
    """Costs of a target that cannot run one format: what takes it never ends."""

    def __init__(self, costs: Costs, name: str) -> None:
        self._costs = costs
        self._name = name

    def __getattr__(self, attribute: str) -> object:
        return getattr(self._costs, attribute)

    def _takes(self, point: object) -> bool:
        return self._name in self._costs.problem.choices(point)  # type: ignore[arg-type]

    def total(self, point: object) -> Mapping[str, float]:
        row = self._costs.total(point)  # type: ignore[arg-type]
        return {**row, "latency_s": math.inf} if self._takes(point) else row

    def totals(self, points: np.ndarray, columns: list[str]) -> np.ndarray:
        table = self._costs.totals(points, columns)
        table[[self._takes(point) for point in points.tolist()]] = np.inf
        return table

    def additive(self, column: str) -> tuple[np.ndarray, ...]:
        parts = tuple(entries.copy() for entries in self._costs.additive(column))
        for entries, variable in zip(parts, self._costs.problem.variables, strict=True):
            place = variable.index(self._name)
            if place is not None:
                entries[place] = np.inf
        return parts


def endless(prepared: Session, name: str) -> Session:
    costs = Endless(prepared.design.costs, name)
    return replace(prepared, design=replace(prepared.design, costs=costs))  # type: ignore[arg-type]


def test_one_choice_a_region_is_a_front_of_one(tmp_path: Path) -> None:
    front = run(session(small(("bf16",))), tmp_path / "run")
    assert [record.name for record in front] == ["bf16"]
    write_report(tmp_path / "run")


@pytest.mark.parametrize("method", ["front", "nsga2", "tpe"])
def test_where_nothing_is_lost_the_cheapest_is_the_front(tmp_path: Path, method: str) -> None:
    space = small()
    search = space.search.model_copy(update={"method": method})
    front = run(session(space.model_copy(update={"search": search})), tmp_path / "run")
    trials = pd.read_csv(tmp_path / "run" / "trials.csv")
    assert (trials.quality_loss == 0).all()
    assert [record.costs["latency_s"] for record in front] == [trials.latency_s.min()]
    write_report(tmp_path / "run")


def test_where_nothing_is_lost_on_several_targets_a_cost_may_be_nothing_too(
    tmp_path: Path,
) -> None:
    targets = (
        Target(device="h100-sxm", runtime="free"),
        Target(device="mi300x", runtime="free"),
    )
    space = small(targets=targets, objectives=("quality_loss", "kv_bytes"))
    assert run(session(space), tmp_path / "run")
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert manifest["status"] == "complete"
    assert front_rows(tmp_path / "run")


def test_what_a_target_cannot_run_is_on_no_front(tmp_path: Path) -> None:
    front = run(endless(session(small()), "w4a4_nvfp4"), tmp_path / "run")
    assert front
    assert all(math.isfinite(record.costs["latency_s"]) for record in front)
    trials = pd.read_csv(tmp_path / "run" / "trials.csv")
    assert np.isinf(trials.latency_s).sum() == 1  # the uniform, which is always measured
    write_report(tmp_path / "run")


def test_a_target_that_can_run_nothing_is_told_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(InfeasibleError, match=r"no point on the front.*latency_s is infinite"):
        run(endless(session(small()), "bf16"), tmp_path / "run")


def test_scores_of_nothing_are_corrected_by_what_is_measured() -> None:
    surrogate = Surrogate(losses=(np.zeros(3), np.zeros(3)))
    points = np.array([[0, 0], [1, 0], [2, 1]])
    fitted = surrogate.refitted(points, [0.0, 0.1, 0.4])
    predicted = fitted.predict(points)
    assert np.isfinite(predicted).all()
    assert predicted[2] > predicted[1] > predicted[0]


def test_a_proposal_needs_no_finite_point() -> None:
    problem = synthetic_problem(3)
    sampler = FrontSampler(synthetic_task(problem, Truth(problem), 0))
    points = np.array(list(problem.uniforms.values()))
    values = np.full((len(points), 2), np.inf)
    point = sampler.proposal(points, values, [], [])
    assert point not in {tuple(known) for known in points.tolist()}
