"""ONNX's own node tests."""

from __future__ import annotations

from collections import Counter

import pytest

from dse.execute.conformance import EXCLUDED, Outcome, outcomes
from dse.execute.operators.table import OPERATORS


@pytest.fixture(scope="module")
def results() -> tuple[Outcome, ...]:
    return tuple(outcomes())


def test_no_case_of_a_supported_operator_fails(results: tuple[Outcome, ...]) -> None:
    assert [(r.name, r.detail) for r in results if r.status == "failed"] == []


def test_more_than_a_thousand_cases_pass(results: tuple[Outcome, ...]) -> None:
    assert Counter(r.status for r in results)["passed"] >= 1600


def test_cases_of_supported_operators_run_unless_a_type_or_attribute_is_foreign(
    results: tuple[Outcome, ...],
) -> None:
    skipped = [r for r in results if r.status == "unsupported" and r.operators <= set(OPERATORS)]
    assert {r.name for r in skipped} == {"test_equal_string", "test_equal_string_broadcast"}


def test_exclusions_exist(results: tuple[Outcome, ...]) -> None:
    assert set(EXCLUDED) <= {r.name for r in results}


def test_every_operator_of_onnx_in_the_table_is_tested(results: tuple[Outcome, ...]) -> None:
    tested = {pair for r in results if r.status == "passed" for pair in r.operators}
    untested = {op for domain, op in OPERATORS if domain == "" and (domain, op) not in tested}
    # What has no node test is compared with ONNX Runtime in test_operators.
    assert untested == {
        "ConcatFromSequence", "GlobalLpPool", "SequenceErase", "SimplifiedLayerNormalization",
    }  # fmt: skip
