"""What a program refuses, and control flow."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
import torch

from dse.errors import DataError, GraphError
from dse.execute.program.program import Program
from dse.graph.ir.graph import Graph
from dse.graph.onnx.load import load
from tests.execute.conftest import Exported


def graph(tmp_path: Path, text: str) -> Graph:
    path = tmp_path / "model.onnx"
    onnx.save(onnx.parser.parse_model(text), path)
    return load(path)


def test_all_unsupported_operators_are_named_with_their_nodes(tmp_path: Path) -> None:
    text = """
    <ir_version: 8, opset_import: ["": 17, "custom": 1]>
    g (float[4] x) => (float[4] y)
    { [a] p = custom.Wobble (x)  [b] q = Bernoulli (p)  [c] y = custom.Wobble (q) }
    """
    with pytest.raises(GraphError) as caught:
        Program(graph(tmp_path, text))
    message = str(caught.value)
    assert "2 unsupported operators" in message
    assert "Bernoulli: b" in message
    assert "custom.Wobble: a, c" in message


def test_unsupported_operators_inside_bodies_are_named(tmp_path: Path) -> None:
    text = """
    <ir_version: 8, opset_import: ["": 17]>
    g (float[4] x, bool c) => (float[4] y)
    { y = If (c) <then_branch = t () => (float[4] z) { [inner] z = Bernoulli (x) },
                  else_branch = e () => (float[4] z) { z = Identity (x) }> }
    """
    with pytest.raises(GraphError, match="Bernoulli: If_0/then_branch/inner"):
        Program(graph(tmp_path, text))


def test_graph_without_weights_is_refused() -> None:
    path = Path(__file__).parents[3] / "dse" / "zoo" / "llama-3-8b" / "model.onnx"
    with pytest.raises(GraphError, match=r"constants have no data .* values need the weights"):
        Program(load(path))


def test_feeds_are_checked_together(exported: Callable[[str], Exported]) -> None:
    model = exported("vit-dynamo18")
    name = model.graph.inputs[0]
    with pytest.raises(DataError) as caught:
        model.program.run({name: torch.zeros(2, 3, 31, 32), f"{name}s": torch.zeros(1)})
    assert f"feed '{name}s' is no input of the graph; did you mean '{name}'?" in str(caught.value)
    assert "has shape [2, 3, 32, 32], fed [2, 3, 31, 32]" in str(caught.value)
    with pytest.raises(DataError, match=f"input '{name}' is not fed"):
        model.program.run({})


def test_feeds_take_the_type_of_the_input(exported: Callable[[str], Exported]) -> None:
    model = exported("resnet18-dynamo18")
    (x,) = model.feeds.values()
    outputs = model.program.run({model.graph.inputs[0]: x.double()}).outputs
    assert all(value.dtype == torch.float32 for value in outputs.values())


def test_a_failing_node_is_named_with_what_it_was_given(tmp_path: Path) -> None:
    text = """
    <ir_version: 8, opset_import: ["": 17]>
    g (float[N, 4] x, float[M, 4] w) => (float[N, 4] y) { [sum] y = Add (x, w) }
    """
    program = Program(graph(tmp_path, text))
    expected = r"sum \(Add\) cannot be executed on \(float32\[2, 4\], float32\[3, 4\]\)"
    with pytest.raises(GraphError, match=expected):
        program.run({"x": torch.zeros(2, 4), "w": torch.zeros(3, 4)})


LOOP = """
<ir_version: 8, opset_import: ["": 17]>
g (float[2, 2] x) => (float[2, 2] y)
<int64 n = {3}, float[2, 2] w = {0, 1, 2, 0}>
{
    [loop] y = Loop (n, , x) <body = b (int64 i, bool c, float[2, 2] h) => (bool d, float[2, 2] z)
    { d = Identity (c)  z = MatMul (h, w) }>
}
"""


def test_loop_reads_outer_values_and_counts_its_macs(tmp_path: Path) -> None:
    execution = Program(graph(tmp_path, LOOP)).run({"x": torch.eye(2)})
    weight = torch.tensor([[0.0, 1.0], [2.0, 0.0]])
    torch.testing.assert_close(execution.outputs["y"], torch.linalg.matrix_power(weight, 3))
    assert execution.macs == 3 * 2 * 2 * 2


def test_macs_are_those_of_the_layers(exported: Callable[[str], Exported]) -> None:
    """ResNet-18 by hand: every convolution's outputs times its taps, and the classifier."""
    model = exported("resnet18-dynamo18")
    expected = 0

    def count(module: torch.nn.Conv2d | torch.nn.Linear, _: object, output: torch.Tensor) -> None:
        nonlocal expected
        expected += output.numel() * module.weight[0].numel()

    layers = [
        m for m in model.module.modules() if isinstance(m, torch.nn.Conv2d | torch.nn.Linear)
    ]
    handles = [layer.register_forward_hook(count) for layer in layers]
    with torch.no_grad():
        model.module(*model.feeds.values())
    for handle in handles:
        handle.remove()
    assert model.program.run(model.feeds).macs == expected


def test_import_leaves_torch_as_it_is() -> None:
    code = (
        "import torch; before = (torch.get_num_threads(), torch.is_grad_enabled());"
        "import dse.execute.program.program, dse.execute.emulate;"
        "assert (torch.get_num_threads(), torch.is_grad_enabled()) == before"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.cuda
@pytest.mark.parametrize("name", ["llama-dynamo18", "llama-dynamo23", "resnet18-dynamo18"])
def test_cuda_agrees_with_cpu(name: str, exported: Callable[[str], Exported]) -> None:
    if not torch.cuda.is_available():
        pytest.skip("torch finds no CUDA device")
    model = exported(name)
    on_device = Program(model.graph, device="cuda").run(model.feeds).outputs
    for key, expected in model.program.run(model.feeds).outputs.items():
        torch.testing.assert_close(on_device[key].cpu(), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", ["gpt2-dynamo18", "llama-dynamo23", "vit-torchscript17",
                                  "resnet18-dynamo18", "recurrent-torchscript14"])  # fmt: skip
def test_no_shape_waits_for_the_device(name: str, exported: Callable[[str], Exported]) -> None:
    """The meta device has shapes and no values: reading one on the host would raise."""
    model = exported(name)
    on_meta = Program(model.graph, device="meta").run(model.feeds)
    plain = model.program.run(model.feeds)
    assert on_meta.macs == plain.macs
    for key, expected in plain.outputs.items():
        assert on_meta.outputs[key].shape == expected.shape
        assert on_meta.outputs[key].device.type == "meta"
