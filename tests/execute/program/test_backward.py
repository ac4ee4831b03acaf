"""The backward pass a part at a time has the gradients of the whole one, and holds one part."""

from __future__ import annotations

from pathlib import Path

import onnx.parser
import pytest
import torch
from torch import Tensor

from dse.execute.program.program import Program
from dse.graph.ir.site import SUM_ROLE
from dse.graph.onnx.load import load
from dse.graph.patterns.analysis import Analysis
from dse.model import open_model

LAYERS, WIDTH, BATCH = 6, 16, 4
RESULT = 4 * BATCH * WIDTH
WEIGHT = 4 * WIDTH * WIDTH
LAYER = WEIGHT + 3 * RESULT
"""Bytes of a layer: the gradient of its weight, and what its three nodes make."""


class Seen:
    """Keeps what passes, and notes how many hold something at once."""

    holding: set[int] = set()  # noqa: RUF012 (of one test, which empties it)

    def __init__(self) -> None:
        self.tensors: list[Tensor] = []

    def __call__(self, x: Tensor) -> Tensor:
        tracked = x.view_as(x) if x.requires_grad else x.detach().requires_grad_()
        tracked.retain_grad()
        self.tensors.append(tracked)
        self.holding.add(id(self))
        return tracked

    @property
    def holds(self) -> bool:
        return bool(self.tensors)

    def forget(self) -> None:
        self.tensors.clear()
        self.holding.discard(id(self))

    @property
    def gradient(self) -> Tensor | None:
        """Of what passed last."""
        return self.tensors[-1].grad


@pytest.fixture
def program(tmp_path: Path) -> Program:
    """A chain with residual sums; its first value is read at the end again, past all parts."""
    generator = torch.Generator().manual_seed(0)

    def weight(name: str) -> str:
        values = torch.randn(WIDTH * WIDTH, generator=generator) / 4
        return f"float[{WIDTH}, {WIDTH}] {name} = {{{', '.join(map(str, values.tolist()))}}}"

    layers = "\n".join(
        f"p{i} = MatMul(h{i}, w{i})\n r{i} = Tanh(p{i})\n h{i + 1} = Add(h{i}, r{i})"
        for i in range(LAYERS)
    )
    text = f"""<ir_version: 8, opset_import: ["" : 17]>
    g (float[batch, {WIDTH}] x) => (float[batch, {WIDTH}] y)
    <{", ".join(weight(f"w{i}") for i in range(LAYERS + 1))}> {{
    h0 = MatMul(x, w{LAYERS})
    {layers}
    y = Mul(h{LAYERS}, h0) }}"""
    onnx.save(onnx.parser.parse_model(text), tmp_path / "m.onnx")
    return Program(load(tmp_path / "m.onnx"))


def sites(program: Program) -> list[str]:
    products = [node for node in program.graph.nodes if node.op_type == "MatMul"]
    return [f"{node.name}/in{i}" for node in products for i in (0, 1)]


def gradients(program: Program, part_bytes: int) -> tuple[list[Tensor], int, int, int]:
    """Of every site in order; parts, most watches of one that hold something, MACs."""
    feeds = {"x": torch.linspace(-1, 1, BATCH * WIDTH).reshape(BATCH, WIDTH)}
    watches = {key: Seen() for key in sites(program)}
    Seen.holding.clear()
    outputs, back = program.watched(feeds, watches, part_bytes=part_bytes)
    value = outputs["y"]
    assert isinstance(value, Tensor)
    with torch.enable_grad():
        scalar = value.square().sum()
    found: dict[int, Tensor] = {}
    count = most = 0
    for part in back.parts(scalar):
        most, count = max(most, len(Seen.holding)), count + 1
        for watch in part:
            assert isinstance(watch, Seen)
            assert watch.gradient is not None
            found[id(watch)] = watch.gradient.clone()
            watch.forget()
    return [found[id(watch)] for watch in watches.values()], count, most, back.macs


@pytest.mark.parametrize("part_bytes", [0, RESULT, LAYER, 2 * LAYER, 3 * LAYER])
def test_parts_have_the_gradients_of_the_whole(program: Program, part_bytes: int) -> None:
    whole, one, all_of_them, macs = gradients(program, 10**9)
    assert (one, all_of_them) == (1, 2 * (LAYERS + 1))
    found, count, most, spent = gradients(program, part_bytes)
    assert count > 1
    assert most < all_of_them
    assert macs < spent < 2 * macs + 1
    for a, b in zip(found, whole, strict=True):
        assert torch.equal(a, b)


def test_a_part_ends_where_few_bytes_lead_on(program: Program) -> None:
    """After a residual sum two values do, between product and sum three."""
    _, back = program.watched(
        {"x": torch.ones(BATCH, WIDTH)}, {key: Seen() for key in sites(program)},
        part_bytes=2 * LAYER,
    )  # fmt: skip
    steps = [node.op_type for node in program.graph.nodes]
    ends = [part.end for part in back._parts[:-1]]
    assert {steps[end - 1] for end in ends} <= {"Add", "MatMul"}
    assert "Add" in {steps[end - 1] for end in ends}


@pytest.mark.parametrize("part_bytes", [1 << 18, 1 << 40])
def test_chains_that_run_as_one_step_are_watched_inside(part_bytes: int) -> None:
    """Attention's probabilities are an operand between its two products."""
    graph = open_model("zoo:byte-gpt").graph
    program = Program(graph)
    keys = [key for key, site in Analysis(graph).by_key.items() if site.role != SUM_ROLE]
    feeds = {"tokens": torch.arange(64).reshape(2, 32)}
    whole = {key: Seen() for key in keys}
    with torch.enable_grad():
        program.run(feeds, whole).outputs["logits"].square().mean().backward()
    watches = {key: Seen() for key in keys}
    outputs, back = program.watched(feeds, watches, part_bytes=part_bytes)
    value = outputs["logits"]
    assert isinstance(value, Tensor)
    with torch.enable_grad():
        scalar = value.square().mean()
    found: dict[int, Tensor | None] = {}
    for part in back.parts(scalar):
        found |= {id(watch): watch.gradient for watch in part if isinstance(watch, Seen)}
    assert len(found) == len(keys)
    for key in keys:
        gradient, expected = found[id(watches[key])], whole[key].gradient
        assert gradient is not None
        assert expected is not None
        assert torch.equal(gradient, expected), key


def test_what_no_gradient_reaches_has_none(program: Program) -> None:
    watches = {key: Seen() for key in sites(program)}
    _, back = program.watched({"x": torch.ones(BATCH, WIDTH)}, watches, part_bytes=LAYER)
    passed = [watch for part in back.parts(torch.zeros(())) for watch in part]
    assert len(passed) == len(watches)
    assert all(isinstance(one, Seen) and one.gradient is None for one in passed)
