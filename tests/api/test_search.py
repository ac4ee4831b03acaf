"""`dse.search`, and what a user's function can do to it."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import numpy as np
import optuna
import pandas as pd
import pytest

import dse
from dse.errors import DataError, InfeasibleError, RunError, SpaceError
from dse.evaluate.metric import Run
from dse.zoo.split import Split
from tests.explore import metrics

FORMATS = ("bf16", "w8a8_fp8", "w4a4_nvfp4")


def samples(count: int = 32) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    images = rng.random((count, 1, 28, 28), dtype=np.float32)
    return {"image": images, "labels": rng.integers(0, 10, count)}


def small(function: object, out: Path, **arguments: object) -> dse.Front:
    """A search of a second or so."""
    space = dse.Space.model_validate(
        {
            "model": "zoo:fashion-resnet",
            "data": {"source": "given", "calibration": 8, "search": 8, "report": 8, "batch": 8},
            "scenario": {"phases": {"frame": {"dims": {"batch": 8}}}},
            "targets": [{"device": "h100-sxm", "runtime": "free"}],
            "candidates": [
                {"match": {"name": "blocks.[0-2]/*"}, "use": list(FORMATS)},
                {"match": {}, "use": ["bf16"]},
            ],
            "search": {"trials": 6, "sensitivity_samples": 8},
        }
    )
    return dse.search(None, space, data=samples(), evaluate=function, out=out, **arguments)  # type: ignore[arg-type]


def test_the_score_decides_the_front(tmp_path: Path) -> None:
    front = small(metrics.fidelity, tmp_path / "run")
    table = pd.read_csv(front.folder / "trials.csv")
    uniform = table[table.name == "bf16"].iloc[0]
    reference = uniform.score + uniform.report_quality_loss
    for point in front:
        assert point["report_quality_loss"] == pytest.approx(reference - point["score"], abs=1e-9)
    assert front.best("latency_s<=1") == min(front, key=lambda p: p["report_quality_loss"])
    assert front.best(f"score>={front[0]['score']}") == front[0]


def test_what_a_metric_raises_or_nan_fails_the_trial_and_the_search_goes_on(
    tmp_path: Path,
) -> None:
    front = small(metrics.Capricious(), tmp_path / "run", trials=12)
    errors = " ".join(front.failures.values())
    assert "ZeroDivisionError: the user's own mistake" in errors
    assert "score: is NaN" in errors
    assert len(front)
    assert not set(front.failures) & {point.trial for point in front}


def test_a_metric_that_fails_in_full_precision_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="full precision: ZeroDivisionError"):
        small(metrics.broken, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_metric_that_only_works_in_full_precision_ends_the_run_with_its_error(
    tmp_path: Path,
) -> None:
    calls: list[int] = []

    def once(run: Run, data: Split) -> np.ndarray:
        calls.append(1)
        if len(calls) > 2:
            raise ZeroDivisionError("again")
        return metrics.fidelity(run, data)

    with pytest.raises(RunError, match="all of 6 trials failed; the first: ZeroDivisionError"):
        small(once, tmp_path / "run")


def test_workers_need_a_function_that_they_can_import(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="top level of a module"):
        small(lambda run, data: 0.0, tmp_path / "run", parallelism=dse.Parallelism(workers=1))


def test_other_data_are_another_run(tmp_path: Path) -> None:
    small(metrics.fidelity, tmp_path / "run")
    with pytest.raises(RunError, match=r"source: was .given:"):
        dse.search(
            None,
            dse.Space.model_validate(
                {
                    "model": "zoo:fashion-resnet",
                    "data": {"source": "given"},
                    "targets": [{"device": "h100-sxm"}],
                    "candidates": [{"use": ["bf16", "w8a8_fp8"]}],
                    "scenario": {"phases": {"frame": {"dims": {"batch": 8}}}},
                }
            ),
            data=samples(40),
            evaluate=metrics.fidelity,
            out=tmp_path / "run",
            resume=True,
        )


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (partial(dse.search, "zoo:fashion-resnet", FORMATS), SpaceError, "give model and data"),
        (partial(dse.search, None, {"modle": "x"}), SpaceError, "modle"),
        (partial(dse.search, None, {}, data={}), SpaceError, "model"),
    ],
)
def test_wrong_arguments_are_refused(call: object, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        call()  # type: ignore[operator]


def test_a_constraint_that_no_point_keeps_is_told_with_what_there_is(tmp_path: Path) -> None:
    front = small(metrics.fidelity, tmp_path / "run", trials=3)
    with pytest.raises(InfeasibleError, match="latency_s from"):
        front.best("latency_s<=1e-12")
    with pytest.raises(SpaceError, match="did you mean 'latency_s'"):
        front.best("latancy_s<=1")


def test_a_sampler_of_ones_own_proposes_and_is_named_in_the_manifest(tmp_path: Path) -> None:
    sampler = optuna.samplers.NSGAIISampler(seed=0, population_size=4)
    small(metrics.fidelity, tmp_path / "run", sampler=sampler)
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert manifest["space"]["search"]["method"] == "NSGAIISampler"
    sources = pd.read_csv(tmp_path / "run" / "trials.csv").source.tolist()
    assert "sampler" in sources
