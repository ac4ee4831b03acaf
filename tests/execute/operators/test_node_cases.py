"""ONNX's own node tests."""

from __future__ import annotations

from collections import Counter

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from onnx.backend.test.case.test_case import TestCase

from dse.execute.conformance import EXCLUDED, Outcome, outcome, outcomes
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


def test_floats_beyond_an_integer_are_open_and_those_within_are_not() -> None:
    value = numpy_helper.from_array(np.array([-9, -8.5, 7.9, 8, 3], np.float32), "x")
    wanted = np.array([0, -8, 7, 0, 3], ml_dtypes.int4)
    assert _cast(value, wanted).status == "passed"
    wanted[4] = 2
    assert _cast(value, wanted).status == "failed"


def _cast(value: onnx.TensorProto, wanted: np.ndarray) -> Outcome:
    node = helper.make_node("Cast", ["x"], ["y"], to=onnx.TensorProto.INT4)
    graph = helper.make_graph(
        [node], "cast",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [5])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.INT4, [5])],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)])
    return outcome(
        TestCase(
            name="cast", model_name="cast", url=None, model_dir=None, model=model,
            data_sets=[([value], [numpy_helper.from_array(wanted, "y")])], kind="node",
            rtol=1e-3, atol=1e-7,
        )
    )  # fmt: skip
