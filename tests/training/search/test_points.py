"""Methods taken apart and put together: what is shipped comes out as it went in."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
import torch

from dse.errors import SpaceError
from dse.training.load import load_method, method_names, method_of
from dse.training.method import Method, Operand
from dse.training.run import Outcome, Run
from dse.training.search.axes import alone
from dse.training.search.described import described
from dse.training.search.load import load_training_space, problem_of_space
from dse.training.search.points import MethodProblem
from dse.training.search.schema import OperandChange
from dse.training.search.write import method_content
from dse.training.workloads.catalogue import workload
from tests.training.methods import method
from tests.training.search.spaces import SPACES, problem

SHIPPED = ("fp4-training", "fp8-training")


@pytest.fixture(scope="module", params=SHIPPED)
def shipped(request: pytest.FixtureRequest) -> MethodProblem:
    path = SPACES / f"{request.param}.yaml"
    return problem_of_space(load_training_space(path), origin=str(path), folder=SPACES)


@pytest.mark.parametrize("name", method_names())
def test_a_method_taken_apart_and_written_is_the_same_method(name: str) -> None:
    apart = described(load_method(name))
    content = method_content(apart.method(source="again"))
    assert described(method_of(content, origin=name)).canonical() == apart.canonical()


def test_what_is_the_default_does_not_tell_methods_apart() -> None:
    """So a field that a later version adds leaves the runs of a folder where they are."""
    content = described(load_method("bf16")).canonical()
    assert {str(value) for key, value in content.items() if "weight@" in key} == {
        str(content["weight@fprop"]),
        str(content["master_weight@update"]),
        str(content["weight_gradient@wgrad"]),
    }
    assert content["rules"] == []
    assert "update" not in content
    assert "schedule" not in content


def test_every_field_of_an_operand_can_be_an_axis() -> None:
    assert {one.name for one in fields(Operand)} <= set(OperandChange.model_fields)


def test_named_points_of_the_shipped_spaces_are_the_shipped_methods(
    shipped: MethodProblem,
) -> None:
    assert len(shipped.named) >= 4
    for name, point in shipped.named.items():
        assert point.method == load_method(name)
        start = described(shipped.start_method).digest
        assert (point.digest == start) == (name == shipped.space.start)


def test_axes_of_the_shipped_spaces_make_methods_that_differ(shipped: MethodProblem) -> None:
    turned = [point for _, _, point in alone(shipped)]
    assert len({point.digest for point in turned}) == len(turned)
    assert shipped.start.digest not in {point.digest for point in turned}
    assert sum(bool(shipped.refusal(point)) for point in turned) <= 4


def test_a_composed_method_trains_to_the_same_numbers() -> None:
    """Quartet II from NVIDIA's recipe by axes, without knowing that it is a shipped method."""
    path = SPACES / "fp4-training.yaml"
    fp4 = problem_of_space(load_training_space(path), origin=str(path), folder=SPACES)
    choices = fp4.named["quartet_ii"].choices
    unknowing = replace(fp4, named_methods={})
    made = unknowing.point(choices).method
    assert made.source != load_method("quartet_ii").source
    assert _losses(made) == _losses(load_method("quartet_ii"))


def _losses(found: Method) -> list[float]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    run = Run(found, workload("digits-mlp"), 0, steps=3)
    while not run.done:
        run.advance()
    torch.set_num_threads(before)
    outcome: Outcome = run.outcome()
    assert outcome.last is not None
    return [*outcome.curve.loss, outcome.last.loss]


def test_a_method_outside_of_the_space_is_refused_with_what_differs() -> None:
    with pytest.raises(SpaceError, match=r"named: quartet_ii: .*weight@fprop: .*instead of"):
        problem(named=["quartet_ii"])


def test_the_axes_of_an_operand_reach_its_format() -> None:
    found = problem().point(
        {"wgrad_grid": "mxfp8", "dgrad_gradient": "nearest", "fprop_activation": "four over six"}
    )
    expected = method(
        roles={
            "weight": "e2m1@b16x16/e4m3+fp32",
            "activation@fprop": {"format": "nvfp4", "scales": "four_over_six"},
            "activation@wgrad": "e4m3@g32/e8m0-rceil",
            "activation_gradient@dgrad": "nvfp4",
            "activation_gradient@wgrad": "e4m3@g32/e8m0-rceil",
        },
        rules=[{"match": {"name": "*head*", "optional": True}, "roles": {"*": "bf16"}}],
    )
    assert described(found.method).canonical() == described(expected).canonical()


def test_what_an_axis_is_not_about_stays_as_it_is() -> None:
    """Rounding of 4-bit gradients means nothing where they are in 16 bits."""
    variables = {
        "grid": {
            "at": ["activation_gradient@dgrad"],
            "options": {"e2m1": {"element": "e2m1"}, "bf16": {"format": "bf16"}},
        },
        "rounding": {
            "at": ["activation_gradient@dgrad"],
            "elements": ["e2m1"],
            "options": {
                "stochastic": {"rounding": "stochastic", "headroom": 1.0625},
                "nearest": {"rounding": "nearest_even", "headroom": 1},
            },
        },
    }
    found = problem(variables=variables)
    wide = {
        found.point({"grid": "bf16", "rounding": one}).digest for one in ("stochastic", "nearest")
    }
    narrow = {
        found.point({"grid": "e2m1", "rounding": one}).digest for one in ("stochastic", "nearest")
    }
    assert (len(wide), len(narrow)) == (1, 2)


def test_factors_that_are_rotated_differently_are_no_method() -> None:
    variables = {
        "rotation": {
            "at": ["activation@wgrad"],
            "options": {"fixed": {"signs": "fixed"}, "none": {"hadamard": 0, "signs": "none"}},
        }
    }  # fmt: skip
    found = problem(variables=variables)
    assert not found.refusal(found.point({"rotation": "fixed"}))
    assert "rotated differently" in found.refusal(found.point({"rotation": "none"}))
