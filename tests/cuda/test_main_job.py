"""The space that this project exists for, measured on a device."""

from __future__ import annotations

from pathlib import Path

import pytest

from dse.data import Sizes, load_splits
from dse.evaluate.evaluator import Evaluator
from dse.evaluate.setup import build_evaluator
from dse.graph.patterns.analysis import Analysis
from dse.model import open_model
from dse.sensitivity.gradient import gradient_scores
from dse.space.build import build_problem
from dse.space.load import load_space
from dse.space.problem import Problem, Variable
from tests.cuda.second_device import NAME

SPACE = Path(__file__).parents[2] / "spaces" / "fp4.yaml"
SEQUENCE = 64
SHORT = 16
"""Without a GPU, where devices are emulated operator by operator."""


def _problem(analysis: Analysis, device: str) -> Problem:
    """All decisions; without a GPU those of one block, since emulated devices are slow."""
    whole = build_problem(load_space(SPACE), analysis.regions)

    def first(variable: Variable) -> bool:
        return variable.block in (None, 0) and "up" not in variable.name

    if device == NAME:
        return Problem(variables=tuple(v for v in whole.variables if first(v)))
    return whole


def _evaluator(analysis: Analysis, problem: Problem, device: str, *, sequence: int) -> Evaluator:
    space = load_space(SPACE)
    graph = analysis.graph
    sizes = Sizes(calibration=4, search=4, report=2)
    shapes = {name: graph.types[name].shape or () for name in graph.inputs}
    splits = load_splits(
        space.data.source, sizes, sequence=sequence, inputs=shapes, folder=SPACE.parent
    )
    sites = {site.key: site for variable in problem.variables for site in variable.sites}
    pairs = [
        (site.key, choice.quantizers[site.role])
        for variable in problem.variables
        for choice in variable.choices
        for site in variable.sites
        if site.role in choice.quantizers
    ]
    return build_evaluator(analysis, space.data, sites, pairs, compute=device, splits=splits)


def test_every_choice_of_the_main_job_has_the_same_loss(device: str) -> None:
    analysis = open_model(load_space(SPACE).model).analysis
    problem = _problem(analysis, device)
    sequence = SHORT if device == NAME else SEQUENCE
    here, there = (
        _evaluator(analysis, problem, place, sequence=sequence) for place in ("cpu", device)
    )
    wanted = gradient_scores(here, problem).losses(problem)
    found = gradient_scores(there, problem).losses(problem)
    for first, second in zip(found, wanted, strict=True):
        assert first == pytest.approx(second, rel=1e-3, abs=1e-9)
    names = {choice.name for variable in problem.variables for choice in variable.choices}
    for name in sorted(names):
        point = tuple(variable.index(name) or 0 for variable in problem.variables)
        chosen = problem.assignment(point)
        expected = here.measure(chosen)
        # Sums in another order move a few values to the next step: far within the doubt.
        doubt = 0.5 * expected.stderr
        assert there.measure(chosen).loss == pytest.approx(expected.loss, rel=0.03, abs=doubt)
        assert name == "bf16" or expected.loss > 0
