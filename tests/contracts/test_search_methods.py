"""What every search method promises, ours or another's."""

from __future__ import annotations

from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path

import numpy as np
import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState

from dse.errors import SpaceError
from dse.explore.measure.trials import suggested
from dse.explore.study.methods import METHODS, proposer_of, search_method
from dse.explore.study.proposer import Proposer, SearchTask
from dse.explore.study.study import PROPOSED, enqueue, open_study, retry_lost, trial_point
from dse.space.problem import Point
from hwmodels import plugins
from tests.explore.synthetic import Truth, synthetic_problem, synthetic_task

TRIALS = 14
SMALL_POPULATION = {"nsga2": {"population_size": 5}, "nsga3": {"population_size": 5}}
ATTEMPTS = 20
"""A trial, as a search has them."""
EVERYWHERE = Path()


def of_a_package(task: SearchTask, *, first: int = 0) -> Proposer:
    """What another package could register: random choices, with an argument of its own."""
    sampler = optuna.samplers.RandomSampler(seed=task.seed)
    proposer = METHODS["random"](task)
    return proposer if first == 0 else Proposer(sampler=sampler)


@pytest.fixture(autouse=True)
def package(monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed package with a method."""
    value = f"{__name__}:of_a_package"
    registered = EntryPoint(name="tossed", value=value, group="dse.methods")

    def entry_points(**wanted: str) -> EntryPoints:
        return EntryPoints([registered]).select(**wanted)  # type: ignore[arg-type]

    monkeypatch.setattr(plugins, "entry_points", entry_points)
    monkeypatch.setattr(EntryPoint, "load", lambda point: of_a_package)
    optuna.logging.set_verbosity(optuna.logging.WARNING)


NAMES = [*METHODS, "tossed", "TPESampler", "optuna.samplers:NSGAIISampler"]


class Search:
    """A search with one worker: repetitions are given up."""

    def __init__(self, folder: Path, *, variables: int = 4) -> None:
        folder.mkdir(exist_ok=True)
        self.problem = synthetic_problem(variables)
        self.truth = Truth(self.problem)
        self.study = open_study(folder, ["quality_loss", "cost"])
        planned = dict.fromkeys(self.problem.uniforms.values(), "uniform")
        enqueue(self.study, self.problem, planned, names={})

    @property
    def complete(self) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))

    @property
    def points(self) -> list[Point]:
        return [trial_point(one, self.problem) for one in self.complete]

    def run(self, name: str, count: int, *, seed: int = 0) -> None:
        """Measure until so many trials are complete."""
        method = search_method(name, origin="test", folder=EVERYWHERE)
        task = synthetic_task(self.problem, self.truth, seed)
        proposer = proposer_of(method, task, SMALL_POPULATION.get(name, {}), origin="test")
        self.study.sampler = proposer.sampler
        for _ in range(count * ATTEMPTS):
            known = self.points
            if len(known) >= count:
                return
            trial = proposer.ask(self.study)
            point = suggested(trial, self.problem)
            if point in known:
                self.study.tell(trial, state=TrialState.PRUNED)
            else:
                rows = np.array([point])
                values = self.truth.losses(rows)[0], self.truth.costs(rows)[0]
                self.study.tell(trial, [float(value) for value in values])
        raise AssertionError(f"{len(self.points)} of {count} points")


@pytest.mark.parametrize("name", NAMES)
def test_it_finds_as_many_different_points_as_wanted(name: str, tmp_path: Path) -> None:
    search = Search(tmp_path)
    search.run(name, TRIALS)
    assert len(set(search.points)) == TRIALS
    assert search.points[:3] == list(search.problem.uniforms.values())


@pytest.mark.parametrize("name", NAMES)
def test_it_finds_every_point_of_a_small_space(name: str, tmp_path: Path) -> None:
    search = Search(tmp_path, variables=2)
    search.run(name, search.problem.size)
    assert len(set(search.points)) == search.problem.size == 9


@pytest.mark.parametrize("name", [*METHODS, "tossed"])
@pytest.mark.parametrize("killed_after", [3, 8])
def test_a_search_that_was_killed_goes_on_as_it_would_have(
    name: str, killed_after: int, tmp_path: Path
) -> None:
    whole = Search(tmp_path / "whole")
    whole.run(name, TRIALS)
    Search(tmp_path / "cut").run(name, killed_after)
    # Another process opens the folder, and finds a trial that was lost with the first.
    other = Search(tmp_path / "cut")
    other.study.add_trial(optuna.trial.create_trial(state=TrialState.RUNNING))
    retry_lost(other.study)
    other.run(name, TRIALS)
    assert other.points == whole.points


@pytest.mark.parametrize("name", [*METHODS, "tossed"])
def test_another_seed_is_another_search(name: str, tmp_path: Path) -> None:
    """Our own sampler is sure of so small a space, whatever the seed."""
    searches = [Search(tmp_path / str(seed)) for seed in (0, 1)]
    for seed, search in enumerate(searches):
        search.run(name, TRIALS, seed=seed)
    assert (searches[0].points == searches[1].points) == (name == "front")


@pytest.mark.parametrize("name", ["nsga2", "nsga3"])
def test_planned_assignments_are_parents_of_the_second_generation(
    name: str, tmp_path: Path
) -> None:
    search = Search(tmp_path)
    search.run(name, TRIALS)
    (key,) = {key for one in search.complete for key in one.system_attrs if "generation" in key}
    generations = [one.system_attrs[key] for one in search.complete]
    assert generations[:3] == [0, 0, 0]
    assert max(generations) >= 1


def _task() -> SearchTask:
    problem = synthetic_problem(2)
    return synthetic_task(problem, Truth(problem), 0)


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(SpaceError, match=r"search\.method: unknown method 'nsga4'.*nsga"):
        search_method("nsga4", origin="space.yaml", folder=EVERYWHERE)


def test_arguments_that_a_method_does_not_take_are_refused_with_those_it_does() -> None:
    task = _task()
    with pytest.raises(SpaceError, match=r"NSGAIISampler:.*populatoin.*population_size"):
        proposer_of(METHODS["nsga2"], task, {"populatoin": 8}, origin="test")
    with pytest.raises(SpaceError, match=r"search\.arguments: front.*'depth'"):
        proposer_of(METHODS["front"], task, {"depth": 8}, origin="test")


def test_a_module_beside_the_space_is_found_and_need_not_be_installed(tmp_path: Path) -> None:
    code = "import optuna\nclass Mine(optuna.samplers.RandomSampler):\n    pass\n"
    (tmp_path / "my_sampler_of_this_test.py").write_text(code)
    method = search_method("my_sampler_of_this_test:Mine", origin="test", folder=tmp_path)
    proposer = proposer_of(method, _task(), {}, origin="test")
    assert type(proposer.sampler).__name__ == "Mine"
    with pytest.raises(SpaceError, match="my_sampler_of_this_test:Yours"):
        search_method("my_sampler_of_this_test:Yours", origin="test", folder=tmp_path)


def test_queued_points_are_measured_first_and_as_they_were_queued(tmp_path: Path) -> None:
    search = Search(tmp_path)
    search.run("front", 6)
    sources = [one.user_attrs["source"] for one in search.complete]
    assert sources == ["uniform"] * 3 + [PROPOSED] * 3
