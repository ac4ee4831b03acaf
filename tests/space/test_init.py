"""A drafted space names what the model needs and parses."""

from pathlib import Path

import onnx.parser

from dse.model import open_model
from dse.space.init import Draft, space_text
from dse.space.load import parse_space

TEXT = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[batch, sequence, 4] x, float[batch, rest, 4] cache)
  => (float[batch, sequence, 4] y, float[batch, total, 4] kept)
<float[4, 4] w = {1,0,0,0,0,1,0,0,0,0,1,0,0,0,0,1}>
{ y = MatMul(x, w)  kept = Identity(cache) }
"""


def test_a_draft_binds_each_size_once_whatever_sums_of_them_the_inputs_have(
    tmp_path: Path,
) -> None:
    model = onnx.parser.parse_model(TEXT)
    model.graph.input[1].type.tensor_type.shape.dim[1].dim_param = "past + sequence"
    onnx.save(model, tmp_path / "m.onnx")
    opened = open_model("m.onnx", folder=tmp_path)
    space = parse_space(space_text(opened, "m.onnx", Draft(data="d.npz")), origin="draft")
    assert set(space.scenario.phases["call"].dims) == {"batch", "sequence", "past"}
    assert space.model == "m.onnx"
    assert space.data.source == "d.npz"
