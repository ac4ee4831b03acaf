"""The study survives sudden ends, and the sampler beats random on a problem with a known front."""

import json
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import optuna
import pytest
from optuna.samplers import BaseSampler, RandomSampler

from dse.errors import RunError
from dse.explore.measure.trials import suggested
from dse.explore.solve.front import hypervolume
from dse.explore.study.front_sampler import FrontSampler
from dse.explore.study.study import enqueue, locked, open_study, trial_point
from dse.space.problem import Point, Problem
from tests.explore.synthetic import Truth, synthetic_problem, synthetic_task

optuna.logging.set_verbosity(optuna.logging.WARNING)


def _front_sampler(problem: Problem, truth: Truth, seed: int) -> FrontSampler:
    return FrontSampler(synthetic_task(problem, truth, seed))


def _run(study: optuna.Study, problem: Problem, truth: Truth, trials: int) -> list[Point]:
    measured = []
    for _ in range(trials):
        trial = study.ask()
        names = {
            v.name: trial.suggest_categorical(v.name, [c.name for c in v.choices])
            for v in problem.variables
        }
        point = problem.point(names)
        values = np.array([point])
        study.tell(trial, [float(truth.losses(values)[0]), float(truth.costs(values)[0])])
        measured.append(point)
    return measured


def _gain(problem: Problem, truth: Truth, measured: list[Point]) -> float:
    """Hypervolume as a share of what all 729 points reach."""
    everything = np.array(list(product(range(3), repeat=len(problem.variables))))
    values = np.column_stack([truth.losses(everything), truth.costs(everything)])
    reference = values.max(axis=0) * 1.01
    some = np.array(measured)
    seen = np.column_stack([truth.losses(some), truth.costs(some)])
    return hypervolume(seen, reference) / hypervolume(values, reference)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_front_sampler_gets_nearer_to_the_true_front_than_random(
    tmp_path: Path, seed: int
) -> None:
    problem = synthetic_problem()
    truth = Truth(problem, seed)
    reached = {}
    samplers: dict[str, BaseSampler] = {
        "front": _front_sampler(problem, truth, seed),
        "random": RandomSampler(seed=seed),
    }
    for name, sampler in samplers.items():
        (tmp_path / name).mkdir()
        study = open_study(tmp_path / name, ["loss", "cost"], sampler)
        enqueue(study, problem, dict.fromkeys(problem.uniforms.values(), "uniform"), names={})
        reached[name] = _gain(problem, truth, _run(study, problem, truth, 30))
    assert reached["front"] > 0.98
    assert reached["front"] > reached["random"]


def test_a_trial_of_many_variables_waits_for_the_disk_a_few_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem = synthetic_problem(200)
    study = open_study(tmp_path, ["loss", "cost"], RandomSampler(seed=0))
    writes: list[int] = []
    backend = optuna.storages.journal.JournalFileBackend
    append = backend.append_logs

    def counted(self: object, logs: list[dict[str, object]]) -> None:
        writes.append(len(logs))
        append(self, logs)  # type: ignore[arg-type]

    monkeypatch.setattr(backend, "append_logs", counted)
    trial = study.ask()
    point = suggested(trial, problem)
    study.tell(trial, [0.0, 0.0])
    assert len(writes) <= 3
    assert sum(writes) > len(problem.variables)
    again = open_study(tmp_path, ["loss", "cost"])
    assert trial_point(again.get_trials()[0], problem) == point


def test_a_torn_journal_and_a_trial_in_flight_do_not_stop_a_study(tmp_path: Path) -> None:
    problem = synthetic_problem()
    truth = Truth(problem)
    study = open_study(tmp_path, ["loss", "cost"], RandomSampler(seed=0))
    done = _run(study, problem, truth, 3)
    study.ask()
    journal = tmp_path / "study.log"
    with journal.open("ab") as stream:
        stream.write(b'{"op_code": 5, "worker_id": "x", "tri')
    (tmp_path / "study.log.lock").touch()
    again = open_study(tmp_path, ["loss", "cost"], RandomSampler(seed=0))
    states = [trial.state.name for trial in again.trials]
    assert states == ["COMPLETE"] * 3 + ["FAIL"]
    assert [trial_point(trial, problem) for trial in again.trials[:3]] == done
    for line in journal.read_text().splitlines():
        json.loads(line)


