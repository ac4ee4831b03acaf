"""One scheme or format everywhere."""

from __future__ import annotations

import onnx.parser
import pytest

from dse.graph.onnx.load import load
from dse.graph.patterns.analysis import Analysis
from dse.space.uniform import uniform_assignment

ONE = "y = MatMul(x, w)"
NONE = "y = Relu(x)"


@pytest.mark.parametrize(
    ("nodes", "name", "left"),
    [
        (NONE, "w8a8_int8", True),
        (NONE, "int8_channel", True),
        (ONE, "w8a8_int8", False),
        (ONE, "int8_channel", False),
        (NONE, "bf16", False),
    ],
)
def test_a_scheme_that_covers_nothing_says_so(
    tmp_path, caplog: pytest.LogCaptureFixture, nodes: str, name: str, left: bool
) -> None:
    text = f"""<ir_version: 8, opset_import: ["" : 17]>
    g (float[n, 2] x) => (float[n, 2] y) <float[2, 2] w = {{1, 2, 3, 4}}> {{ {nodes} }}"""
    onnx.save(onnx.parser.parse_model(text), tmp_path / "m.onnx")
    analysis = Analysis(load(tmp_path / "m.onnx"))
    uniform_assignment(analysis.regions, name, analysis.ties)
    assert any("no product of this model takes it" in one for one in caplog.messages) is left
