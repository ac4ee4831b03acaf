"""Annotations written into a model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from dse.errors import GraphError, WriteError
from dse.graph.annotate import annotate
from dse.graph.annotations import Annotations, read_annotations
from dse.graph.onnx.load import load
from hwmodels.formats.catalog import quantizer

TEXT = "g (float[n, 4] x) => (float[n, 2] y) <float[4, 2] w = {1, 2, 3, 4, 5, 6, 7, 8}> " \
       "{ h = MatMul(x, w) y = Relu(h) }"  # fmt: skip
CANDIDATES = Annotations(
    candidates={
        "MatMul_0/in1": (quantizer("mxfp4"), quantizer("nvfp4:gptq"), None),
        "MatMul_0/in0": (quantizer("mxfp8"),),
    },
    chosen={"MatMul_0/in1": quantizer("mxfp4")},
    ties={"all": ("MatMul_0/in1",)},
)


def make_external(path: Path) -> None:
    """Moves the weight of a model into a file beside it."""
    model = onnx.load(path)
    (weight,) = model.graph.initializer
    weight.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(weight), weight.name))
    onnx.save(model, path, save_as_external_data=True, location="w.bin", size_threshold=0)


def run(path: Path) -> np.ndarray:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": np.arange(8, dtype=np.float32).reshape(2, 4)})[0]


def test_annotations_are_read_back_unchanged(write, tmp_path):
    annotate(write(TEXT), CANDIDATES, tmp_path / "out.onnx")
    assert read_annotations(tmp_path / "out.onnx") == CANDIDATES


def test_an_annotated_model_is_the_same_model(write, tmp_path):
    path, out = write(TEXT), tmp_path / "out.onnx"
    annotate(path, CANDIDATES, out)
    onnx.checker.check_model(out, full_check=True)
    np.testing.assert_array_equal(run(out), run(path))
    assert load(out).digest == load(path).digest


def test_nodes_carry_the_candidates_of_their_operands(write, tmp_path):
    annotate(write(TEXT), CANDIDATES, tmp_path / "out.onnx")
    node = onnx.load(tmp_path / "out.onnx").graph.node[0]
    found = {entry.key: entry.value for entry in node.metadata_props}
    assert found == {
        "dse.candidates.in0": '["mxfp8"]',
        "dse.candidates.in1": '["mxfp4", "nvfp4:gptq", null]',
        "dse.chosen.in1": '"mxfp4"',
    }


def test_annotating_again_replaces(write, tmp_path):
    path = write(TEXT)
    annotate(path, CANDIDATES, path)
    fewer = Annotations(candidates={"MatMul_0/in1": (quantizer("int8_channel"),)})
    annotate(path, fewer, path)
    assert read_annotations(path) == fewer


def test_a_model_without_annotations_has_none(write):
    assert read_annotations(write(TEXT)) is None


def test_an_unknown_site_is_refused_and_nothing_written(write, tmp_path):
    with pytest.raises(GraphError, match=r"'MatMul_0/in9'; did you mean 'MatMul_0/in"):
        annotate(write(TEXT), Annotations(ties={"t": ("MatMul_0/in9",)}), tmp_path / "out.onnx")
    assert not (tmp_path / "out.onnx").exists()


def test_a_folder_that_does_not_exist_is_an_error(write, tmp_path):
    with pytest.raises(WriteError, match="cannot be written"):
        annotate(write(TEXT), CANDIDATES, tmp_path / "none" / "out.onnx")


def test_external_data_come_along(write, tmp_path):
    path = write(TEXT)
    make_external(path)
    other = tmp_path / "other"
    other.mkdir()
    annotate(path, CANDIDATES, other / "out.onnx")
    assert (other / "w.bin").read_bytes() == (tmp_path / "w.bin").read_bytes()
    assert load(other / "out.onnx").has_weights
    np.testing.assert_array_equal(run(other / "out.onnx"), run(path))


def test_external_data_of_another_model_are_not_overwritten(write, tmp_path):
    path = write(TEXT)
    make_external(path)
    other = tmp_path / "other"
    other.mkdir()
    (other / "w.bin").write_bytes(b"something else")
    with pytest.raises(GraphError, match="exists and differs"):
        annotate(path, CANDIDATES, other / "out.onnx")
    assert (other / "w.bin").read_bytes() == b"something else"
