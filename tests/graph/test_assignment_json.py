"""Assignments as JSON, both ways."""

from __future__ import annotations

import json

import pytest

from dse.errors import AssignmentError
from dse.graph.assignment_json import from_json, to_json
from dse.graph.ir.assignment import Assignment
from hwmodels.formats import catalog
from hwmodels.formats.accumulator import accumulator, sum_quantizer

TEXT = "g (float[n, 4] x) => (y) <float[4, 2] w = {1, 2, 3, 4, 5, 6, 7, 8}> " \
       "{ h = MatMul(x, w) y = Relu(h) }"  # fmt: skip


def test_an_assignment_survives_the_way_out_and_back(graph):
    g = graph(TEXT)
    own = catalog.quantizer("int8").replaced(statistic="percentile", percentile=99.5)
    assignment = Assignment.of(
        {"MatMul_0/in1": catalog.quantizer("mxfp4"), "MatMul_0/in0": own, "Relu_1/out0": own}
    )
    content = to_json(assignment, g)
    assert content["model"] == g.digest
    sites = content["sites"]
    assert isinstance(sites, dict)
    assert sites["MatMul_0/in1"] == "mxfp4"
    assert from_json(json.dumps(content), g, catalog.quantizer) == assignment


def test_an_assignment_without_a_model_fits_every_model(graph):
    text = '{"sites": {"MatMul_0/in1": "int8"}}'
    found = from_json(text, graph(TEXT), catalog.quantizer)
    assert found == Assignment.of({"MatMul_0/in1": catalog.quantizer("int8")})


def test_all_problems_come_at_once(graph):
    text = json.dumps({
        "model": "0123456789abcdef", "default": "int3", "site": {},
        "sites": {"MatMul_0/in7": "int8", "MatMul_0/in1": "mxpf4"},
    })  # fmt: skip
    with pytest.raises(AssignmentError) as caught:
        from_json(text, graph(TEXT), catalog.quantizer)
    message = str(caught.value)
    for part in (
        "unknown field 'site'; did you mean 'sites'",
        "made for the model with digest 0123456789abcdef",
        "default: must be one of bf16, fp16, fp32, got 'int3'",
        "no site 'MatMul_0/in7'; did you mean 'MatMul_0/in",
        "MatMul_0/in1: unknown format 'mxpf4'; did you mean 'mxfp4'",
    ):
        assert part in message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("[]", "expected an object"),
        ('{"sites": []}', "sites: must be an object"),
        ("[" * 100_000, "not JSON"),
        (f'{{"default": {"9" * 5000}}}', "not JSON"),
        # JSON's readers keep the last of two equal keys: the other format would be ignored.
        (
            '{"sites": {"a/in1": "int8", "a/in1": "e4m3"}}',
            "not JSON: 'a/in1' stands in one object",
        ),
    ],
)
def test_other_json_is_refused_by_the_name_of_its_file(graph, text, message):
    with pytest.raises(AssignmentError, match=f"^a.json: {message}"):
        from_json(text, graph(TEXT), catalog.quantizer, origin="a.json")


def test_an_accumulator_stands_at_a_sum(graph):
    g = graph(TEXT)
    given = {
        "MatMul_0/in1": catalog.quantizer("int8"),
        "MatMul_0/sum": sum_quantizer("int16:wrap"),
    }
    assignment = Assignment.of(given)
    content = to_json(assignment, g)
    assert content["sites"] == {"MatMul_0/in1": "int8", "MatMul_0/sum": "int16:wrap"}
    assert from_json(json.dumps(content), g, catalog.quantizer) == assignment
    assert assignment.sums == {"MatMul_0": accumulator("int16:wrap")}
    assert dict(assignment.without_sums) == {"MatMul_0/in1": catalog.quantizer("int8")}
    assert assignment.digest != assignment.without_sums.digest


@pytest.mark.parametrize(
    ("sites", "said"),
    [({"MatMul_0/sum": "int8_channel"}, "MatMul_0/sum: accumulator 'int8_channel': expected a"),
     ({"MatMul_0/sum": {"format": "int8"}}, "expected the name of an accumulator"),
     ({"Relu_1/sum": "int16"}, "no site 'Relu_1/sum'")],
)  # fmt: skip
def test_what_is_no_sum_is_said(graph, sites, said):
    with pytest.raises(AssignmentError, match=said):
        from_json(json.dumps({"sites": sites}), graph(TEXT), catalog.quantizer)
