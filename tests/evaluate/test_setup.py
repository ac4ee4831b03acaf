"""Evaluators of graphs and data that fit, and what is said of those that do not."""

from dataclasses import replace

import numpy as np
import onnx.parser
import pytest

from dse.errors import DataError, GraphError
from dse.evaluate.evaluator import TRACE_BYTES
from dse.evaluate.setup import build_evaluator
from dse.execute import room
from dse.graph.ir.assignment import Assignment
from dse.graph.ir.graph import Graph
from dse.graph.onnx.load import load
from dse.graph.patterns.analysis import Analysis
from dse.space.schema import Data
from hwmodels.formats.catalog import quantizer

TEXT = """
<ir_version: 8, opset_import: ["" : 17]>
g (int64[batch, 4] tokens) => (float[batch, 4, CLASSES] logits)
<float[300, CLASSES] table = {ZEROS}> { logits = Gather(table, tokens) }
"""


@pytest.fixture
def graph(tmp_path, request) -> Graph:
    classes = request.param
    text = TEXT.replace("CLASSES", str(classes))
    zeros = ",".join(["0"] * 300 * classes)
    model = onnx.parser.parse_model(text.replace("ZEROS", zeros))
    onnx.save(model, tmp_path / "m.onnx")
    return load(tmp_path / "m.onnx")


@pytest.mark.parametrize("graph", [7], indirect=True)
def test_too_few_samples_say_how_many_are_needed(graph: Graph, tmp_path) -> None:
    np.savez(tmp_path / "d.npz", tokens=np.zeros((5, 4), dtype=np.int64))
    data = Data(source="d.npz", calibration=2, search=2, report=2)
    with pytest.raises(DataError, match=r"has 5 samples.*need 6"):
        build_evaluator(Analysis(graph), data, {}, [], folder=tmp_path)


@pytest.fixture
def fixed(tmp_path) -> Graph:
    """A graph that takes three samples at a time."""
    text = """<ir_version: 8, opset_import: ["" : 17]>
    g (float[3, 2] x) => (float[3, 2] y) <float[2, 2] w = {1, 2, 3, 4}> { y = MatMul(x, w) }"""
    onnx.save(onnx.parser.parse_model(text), tmp_path / "fixed.onnx")
    np.savez(tmp_path / "d.npz", x=np.ones((18, 2), np.float32))
    return load(tmp_path / "fixed.onnx")


def test_a_graph_of_a_fixed_batch_is_fed_in_such_batches(fixed: Graph, tmp_path) -> None:
    data = Data(source="d.npz", calibration=3, search=6, report=9)
    evaluator = build_evaluator(Analysis(fixed), data, {}, [], folder=tmp_path)
    assert evaluator.batch == 3
    assert evaluator.measure(Assignment(), "report").samples == 9


def test_samples_that_do_not_fill_fixed_batches_are_refused(fixed: Graph, tmp_path) -> None:
    data = Data(source="d.npz", calibration=3, search=6, report=8)
    with pytest.raises(DataError, match=r"batches of 3 samples only, but data\.report is 8"):
        build_evaluator(Analysis(fixed), data, {}, [], folder=tmp_path)


@pytest.mark.parametrize("graph", [7], indirect=True)
def test_absent_external_data_are_named(graph: Graph, tmp_path) -> None:
    model = onnx.load(graph.path)
    (table,) = model.graph.initializer
    table.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(table), table.name))
    path = tmp_path / "apart.onnx"
    onnx.save(model, path, save_as_external_data=True, location="apart.bin", size_threshold=0)
    (tmp_path / "apart.bin").unlink()
    with pytest.raises(GraphError, match=r"quality cannot be measured: .*apart\.bin is absent"):
        build_evaluator(Analysis(load(path)), Data(source="d.npz"), {}, [], folder=tmp_path)


@pytest.mark.parametrize("graph", [7], indirect=True)
def test_caches_that_do_not_fit_are_told_and_shrink(
    graph: Graph, tmp_path, monkeypatch, caplog
) -> None:
    np.savez(tmp_path / "d.npz", tokens=np.zeros((6, 4), dtype=np.int64))
    data = Data(source="d.npz", calibration=2, search=2, report=2, batch=2)
    values = 2 * 4 * 7 * 4  # the logits of the search split's only batch
    must = 2 * 300 * 7 * 4 + values + 2 * 4 * 8  # the table twice, the logits, the tokens
    again = values + 2 * 64  # distributions made again, tokens of both splits
    monkeypatch.setattr(room, "available_bytes", lambda: must + again + values // 2)
    evaluator = build_evaluator(Analysis(graph), data, {}, [], folder=tmp_path)
    assert not evaluator.keeps_references
    assert evaluator.trace_bytes == values // 2
    assert "caches get 1.1e-07 GB" in caplog.text
    monkeypatch.undo()
    assert (
        build_evaluator(Analysis(graph), data, {}, [], folder=tmp_path).trace_bytes == TRACE_BYTES
    )


@pytest.mark.parametrize(
    ("spec", "says"), [("hadamard(2)", False), ("random_hadamard(4, 1)", True)]
)
def test_a_rotation_longer_than_a_row_is_said_to_do_nothing(
    fixed: Graph, tmp_path, caplog, spec: str, says: bool
) -> None:
    analysis = Analysis(fixed)
    sites = {site.key: site for site in analysis.sites}
    turned = replace(quantizer("int8_channel"), transforms=(spec,))
    data = Data(source="d.npz", calibration=6, search=6, report=6)
    pairs = [("MatMul_0/in1", turned), ("MatMul_0/in0", quantizer("bf16"))]
    build_evaluator(analysis, data, sites, pairs, folder=tmp_path)
    line = f"{spec}: longer than the rows of MatMul_0/in1 (2 values), which it leaves as they are"
    assert (line in caplog.messages) is says
