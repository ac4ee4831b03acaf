"""The axis that counts samples is the one that recurrences take for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest

from dse.data import graph_shapes, samples_name
from dse.graph.ir.graph import Graph
from dse.graph.onnx.dimension import dimensions
from dse.graph.onnx.load import load

FEATURES, HIDDEN = 8, 16
LSTM = "h, last = LSTM <hidden_size = 16{layout}> ({x}, w, r)"


def graph(folder: Path, inputs: str, body: str, outputs: str = "float[a, b, c, d] h") -> Graph:
    text = f'<ir_version: 8, opset_import: ["" : 17]>\ng ({inputs}) => ({outputs})\n{{ {body} }}'
    model = onnx.parser.parse_model(text)
    rng = np.random.default_rng(0)
    for name, shape in (("w", (1, 4 * HIDDEN, FEATURES)), ("r", (1, 4 * HIDDEN, HIDDEN))):
        weight = rng.normal(size=shape).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(weight, name))
    onnx.save(model, folder / "m.onnx")
    return load(folder / "m.onnx")


@pytest.mark.parametrize(
    ("inputs", "body", "samples", "shapes"),
    [
        ("float[?, ?, 8] x", LSTM.format(layout="", x="x"), {"x": 1}, {"x": ("?", "batch", 8)}),
        ("float[?, ?, 8] x", LSTM.format(layout=", layout = 1", x="x"), {}, {"x": ("?", "?", 8)}),
        ("float[T, N, 8] x", LSTM.format(layout="", x="x"), {"x": 1}, {"x": ("T", "batch", 8)}),
        ("float[?, 1, 8] x", LSTM.format(layout="", x="x"), {"x": 1}, {"x": ("?", "batch", 8)}),
        # Names that say it are believed.
        ("float[batch, T, 8] x", LSTM.format(layout="", x="x"), {},
         {"x": ("batch", "T", 8)}),
        # What torch writes for batch_first.
        ("float[?, ?, 8] x",
         "t = Transpose <perm = [1, 0, 2]> (x) " + LSTM.format(layout="", x="t"),
         {}, {"x": ("?", "?", 8)}),
        ("float[8, ?, ?] x",
         "n = Relu(x) t = Transpose <perm = [2, 1, 0]> (n) " + LSTM.format(layout="", x="t"),
         {"x": 1}, {"x": (8, "batch", "?")}),
        ("float[?, ?, 8] x, float[1, ?, 16] h0, float[1, ?, 16] c0",
         "h, last = LSTM <hidden_size = 16> (x, w, r, , , h0, c0)",
         {"x": 1, "h0": 1, "c0": 1},
         {"x": ("?", "batch", 8), "h0": (1, "batch", 16), "c0": (1, "batch", 16)}),
    ],
)  # fmt: skip
def test_recurrences_say_which_axis_counts_samples(
    inputs: str, body: str, samples: dict, shapes: dict, tmp_path: Path
) -> None:
    found = graph(tmp_path, inputs, body)
    assert found.samples == samples
    plain = {
        name: tuple("?" if size is None else size for size in shape or ())
        for name, shape in graph_shapes(found).items()
    }
    assert plain == shapes


def test_the_names_of_sizes_stay_what_they_are_and_reach_the_results(tmp_path: Path) -> None:
    found = graph(tmp_path, "float[?, ?, 8] x", LSTM.format(layout="", x="x"), "float[?,?,?,?] h")
    assert dimensions(found) == ("x.0", "x.1")
    assert samples_name(found) == "x.1"
    shape = found.shape("h")
    assert shape is not None
    assert shape[1:] == (1, "x.1", HIDDEN)
    named = graph(tmp_path, "float[T, N, 8] x", LSTM.format(layout="", x="x"))
    assert dimensions(named) == ("T", "N")
    assert samples_name(named) == "N"
