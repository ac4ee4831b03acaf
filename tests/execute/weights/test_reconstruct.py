"""Blocks of networks, and roundings that lower the error at their ends."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from dse.errors import AssignmentError
from dse.execute.program.program import Program
from dse.execute.quantizers import bound
from dse.execute.weights.blocks import blocks_of
from dse.execute.weights.calibrate import Calibration
from dse.execute.weights.learn import WeightStates
from dse.execute.weights.product import products_of
from dse.execute.weights.reconstruct import FORWARDS, STEPS, beside
from dse.graph.ir.assignment import Assignment
from dse.graph.onnx.load import load
from dse.graph.patterns.analysis import Analysis
from dse.numerics import QuantizerState
from hwmodels.formats.catalog import quantizer

TEXT = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[N, 6] x) => (float[N, 4] y)
<float[6, 8] a, float[8, 8] b, float[8, 8] c, float[8, 8] d, float[8, 8] e, float[8, 4] f> {
  [one] p = MatMul(x, a)
  [two] q = MatMul(p, b)
  r = Relu(q)
  [three] s = MatMul(r, c)
  t = Add(s, p)
  u = Relu(t)
  [four] v = MatMul(u, d)
  [five] w = MatMul(u, e)
  z = Add(v, w)
  [six] y = MatMul(z, f)
}
"""
KEYS = [f"{name}/in1" for name in ("one", "two", "three", "four", "five", "six")]
EMPTY = Calibration(statistics={})
NAME = "int2_channel:blockwise"


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Program:
    """A branch around two products, and two products of one value."""
    model = onnx.parser.parse_model(TEXT)
    rng = np.random.default_rng(0)
    for name, shape in {"a": (6, 8), "f": (8, 4), **dict.fromkeys("bcde", (8, 8))}.items():
        values = rng.standard_normal(shape).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    path = tmp_path_factory.mktemp("blocks") / "m.onnx"
    onnx.save(model, path)
    return Program(load(path))


@pytest.fixture(scope="module")
def sites(network):
    return Analysis(network.graph).by_key


@pytest.fixture(scope="module")
def feeds():
    generator = torch.Generator().manual_seed(0)
    mixed = torch.randn(6, 6, generator=generator)
    return [{"x": torch.randn(64, 6, generator=generator) @ mixed + 1} for _ in range(2)]


def blocks(network, sites):
    products = products_of(
        network.graph, {k: network.constant(sites[k].value).shape for k in KEYS}
    )
    return blocks_of(network.graph, products, {key: sites[key].value for key in KEYS})


def test_a_block_ends_where_one_value_leads_on(network, sites):
    found = blocks(network, sites)
    assert [list(block.weights) for block in found] == [KEYS[:3], KEYS[3:]]
    assert [block.source for block in found] == [None, "u"], "past the branch and its ReLU"
    assert [block.graph.outputs for block in found] == [("u",), ("y",)]


def test_blocks_one_after_the_other_are_the_network(network, sites, feeds):
    value = feeds[0]
    for block in blocks(network, sites):
        weights = {name: network.constant(name) for name in block.weights.values()}
        value = Program(block.graph).run({**value, **weights}).outputs
    expected = network.run(feeds[0]).outputs["y"]
    torch.testing.assert_close(value["y"], expected, rtol=0, atol=0)


def error(network, sites, feeds, name, keys=KEYS):
    states = WeightStates(network, sites, lambda: feeds)
    hooks = bound(Assignment.of(dict.fromkeys(keys, quantizer(name))), sites, EMPTY, states)
    outputs = [(network.run(x, hooks).outputs["y"], network.run(x).outputs["y"]) for x in feeds]
    return float(torch.cat([a - b for a, b in outputs]).square().mean())


@pytest.mark.parametrize("correction", ["bias_corrected", "uncorrected"])
def test_the_end_of_a_block_errs_less_than_after_gptq(correction, network, sites, feeds):
    names = [f"int2_channel:{method}:{correction}" for method in ("blockwise", "gptq")]
    learned, layerwise = (error(network, sites, feeds, name, KEYS[3:]) for name in names)
    assert learned < 0.95 * layerwise


def test_a_state_does_not_depend_on_what_else_is_asked_for(network, sites, feeds):
    alone, together = (WeightStates(network, sites, lambda: feeds) for _ in range(2))
    alone.prepare([("two/in1", quantizer(NAME))])
    together.prepare([(key, quantizer(NAME)) for key in reversed(KEYS)])
    first, second = (s.state("two/in1", quantizer(NAME)) for s in (alone, together))
    assert first is not None
    assert second is not None
    assert first.values is not None
    assert second.values is not None
    assert torch.equal(first.values, second.values)


def test_every_pass_is_booked(network, sites, feeds):
    spent = {}
    for name in ("int2_channel:gptq", NAME):
        states = WeightStates(network, sites, lambda: feeds)
        states.prepare([(key, quantizer(name)) for key in KEYS])
        spent[name] = states.macs
    batch = network.run(feeds[0]).macs
    # Full precision's values, both ends judged, and the steps.
    passes = len(feeds) + 2 * len(feeds) + FORWARDS * STEPS
    assert spent[NAME] - spent["int2_channel:gptq"] == passes * batch


def test_the_other_side_of_a_value_is_across_the_weight():
    matrix = torch.tensor([[[0.4, 0.6, -1.2, 0.3]]])
    start = torch.tensor([[[0.0, 1.0, 0.0, 2.0]]])
    state = QuantizerState(scales=torch.tensor([[1.0]]))
    found = beside(matrix, start, quantizer("int4_channel"), state)
    assert found.down.tolist() == [[[0.0, 0.0, -1.0, 1.0]]]
    assert found.up.tolist() == [[[1.0, 1.0, 0.0, 2.0]]], "towards it, where it is further away"


def test_weights_in_bodies_are_refused(tmp_path: Path):
    text = """
    <ir_version: 8, opset_import: ["" : 17]>
    g (float[N, 2] x, bool c) => (float[N, 2] y) <float[2, 2] w = {1, 2, 3, 4}> {
      y = If (c) <
        then_branch = t () => (float[N, 2] a) { [inner] a = MatMul(x, w) },
        else_branch = e () => (float[N, 2] b) { b = Relu(x) }
      >
    }
    """
    onnx.save(onnx.parser.parse_model(text), tmp_path / "m.onnx")
    program = Program(load(tmp_path / "m.onnx"))
    sites = Analysis(program.graph).by_key
    feeds = [{"x": torch.ones(1, 2), "c": torch.tensor(True)}]
    (key,) = (key for key, site in sites.items() if site.role == "weight")
    with pytest.raises(AssignmentError, match="needs a weight of the graph itself"):
        WeightStates(program, sites, lambda: feeds).prepare([(key, quantizer(NAME))])