@pytest.mark.parametrize("line", [b'{"op_code" 5}\n', b'{"op_code": "\xc3\x28"}\n'])
def test_a_damaged_line_within_a_journal_is_named(tmp_path: Path, line: bytes) -> None:
    problem = synthetic_problem()
    study = open_study(tmp_path, ["loss", "cost"], RandomSampler(seed=0))
    _run(study, problem, Truth(problem), 1)
    journal = tmp_path / "study.log"
    content = journal.read_bytes()
    journal.write_bytes(line + content)
    with pytest.raises(RunError, match=r"study.log: expected a JSON object.*damaged"):
        open_study(tmp_path, ["loss", "cost"], RandomSampler(seed=0))
    assert journal.read_bytes() == line + content


def test_a_trial_of_another_search_is_named(tmp_path: Path) -> None:
    problem = synthetic_problem()
    study = open_study(tmp_path, ["loss", "cost"], RandomSampler(seed=0))
    names = [variable.name for variable in problem.variables]
    study.enqueue_trial(dict.fromkeys(names, "no such choice"))
    with pytest.raises(RunError, match=r"trial 0 .*another search's"):
        enqueue(study, problem, {}, names={})


def test_an_interrupted_study_goes_on_as_it_would_have(tmp_path: Path) -> None:
    problem = synthetic_problem()
    truth = Truth(problem)
    (tmp_path / "whole").mkdir()
    (tmp_path / "parts").mkdir()
    start = {problem.fallback: "uniform"}
    whole = open_study(tmp_path / "whole", ["loss", "cost"], _front_sampler(problem, truth, 5))
    enqueue(whole, problem, start, names={})
    expected = _run(whole, problem, truth, 8)
    first = open_study(tmp_path / "parts", ["loss", "cost"], _front_sampler(problem, truth, 5))
    enqueue(first, problem, start, names={})
    found = _run(first, problem, truth, 4)
    first.ask()
    second = open_study(tmp_path / "parts", ["loss", "cost"], _front_sampler(problem, truth, 5))
    enqueue(second, problem, start, names={})
    found += _run(second, problem, truth, 4)
    assert found == expected


def test_a_folder_is_held_by_one_process(tmp_path: Path) -> None:
    with locked(tmp_path), pytest.raises(RunError, match="another process"), locked(tmp_path):
        pass


def test_points_are_queued_once(tmp_path: Path) -> None:
    problem = synthetic_problem()
    study = open_study(tmp_path, ["loss", "cost"], RandomSampler(seed=0))
    points = dict.fromkeys(problem.uniforms.values(), "uniform")
    enqueue(study, problem, points, names={problem.fallback: "bf16"})
    enqueue(study, problem, points, names={})
    assert len(study.trials) == len(points) == 3
    assert study.trials[0].user_attrs == {"source": "uniform", "name": "bf16"}


def test_a_queued_proposal_is_what_a_trial_that_asks_would_get(tmp_path: Path) -> None:
    problem = synthetic_problem()
    truth = Truth(problem)
    found = []
    for name in ("asked", "queued"):
        (tmp_path / name).mkdir()
        sampler = _front_sampler(problem, truth, 3)
        study = open_study(tmp_path / name, ["loss", "cost"], sampler)
        sampler.queue_next(study)
        assert study.trials == []  # nothing is known yet
        enqueue(study, problem, {problem.fallback: "uniform"}, names={})
        _run(study, problem, truth, 1)
        if name == "queued":
            for _ in range(2):  # what waits is not queued again
                sampler.queue_next(study)
            assert len(study.trials) == 2
            assert study.trials[1].user_attrs["source"] == "sampler"
        found.append(_run(study, problem, truth, 1))
    assert found[0] == found[1]


def test_a_focus_draws_trials_and_forbids_none(tmp_path: Path) -> None:
    problem = synthetic_problem()
    truth = Truth(problem, 0)
    limit = 0.02

    def inside(points: np.ndarray, losses: np.ndarray) -> np.ndarray:
        return losses[:, 0] <= limit

    task = synthetic_task(problem, truth, 0)
    shares = {}
    for name, focused in (("anywhere", task.focused), ("focus", inside)):
        sampler = FrontSampler(replace(task, focused=focused))
        (tmp_path / name).mkdir()
        study = open_study(tmp_path / name, ["loss", "cost"], sampler)
        enqueue(study, problem, dict.fromkeys(problem.uniforms.values(), "uniform"), names={})
        measured = np.array(_run(study, problem, truth, 24))
        assert (truth.losses(measured) > limit).any()
        shares[name] = float((truth.losses(measured[3:]) <= limit).mean())
    assert shares["focus"] > 0.6, shares
    assert shares["focus"] > shares["anywhere"] + 0.2, shares
