"""Quantized values take the memory of what nothing else reads, and of nothing more."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import onnx
import pytest
import torch

from dse.execute.emulate import Emulator
from dse.execute.program.program import Program
from dse.graph.onnx.load import load
from hwmodels.formats.catalog import quantizer

GRAPH = """
<ir_version: 8, opset_import: ["": 17]>
g (float[3, 32] x) => (float[3, 32] y, float[3, 32] z)
{
    [alone] a = Relu (x)
    [first] b = MatMul (a, w)
    [view] v = Identity (b)
    [second] c = MatMul (v, w)
    [shared] s = Relu (c)
    [third] d = MatMul (s, w)
    y = Add (d, s)
    [fed] z = MatMul (x, w)
}
"""


class Watch(Emulator):
    """An emulator that says whose memory it took."""

    taken: ClassVar[list[int]] = []

    def overwrite(self, x: torch.Tensor, *, largest: torch.Tensor | None = None) -> torch.Tensor:
        Watch.taken.append(x.numel())
        return super().overwrite(x, largest=largest)


@pytest.fixture
def program(tmp_path: Path) -> Program:
    proto = onnx.parser.parse_model(GRAPH)
    weight = torch.randn(32, 32, generator=torch.Generator().manual_seed(0))
    proto.graph.initializer.append(onnx.numpy_helper.from_array(weight.numpy(), "w"))
    onnx.save(proto, tmp_path / "m.onnx")
    return Program(load(tmp_path / "m.onnx"))


@pytest.mark.parametrize("site", ["first", "second", "third", "fed"])
def test_only_a_result_that_is_read_once_is_overwritten(site: str, program: Program) -> None:
    x = torch.randn(3, 32, generator=torch.Generator().manual_seed(1))
    Watch.taken = []
    watched = Watch(quantizer=quantizer("mxfp4"), axes=(1,))
    fed = x.clone()
    got = program.run({"x": fed}, {f"{site}/in0": watched}).outputs
    assert Watch.taken == ([96] if site == "first" else [])
    assert torch.equal(fed, x)
    # A trace keeps every value, so that nothing is overwritten there.
    expected = program.trace({"x": x}, {f"{site}/in0": watched}).execution.outputs
    assert Watch.taken == ([96] if site == "first" else [])
    assert torch.equal(got["y"], expected["y"])
    assert torch.equal(got["z"], expected["z"])
