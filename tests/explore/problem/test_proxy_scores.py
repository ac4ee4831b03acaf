"""Scores of a small network for the regions of a large one."""

import numpy as np
import pytest

from dse.errors import SpaceError
from dse.explore.problem.proxy_scores import scores_from_proxy
from dse.explore.solve.surrogate import Surrogate
from dse.space.problem import Choice, Problem, Variable


def problem(layers: int, roles: tuple[str, ...], names: tuple[str, ...]) -> Problem:
    return Problem(
        variables=tuple(
            Variable(
                name=f"blocks.{layer}/{role}",
                kind="gemm",
                role=role,
                block=layer,
                relative_depth=layer / max(layers - 1, 1),
                regions=(),
                sites=(),
                choices=tuple(Choice(name=name, quantizers={}) for name in names),
            )
            for layer in range(layers)
            for role in roles
        )
    )


PROXY = problem(3, ("qkv", "down"), ("bf16", "fp8", "fp4"))
LARGE = problem(20, ("qkv", "down"), ("bf16", "fp4"))
SCORES = Surrogate(losses=tuple(np.array([0.0, 1.0, 10.0]) * (i + 1) for i in range(6)))


def test_a_uniform_assignment_loses_what_it_loses_on_the_proxy() -> None:
    found = scores_from_proxy(SCORES, PROXY, LARGE)
    everywhere = np.ones((1, len(LARGE.variables)), dtype=int)
    expected = SCORES.predict(np.full((1, len(PROXY.variables)), 2))
    assert found.predict(everywhere) == pytest.approx(expected)


def test_a_region_is_scored_as_the_nearest_of_its_role() -> None:
    found = scores_from_proxy(SCORES, PROXY, LARGE)
    by_name = dict(zip([v.name for v in LARGE.variables], found.losses, strict=True))
    # Five layers are nearest to the proxy's first, five to its last, ten to the one between.
    assert by_name["blocks.0/qkv"][1] == pytest.approx(10 * 1 / 5)
    assert by_name["blocks.9/down"][1] == pytest.approx(10 * 4 / 10)
    assert by_name["blocks.19/down"][1] == pytest.approx(10 * 6 / 5)


def test_what_is_not_searched_needs_no_score() -> None:
    fixed = problem(2, ("head",), ("bf16",))
    assert [x.tolist() for x in scores_from_proxy(SCORES, PROXY, fixed).losses] == [[0.0], [0.0]]


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (problem(2, ("router",), ("bf16", "fp4")), "no region of kind gemm and role router"),
        (problem(2, ("qkv",), ("bf16", "int4")), "not scored 'int4' for role qkv"),
    ],
)
def test_what_the_proxy_has_not_scored_is_named(wanted: Problem, message: str) -> None:
    with pytest.raises(SpaceError, match=message):
        scores_from_proxy(SCORES, PROXY, wanted)
