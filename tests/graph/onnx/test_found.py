"""Chains behind a NonZero have the sizes that the user says, or the most there can be."""

from __future__ import annotations

import pytest

from dse.errors import GraphError
from dse.graph.lower.work import lower
from dse.graph.onnx.shapes import bind_sizes
from dse.graph.patterns.analysis import Analysis

POSITIVE = """
    <float zero = {0.0}, int64[1] first = {0}, int64[1] last = {1}, int64 top = {0},
     int64[1] flat = {-1}, int64[2] wide = {16, 32}>
    w = ConstantOfShape <value = float[1] {0.5}> (wide)
    sums = ReduceSum <keepdims = 0> (x, last)
    hits = Greater(sums, zero)"""
CHAINS = {
    "squeezed": "nz = NonZero(hits) i = Squeeze(nz, first)",
    "squeezed without axes": "nz = NonZero(hits) i = Squeeze(nz)",
    "gathered": "nz = NonZero(hits) i = Gather <axis = 0> (nz, top)",
    "transposed": "nz = NonZero(hits) turned = Transpose(nz) i = Squeeze(turned, last)",
    "reshaped": "nz = NonZero(hits) i = Reshape(nz, flat)",
}


def _model(chain: str) -> str:
    head, _, body = POSITIVE.partition(">\n")
    return f"""
    g (float[batch, 16] x) => (float[n, 32] y) {head}>
    {{ {body} {CHAINS[chain]} rows = Gather <axis = 0> (x, i) y = MatMul(rows, w) }}"""


@pytest.mark.parametrize("chain", CHAINS)
def test_rows_that_are_found_are_the_most_there_can_be_or_as_said(graph, chain: str) -> None:
    g = graph(_model(chain))
    found = bind_sizes(g, {"batch": 6})
    assert found.types["rows"].shape == (6, 16)
    (note,) = found.notes
    (name,) = [part.removesuffix("=N") for part in note.split() if part.endswith("=N")]
    assert "priced with 6" in note
    for rows in (1, 4):
        said = bind_sizes(g, {"batch": 6, name: rows})
        assert not said.notes
        assert said.types["rows"].shape == (rows, 16)
        assert said.types["y"].shape == (rows, 32)
        work = lower(Analysis(g), {"batch": 6, name: rows})
        assert sum(region.macs for region in work.regions) == rows * 16 * 32
        assert bind_sizes(g, {"batch": 6, "nz.1": rows}).types["y"].shape == (rows, 32)


@pytest.mark.parametrize("chain", CHAINS)
def test_what_follows_from_it_cannot_be_said_instead(graph, chain: str) -> None:
    g = graph(_model(chain))
    message = r"MatMul_\d \(MatMul\): size 0 of 'y' follows .* is 6, not n=2; say --dim \S+=N"
    with pytest.raises(GraphError, match=message):
        bind_sizes(g, {"batch": 6, "n": 2})
    with pytest.raises(GraphError, match=r"size 0 of 'rows' follows .* is 6, not rows\.0=2"):
        bind_sizes(g, {"batch": 6, "rows.0": 2})
    assert bind_sizes(g, {"batch": 6, "n": 6}).types["y"].shape == (6, 32)


def test_more_than_there_can_be_is_refused(graph) -> None:
    with pytest.raises(GraphError, match=r"NonZero_3 \(NonZero\): nz\.1=7 is more than .* 6"):
        bind_sizes(graph(_model("squeezed")), {"batch": 6, "nz.1": 7})
