"""Where quantizers stand, what is shared and what is kept."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import onnx
import pytest
import torch
from torch import Tensor

from dse.errors import AssignmentError
from dse.execute.program.program import Program
from dse.graph.onnx.load import load

GRAPH = """
<ir_version: 8, opset_import: ["": 17]>
fork (float[2, 4] x) => (float[2, 4] p, float[2, 4] q)
<float[4, 4] w = {1,2,3,4, 5,6,7,8, 9,10,11,12, 13,14,15,16}>
{
    [first] h = Relu (x)
    [turned] t = Transpose (w)
    [left] p = MatMul (h, t)
    [right] q = MatMul (h, w)
}
"""


@dataclass
class Double:
    """Doubles, counts its calls, and equals other doubles of its name."""

    name: str = ""
    calls: list[tuple[int, ...]] = field(default_factory=list)

    def __call__(self, x: Tensor) -> Tensor:
        self.calls.append(tuple(x.shape))
        return x * 2

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Double) and self.name == other.name

    def __hash__(self) -> int:
        return hash(self.name)


@pytest.fixture
def program(tmp_path: Path) -> Program:
    path = tmp_path / "fork.onnx"
    onnx.save(onnx.parser.parse_model(GRAPH), path)
    return Program(load(path))


X = torch.tensor([[1.0, -1.0, 2.0, 0.5], [0.0, 3.0, -2.0, 1.0]])
W = torch.arange(1.0, 17.0).reshape(4, 4)
P, Q = X.relu() @ W.T, X.relu() @ W


def run(program: Program, **quantizers: Double) -> tuple[Tensor, Tensor]:
    sites = {key.replace("__", "/"): quantizer for key, quantizer in quantizers.items()}
    outputs = program.run({"x": X}, sites).outputs
    return outputs["p"], outputs["q"]


def test_plain_run(program: Program) -> None:
    p, q = run(program)
    torch.testing.assert_close((p, q), (P, Q))


def test_macs_are_counted(program: Program) -> None:
    assert program.run({"x": X}).macs == 2 * (2 * 4 * 4)


def test_input_site_is_for_that_operand_only(program: Program) -> None:
    p, q = run(program, left__in0=Double())
    torch.testing.assert_close((p, q), (2 * P, Q))


def test_output_site_is_for_every_reader(program: Program) -> None:
    p, q = run(program, first__out0=Double())
    torch.testing.assert_close((p, q), (2 * P, 2 * Q))


def test_site_of_a_folded_node_works(program: Program) -> None:
    p, q = run(program, turned__in0=Double("in"), turned__out0=Double("out"))
    torch.testing.assert_close((p, q), (4 * P, Q))
    torch.testing.assert_close(run(program), (P, Q))


def test_graph_output_can_be_quantized(program: Program) -> None:
    p, q = run(program, left__out0=Double())
    torch.testing.assert_close((p, q), (2 * P, Q))


def test_all_sites_together(program: Program) -> None:
    sites = ("first__in0", "first__out0", "left__in0", "left__in1", "left__out0", "turned__in0")
    p, q = run(program, **{site: Double(site) for site in sites})
    torch.testing.assert_close((p, q), (64 * P, 4 * Q))


def test_equal_quantizers_share_an_activation(program: Program) -> None:
    left, right = Double(), Double()
    run(program, left__in0=left, right__in0=right)
    assert len(left.calls) + len(right.calls) == 1


def test_different_quantizers_do_not_share(program: Program) -> None:
    left, right = Double("a"), Double("b")
    run(program, left__in0=left, right__in0=right)
    assert (len(left.calls), len(right.calls)) == (1, 1)


def test_activations_are_quantized_at_every_run(program: Program) -> None:
    quantizer = Double()
    for _ in range(3):
        run(program, left__in0=quantizer)
    assert len(quantizer.calls) == 3


def test_weights_are_quantized_once(program: Program) -> None:
    quantizer = Double()
    for _ in range(3):
        p, _ = run(program, left__in1=quantizer)
        torch.testing.assert_close(p, 2 * P)
    assert len(quantizer.calls) == 1


def test_weight_cache_has_a_limit(tmp_path: Path) -> None:
    path = tmp_path / "fork.onnx"
    onnx.save(onnx.parser.parse_model(GRAPH), path)
    small = Program(load(path), weight_cache_bytes=W.numel() * 4)
    left, right = Double("a"), Double("b")
    for _ in range(2):
        run(small, left__in1=left, right__in1=right)
    assert (len(left.calls), len(right.calls)) == (2, 2)


def test_unknown_sites_are_named_together(program: Program) -> None:
    with pytest.raises(AssignmentError) as caught:
        run(program, lefty__in0=Double(), right__in2=Double(), right__out1=Double())
    message = str(caught.value)
    assert "no node 'lefty'; did you mean 'left'?" in message
    assert "MatMul has the operands in0, in1, out0, not 'in2'" in message
    assert "not 'out1'" in message


def test_gradients_reach_inputs_through_quantizers(program: Program) -> None:
    x = X.clone().requires_grad_()
    program.run({"x": x}, {"left/in0": Double(), "left/in1": Double()}).outputs[
        "p"
    ].sum().backward()
    expected = 4 * W.sum(0) * (X > 0)
    torch.testing.assert_close(x.grad, expected)


def test_gradients_of_quantized_operands(program: Program) -> None:
    """One backward pass gives the gradient at every site, weights included."""
    taps: dict[str, Tensor] = {}

    def tap(key: str):
        def record(x: Tensor) -> Tensor:
            taps[key] = x.detach().requires_grad_() if not x.requires_grad else x.view_as(x)
            taps[key].retain_grad()
            return taps[key]

        return record

    x = X.clone().requires_grad_()
    sites = {key: tap(key) for key in ("left/in0", "left/in1", "right/in0")}
    outputs = program.run({"x": x}, sites).outputs
    (outputs["p"].sum() + outputs["q"].sum()).backward()
    torch.testing.assert_close(taps["left/in0"].grad, W.sum(0).expand(2, 4))
    torch.testing.assert_close(taps["right/in0"].grad, W.sum(1).expand(2, 4))
    torch.testing.assert_close(taps["left/in1"].grad, X.relu().sum(0).unsqueeze(1).expand(4, 4))


def test_weights_cached_without_gradients_serve_a_later_backward(program: Program) -> None:
    quantizer = Double()
    program.trace({"x": X}, {"left/in1": quantizer})
    x = X.clone().requires_grad_()
    program.run({"x": x}, {"left/in1": quantizer}).outputs["p"].sum().backward()
    assert len(quantizer.calls) == 1
    torch.testing.assert_close(x.grad, 2 * W.sum(0) * (X > 0))
