"""One scheme or format everywhere."""

from __future__ import annotations

import onnx.parser
import pytest

from dse.graph.onnx.load import load
from dse.graph.patterns.analysis import Analysis
from dse.model import open_model
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


@pytest.mark.parametrize("name", ["q4_0", "q6_k", "q4_k:mse", "iq4_nl", "int4_g32"])
def test_blocks_of_files_stand_at_weights_alone(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """As `llama-quantize --pure` writes them; no runtime rounds activations or caches so."""
    analysis = open_model("zoo:byte-gpt").analysis
    sites = uniform_assignment(analysis.regions, name, analysis.ties).as_dict()
    of_files = name != "int4_g32"
    for key, found in sites.items():
        is_weight = analysis.by_key[key].role == "weight"
        assert (found.format.name == name.partition(":")[0]) is (is_weight or not of_files), key
        assert is_weight or not of_files or found.format.name == "bf16"
    roles = {analysis.by_key[key].role for key in sites}
    assert len(roles) > 1
    assert any("blocks of GGUF" in one for one in caplog.messages) is of_files
