"""A table is tied to the products that sum over its rows, whatever copies stand between."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest

from dse.graph.onnx.load import load
from dse.graph.patterns.analysis import Analysis

ROWS, DEPTH = 48, 32
HEAD = '<ir_version: 8, opset_import: ["" : 17]> g (int64[b, s] ids) => (float[{shape}] y) {{'
LOGITS, HIDDEN = "b, s, 48", "b, s, 32"


def _analysis(folder: Path, shape: str, body: str) -> Analysis:
    model = onnx.parser.parse_model(HEAD.format(shape=shape) + body + "}")
    table = np.random.default_rng(0).normal(size=(ROWS, DEPTH)).astype(np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(table, "table"))
    onnx.save(model, folder / "m.onnx")
    return Analysis(load(folder / "m.onnx"))


@pytest.mark.parametrize(
    ("body", "turned"),
    [
        ("h = Gather (table, ids)  t = Transpose (table)  y = MatMul (h, t)", True),
        ("h = Gather (table, ids)  u = Identity (table)  t = Transpose <perm = [1, 0]> (u)"
         "  y = MatMul (h, t)", True),
        ("t = Transpose (table)  u = Transpose (t)  h = Gather (u, ids)  y = MatMul (h, t)", True),
        ("h = Gather (table, ids)  n = Constant <value = int64[2] {-1, 32}> ()"
         "  r = Reshape (h, n)  g = Gemm <transB = 1> (r, table)"
         "  m = Constant <value = int64[3] {2, -1, 48}> ()  y = Reshape (g, m)", False),
    ],
)  # fmt: skip
def test_a_head_is_tied_to_its_table(tmp_path: Path, body: str, turned: bool) -> None:
    (tie,) = _analysis(tmp_path, LOGITS, body).ties
    assert tie.look_up.operand == "in0"
    assert [one.turned for one in tie.products] == [turned]


def test_a_product_along_the_words_is_no_reader_of_rows(tmp_path: Path) -> None:
    body = "h = Gather (table, ids)  t = Transpose (table)  l = MatMul (h, t)"
    found = _analysis(tmp_path, HIDDEN, body + "  y = MatMul (l, table)")
    (tie,) = found.ties
    weights = [site for site in found.sites if site.role == "weight"]
    assert len(weights) == 2
    assert [one.site.key for one in tie.products] == [weights[0].key]


def test_a_table_alone_is_tied_to_nothing(tmp_path: Path) -> None:
    found = _analysis(tmp_path, HIDDEN, "h = Gather (table, ids)  y = Relu (h)")
    assert len(found.tables) == 1
    assert found.ties == ()
