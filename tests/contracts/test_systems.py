"""Published systems as data: every file loads, all that it names exists, its quick claims hold."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from dse.systems.load import load_system, system_names, systems
from dse.systems.measures.methods import given_method
from dse.systems.measures.registry import MEASURES, measure_of
from dse.systems.run import result, results
from dse.systems.schema import Claim, Expectation
from dse.systems.uses import loaded_uses

SYSTEMS = systems()
ROOT = Path(__file__).parents[2]
CLAIMS = [
    pytest.param(claim, id=f"{system.id}-{place}")
    for system in SYSTEMS
    for place, claim in enumerate(system.claims)
    if claim.is_run_here
]
NOT_HOLDING = {"S15": ("On a Gaudi 2, too",)}
"""Quick claims that are known not to hold, by how they begin."""


def test_there_are_28() -> None:
    assert system_names() == tuple(f"S{number:02}" for number in range(1, 29))


@pytest.mark.parametrize("name", system_names())
def test_all_that_a_system_uses_is_of_the_product(name: str) -> None:
    assert list(loaded_uses(load_system(name).uses, name))


def test_every_measure_is_used_by_a_claim() -> None:
    used = {claim.measure for system in SYSTEMS for claim in system.claims if claim.measure}
    assert used == set(MEASURES)


@pytest.mark.parametrize("claim", CLAIMS)
def test_options_fit_the_measure(claim: Claim) -> None:
    measure = measure_of(claim)
    methods = getattr(measure, "methods", {})
    for given in (*methods.values(), getattr(measure, "reference", "bf16")):
        if isinstance(methods, dict) and given is not None:
            given_method(given)


@pytest.mark.parametrize("name", system_names())
def test_quick_claims_hold_but_for_those_that_are_known_not_to(name: str) -> None:
    found = {one.claim.says: one for one in results(load_system(name))}
    quick = [one for one in found.values() if one.claim.needs == "seconds"]
    assert quick
    for one in quick:
        wrong = [condition for condition in one.judged if not condition.holds]
        known = any(one.claim.says.startswith(begins) for begins in NOT_HOLDING.get(name, ()))
        expected = "does not hold" if known else "holds"
        assert one.verdict == expected, (one.claim.says, wrong)


def test_what_needs_something_else_is_never_passed() -> None:
    for system in SYSTEMS:
        for claim in system.claims:
            if claim.needs != "seconds":
                found = result(claim)
                assert found.verdict in ("not run", "not run here", "missing in the product")
                assert found.why
                assert not found.rows


DETERMINISTIC = [one for one in CLAIMS if not MEASURES[one.values[0].measure].draws]  # type: ignore[union-attr]


@pytest.mark.parametrize("claim", DETERMINISTIC[::4])
def test_a_measure_that_draws_nothing_knows_no_seed(claim: Claim) -> None:
    measure = measure_of(claim)
    assert measure.rows(0) == measure.rows(7)


@pytest.mark.parametrize("name", ["S01", "S06", "S09", "S16", "S22", "S27"])
def test_equal_seeds_give_equal_numbers(name: str) -> None:
    claim = next(one for one in load_system(name).claims if one.needs == "seconds")
    measure = measure_of(claim)
    assert measure.rows(3) == measure.rows(3)


SLOW = ("least_squares", "slow_diffusion", "learned_rounding", "code_table", "product_prices",
        "served_tokens")  # fmt: skip
"""Measured once is enough."""
FIRST = {
    system.id: next(
        one for one in system.claims if one.needs == "seconds" and one.measure not in SLOW
    )
    for system in SYSTEMS
    if any(one.needs == "seconds" and one.measure not in SLOW for one in system.claims)
}
"""A quick claim of each system that has one."""


@pytest.mark.parametrize("name", FIRST)
def test_a_claim_with_a_wrong_figure_does_not_hold(name: str) -> None:
    claim = FIRST[name]
    changed = (_turned(claim.expect[0]), *claim.expect[1:])
    assert result(replace(claim, expect=changed)).verdict == "does not hold"


def _turned(one: Expectation) -> Expectation:
    if one.rising:
        return replace(one, rising=one.rising[::-1])
    if one.value is not None:
        return replace(one, value=2 * one.value + 1, within=0.0, relative=None)
    if one.at_least is not None:
        return replace(one, at_least=None, at_most=one.at_least - 1e-9 - abs(one.at_least))
    assert one.at_most is not None
    return replace(one, at_most=None, at_least=one.at_most + 1e-9 + 10 * abs(one.at_most))


def test_systems_are_data_and_nothing_is_named_after_one() -> None:
    names = re.compile(r"(?i)(coat|zeroquant|discquant|maple|fbgemm|fractrain|hasb|switchback)")
    code = (ROOT / "dse" / "systems").rglob("*.py")
    defined = [
        line
        for path in code
        for line in path.read_text(encoding="utf-8").splitlines()
        if re.match(r"\s*(def|class) ", line) and names.search(line)
    ]
    assert defined == []
