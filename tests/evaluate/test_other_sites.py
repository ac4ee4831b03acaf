"""Formats at operands that no product has: emulated where an assignment names them, and said."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
import pytest
import torch

from dse.evaluate.model import evaluate_model
from dse.graph.ir.assignment import Assignment
from dse.graph.patterns.analysis import Analysis
from dse.model import open_model
from dse.numerics import quantize
from dse.predict import Usage, predict
from dse.space.schema import Data
from hwmodels.formats.catalog import quantizer

MODEL = """
<ir_version: 8, opset_import: ["" : 17]>
g (int64[batch, sequence] ids) => (float[batch, sequence, 48] logits) {
    h = Gather (table, ids)
    a = MatMul (h, w)
    t = Transpose <perm = [1, 0]> (table)
    logits = MatMul (a, t)
}
"""
ROWS, DEPTH = 48, 32


@pytest.fixture(scope="module")
def analysis(tmp_path_factory: pytest.TempPathFactory) -> Analysis:
    folder = tmp_path_factory.mktemp("tied")
    rng = np.random.default_rng(0)
    model = onnx.parser.parse_model(MODEL)
    for name, shape in (("table", (ROWS, DEPTH)), ("w", (DEPTH, DEPTH))):
        weight = rng.normal(size=shape).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(weight, name))
    onnx.save(model, folder / "m.onnx")
    np.savez(folder / "d.npz", ids=rng.integers(0, ROWS, size=(24, 4)))
    return open_model(str(folder / "m.onnx")).analysis


@pytest.mark.parametrize("name", ["int8_channel", "int4_g32", "mxfp4"])
def test_a_table_is_rounded_along_its_rows(analysis: Analysis, name: str) -> None:
    path = analysis.graph.path
    assert path is not None
    chosen = Assignment.of({"Gather_0/in0": quantizer(name)})
    found = evaluate_model(analysis, chosen, Data(source=str(path.with_name("d.npz")), report=8))
    table = torch.from_numpy(analysis.graph.initializers["table"].numpy().copy())
    rounded = quantize(table, quantizer(name).settled(weight=False), axes=(1,))
    ids = torch.from_numpy(np.load(path.with_name("d.npz"))["ids"])
    w = torch.from_numpy(analysis.graph.initializers["w"].numpy().copy())

    def answers(rows: torch.Tensor) -> torch.Tensor:
        return torch.log_softmax(rows[ids] @ w @ table.T, dim=-1)

    exact, other = answers(table), answers(rounded)
    divergence = (exact.exp() * (exact - other)).sum(-1)
    assert found.quantized.loss > 0
    assert divergence.min() >= -1e-6
    # The report split holds eight of these samples.
    losses = np.sort(divergence.mean(-1).numpy())
    assert losses[0] - 1e-6 <= found.quantized.loss <= losses[-1] + 1e-6


def test_a_format_that_no_price_holds_is_named(analysis: Analysis) -> None:
    chosen = Assignment.of({
        "Gather_0/in0": quantizer("int8_channel"), "MatMul_3/in1": quantizer("int8_channel"),
    })  # fmt: skip
    (found,) = predict(
        analysis.graph,
        ["h100-sxm:free"],
        [],
        usage=Usage(dims={"batch": 1, "sequence": 4}),
        assignment=chosen,
    )
    assert any("not priced: formats at Gather_0/in0" in remark for remark in found.remarks)
    head = quantizer("int8_channel").format.storage_bytes((DEPTH, ROWS), (0,))
    assert found.cost.weight_bytes == 2 * ROWS * DEPTH + 2 * DEPTH * DEPTH + head
