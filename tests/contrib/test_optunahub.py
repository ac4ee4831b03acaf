"""The packages in OptunaHub's layout, loaded as OptunaHub loads them."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import optuna
import optunahub
import pytest

from dse.explore.solve.front import hypervolume

ROOT = Path(__file__).parents[2] / "contrib" / "optunahub" / "package"
PACKAGES = ("benchmarks/precision_search", "samplers/precision_front")
optuna.logging.set_verbosity(optuna.logging.WARNING)


def loaded(package: str) -> ModuleType:
    return optunahub.load_local_module(package, registry_root=str(ROOT))


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    return loaded("benchmarks/precision_search")


def front(problem: object, sampler: optuna.samplers.BaseSampler, trials: int) -> np.ndarray:
    """(trials, objectives) that a study has measured."""
    study = optuna.create_study(directions=problem.directions, sampler=sampler)  # type: ignore[attr-defined]
    study.optimize(problem, n_trials=trials)  # type: ignore[arg-type]
    return np.array([trial.values for trial in study.trials])


@pytest.mark.parametrize("name", ["byte-gpt-depth", "byte-gpt-role", "fashion-resnet"])
def test_a_trial_reads_its_row_of_the_table(benchmark: ModuleType, name: str) -> None:
    problem = benchmark.Problem(name, costs=["h100.weight_bytes", "l40s.latency_s"])
    assert problem.metric_names == ["loss", "h100.weight_bytes", "l40s.latency_s"]
    rows = problem.table.values(*problem.costs)
    for values in front(problem, optuna.samplers.RandomSampler(seed=0), 3):
        assert (rows == values).all(axis=1).any()
    first = {name: choices[0] for name, choices in problem.table.variables.items()}
    assert problem.evaluate(first) == tuple(rows[0])


def test_what_choices_add_makes_the_cost_of_an_assignment(benchmark: ModuleType) -> None:
    problem = benchmark.Problem("byte-gpt-role", costs=["h100.weight_bytes"])
    last = {name: choices[-1] for name, choices in problem.table.variables.items()}
    (parts,) = problem.additive
    total = sum(parts[name][choice] for name, choice in last.items())
    assert total == pytest.approx(problem.evaluate(last)[1])


def test_an_unknown_cost_is_refused_with_those_there_are(benchmark: ModuleType) -> None:
    with pytest.raises(ValueError, match=r"no cost 'latency'.*h100\.latency_s"):
        benchmark.Problem("byte-gpt-role", costs=["latency"])


def test_the_sampler_finds_more_of_the_front_than_chance(benchmark: ModuleType) -> None:
    problem = benchmark.Problem("byte-gpt-role", costs=["h100.latency_s"])
    module = loaded("samplers/precision_front")
    values = problem.table.values(*problem.costs)
    reference = values.max(axis=0)
    found = [
        hypervolume(front(problem, sampler, 25), reference)
        for sampler in (
            module.PrecisionFrontSampler(problem.scores, problem.additive),
            optuna.samplers.RandomSampler(seed=0),
        )
    ]
    assert found[0] > found[1]
    assert found[0] > 0.9 * hypervolume(values, reference)


def test_costs_of_other_parameters_are_refused(benchmark: ModuleType) -> None:
    problem = benchmark.Problem("byte-gpt-role")
    module = loaded("samplers/precision_front")
    with pytest.raises(ValueError, match=r"costs\[0\]: expected the parameters and choices"):
        module.PrecisionFrontSampler(problem.scores, [{"a": {"b": 1.0}}])


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_has_what_the_registry_asks_for(package: str) -> None:
    folder = ROOT / package
    head = (folder / "README.md").read_text(encoding="utf-8").split("---")[1]
    for field in ("author", "title", "description", "tags", "optuna_versions", "license"):
        assert f"\n{field}: " in head
    assert "sampler" in head if package.startswith("samplers") else "benchmark" in head
    assert (folder / "LICENSE").read_text(encoding="utf-8").count("Apache License")
    compile((folder / "example.py").read_text(encoding="utf-8"), "example.py", "exec")
