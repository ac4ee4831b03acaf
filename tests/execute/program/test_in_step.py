"""Runs that wait for each other at weights give what each gives alone, and make a weight once."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import onnx.parser
import pytest
import torch
from torch import Tensor

from dse.execute.program import block
from dse.execute.program import trace as trace_module
from dse.execute.program.passage import Kept
from dse.execute.program.program import Program
from dse.execute.program.recent import RecentTensors
from dse.graph.ir.graph import Graph
from dse.graph.onnx.load import load

BATCHES, LAYERS, WIDTH = 3, 4, 8


@pytest.fixture
def graph(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Graph:
    """Four products with residual sums and a wide head."""
    monkeypatch.setattr(block, "LARGE_BYTES", WIDTH * WIDTH * 4)
    generator = torch.Generator().manual_seed(0)

    def weight(name: str, columns: int) -> str:
        values = torch.randn(WIDTH * columns, generator=generator).tolist()
        return f"float[{WIDTH}, {columns}] {name} = {{{', '.join(map(str, values))}}}"

    weights = [weight(f"w{i}", WIDTH) for i in range(LAYERS)] + [weight("head", 50)]
    layers = "\n".join(
        f"p{i} = MatMul(h{i}, w{i})\n r{i} = Relu(p{i})\n h{i + 1} = Add(h{i}, r{i})"
        for i in range(LAYERS)
    )
    text = f"""<ir_version: 8, opset_import: ["" : 17]>
    g (float[batch, {WIDTH}] h0) => (float[batch, 50] y)
    <{", ".join(weights)}> {{ {layers}
    y = MatMul(h{LAYERS}, head) }}"""
    onnx.save(onnx.parser.parse_model(text), tmp_path / "m.onnx")
    return load(tmp_path / "m.onnx")


@dataclass(eq=False)
class Halves:
    """Rounds to halves, and counts."""

    calls: Counter[str] = field(default_factory=Counter)
    name: str = ""

    def __call__(self, x: Tensor) -> Tensor:
        self.calls[self.name] += 1
        return (2 * x).round() / 2


def _feeds() -> list[dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return [{"h0": torch.randn(2, WIDTH, generator=generator)} for _ in range(BATCHES)]


def _kept() -> list[Kept]:
    return [Kept(tensors=RecentTensors(0)) for _ in range(BATCHES)]


def test_every_weight_is_quantized_once_where_one_fits_the_cache(graph: Graph) -> None:
    calls: Counter[str] = Counter()
    sites = {
        f"{node.name}/in1": Halves(calls, node.name)
        for node in graph.nodes
        if node.op_type == "MatMul"
    }
    program = Program(graph, weight_cache_bytes=WIDTH * 50 * 4)
    traces = [trace for _, trace in program.trace_each(_feeds(), keep_bytes=0)]
    alone = [program.rerun(trace, sites).outputs["y"] for trace in traces]
    assert set(calls.values()) == {BATCHES}
    calls.clear()
    found = dict(program.rerun_each(traces, sites, _kept()))
    assert set(calls.values()) == {1}
    assert len(calls) == LAYERS + 1
    assert all(torch.equal(found[i].outputs["y"], alone[i]) for i in range(BATCHES))


def test_runs_that_start_further_on_wait_for_the_others(graph: Graph) -> None:
    """What an earlier run has left at a passage is where one of them begins."""
    calls: Counter[str] = Counter()
    products = [node.name for node in graph.nodes if node.op_type == "MatMul"]
    sites = {f"{name}/in1": Halves(calls, name) for name in products}
    program = Program(graph, weight_cache_bytes=WIDTH * 50 * 4)
    traces = [trace for _, trace in program.trace_each(_feeds(), keep_bytes=0)]
    kept = _kept()
    kept[1].tensors.limit_bytes = 1 << 20
    program.rerun(traces[1], sites, kept=kept[1])
    changed = sites | {f"{products[-1]}/in1": Halves(calls, products[-1])}
    calls.clear()
    found = dict(program.rerun_each(traces, changed, kept))
    assert found[1].macs < found[0].macs
    assert set(calls.values()) == {1}
    expected = program.run(_feeds()[1], changed).outputs["y"]
    assert torch.equal(found[1].outputs["y"], expected)


def test_traces_in_step_are_traces(graph: Graph) -> None:
    program = Program(graph)
    for number, trace in program.trace_each(_feeds(), keep_bytes=1 << 20):
        alone = program.trace(_feeds()[number], keep_bytes=1 << 20)
        assert torch.equal(trace.execution.outputs["y"], alone.execution.outputs["y"])
        assert trace.values.keys() == alone.values.keys()
        assert trace.execution.macs == alone.execution.macs


def test_ends_keep_what_leads_to_the_outputs_and_not_those(
    graph: Graph, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trace_module, "SMALL_BYTES", 0)
    program = Program(graph)
    for _, trace in program.trace_each(_feeds(), keep_bytes=0, ends=True):
        assert trace.bytes == 2 * WIDTH * 4  # the last layer's output: (2, WIDTH)
        again = program.rerun(trace, {})
        assert torch.equal(again.outputs["y"], trace.execution.outputs["y"])
        assert again.macs == 2 * WIDTH * 50
