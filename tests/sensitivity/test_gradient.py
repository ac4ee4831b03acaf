"""Gradient scores against direct ones: the same losses, from one backward pass."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest
import torch
from scipy.stats import spearmanr

from dse.evaluate.evaluator import Evaluator
from dse.evaluate.setup import build_evaluator
from dse.explore.measure.session import prepare
from dse.graph.ir.graph import Graph
from dse.graph.patterns.analysis import Analysis
from dse.model import open_model
from dse.sensitivity import gradient
from dse.sensitivity.gradient import gradient_scores
from dse.space.build import build_problem
from dse.space.load import parse_space
from dse.space.problem import Problem

SPACE = """
model: zoo:fashion-resnet
data: {source: zoo:fashion-resnet, calibration: 8, search: 16, report: 2, batch: 8}
targets: [{device: h100-sxm}]
candidates:
  - match: {}
    use:
      - bf16
      - w8a8_fp8
      - {name: w4a16, weight: "int4_g128:mse:uncorrected", activation: bf16}
ties:
  - {match: {name: "blocks.[012]/*"}, name: early}
  - {match: {name: "blocks.[345]/*"}, name: late}
"""

INSIDE = """
model: zoo:byte-gpt
data: {source: zoo:byte-gpt, calibration: 4, search: 4, report: 2, sequence: 64, batch: 2}
scenario: {phases: {call: {dims: {batch: 1, sequence: 64}}}}
targets: [{device: b200-sxm, runtime: free}]
candidates:
  - match: {kind: attention}
    use: [bf16, {name: p4, probabilities: int4_token}]
  - {match: {}, use: [bf16]}
"""

CANCELLING = """
model: m.onnx
data: {source: data.npz, calibration: 4, search: 4, report: 4, batch: 1}
scenario: {phases: {call: {dims: {batch: 1}}}}
targets: [{device: h100-sxm}]
candidates: [{match: {}, use: [fp32, {name: int4, weight: "int4_channel:absmax:uncorrected"}]}]
"""


def opened(text: str) -> tuple[Evaluator, Problem]:
    space = parse_space(text, origin="test")
    graph: Graph = open_model(space.model).graph
    problem = build_problem(space, Analysis(graph).regions)
    sites = {site.key: site for variable in problem.variables for site in variable.sites}
    quantizers = [
        (site.key, choice.quantizers[site.role])
        for variable in problem.variables
        for choice in variable.choices
        for site in variable.sites
        if site.role in choice.quantizers
    ]
    return build_evaluator(Analysis(graph), space.data, sites, quantizers), problem


@pytest.fixture(scope="module")
def prepared() -> tuple[Evaluator, Problem]:
    return opened(SPACE)


def test_operands_inside_of_a_chain_that_runs_as_one_step_are_scored() -> None:
    """Probabilities of attention pass from one product to the other in one kernel."""
    evaluator, problem = opened(INSIDE)
    number = [len(one.choices) for one in problem.variables].index(2)
    found = gradient_scores(evaluator, problem, split="search").losses(problem)[number]
    measured = [evaluator.measure(problem.changed(number, choice)).loss for choice in (0, 1)]
    assert found[1] > 100 * found[0]
    assert abs(np.log2(found[1] / measured[1])) < 1.5


def _direct(evaluator: Evaluator, problem: Problem) -> np.ndarray:
    return np.array(
        [
            evaluator.measure(problem.changed(v, c)).loss
            for v, variable in enumerate(problem.variables)
            for c in range(len(variable.choices))
        ]
    )


def test_scores_have_the_size_and_the_order_of_measured_losses(
    prepared: tuple[Evaluator, Problem],
) -> None:
    evaluator, problem = prepared
    direct = _direct(evaluator, problem)
    found = np.concatenate(gradient_scores(evaluator, problem, split="search").losses(problem))
    assert spearmanr(found, direct).statistic > 0.9
    assert np.median(np.abs(np.log2(found / direct))) < 1.5


def test_effort_is_three_forwards_of_the_samples_that_were_seen(
    prepared: tuple[Evaluator, Problem],
) -> None:
    evaluator, problem = prepared
    unit = evaluator.forward_macs("search")
    before = evaluator.macs
    gradient_scores(evaluator, problem, split="search")
    assert evaluator.macs - before == 3 * unit
    before = evaluator.macs
    table = gradient_scores(evaluator, problem, split="search", samples=8)
    assert evaluator.macs - before == 3 * unit / 2
    assert {score.samples for score in table.scores} == {8}


def test_parts_of_a_pass_have_its_scores_for_a_forward_more(
    prepared: tuple[Evaluator, Problem], monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluator, problem = prepared
    whole = gradient_scores(evaluator, problem)
    monkeypatch.setattr(gradient, "LEAST_PART_BYTES", 1 << 20)
    small = replace(evaluator, trace_bytes=0)
    unit, before = small.forward_macs("calibration"), small.macs
    found = gradient_scores(small, problem)
    assert 3 * unit < small.macs - before < 4 * unit
    for a, b in zip(found.scores, whole.scores, strict=True):
        assert a.loss == pytest.approx(b.loss, rel=1e-5)


def test_the_seed_alone_decides(prepared: tuple[Evaluator, Problem]) -> None:
    evaluator, problem = prepared
    state = torch.random.get_rng_state()
    first = gradient_scores(evaluator, problem, seed=3)
    assert gradient_scores(evaluator, problem, seed=3) == first
    assert gradient_scores(evaluator, problem, seed=4) != first
    assert torch.equal(torch.random.get_rng_state(), state)


def test_finer_formats_score_lower(prepared: tuple[Evaluator, Problem]) -> None:
    evaluator, problem = prepared
    for losses in gradient_scores(evaluator, problem).losses(problem):
        assert 0 < losses[0] < losses[1:].min()


def test_errors_of_a_weight_that_cancel_in_its_outputs_score_nothing(tmp_path: Path) -> None:
    """0.25 too much beside 0.25 too little, where both meet the same input."""
    text = """
    <ir_version: 8, opset_import: ["" : 17]>
    g (float[batch, 4] x) => (float[batch, 2] y) { y = MatMul(x, w) }
    """
    model = onnx.parser.parse_model(text)
    weight = np.array([[7, 7], [1.25, 1.25], [2.75, 3.25], [0, 0]], np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(weight, "w"))
    onnx.save(model, tmp_path / "m.onnx")
    inputs = np.repeat(np.linspace(0.5, 1.5, 12, dtype=np.float32)[:, None], 4, axis=1)
    np.savez(tmp_path / "data.npz", x=inputs, labels=np.zeros(12, np.int64))
    space = parse_space(CANCELLING, origin="test")
    session = prepare(space, origin="test", folder=tmp_path)
    problem = session.design.problem
    (found,) = gradient_scores(session.evaluator, problem, split="search").losses(problem)
    measured = session.evaluator.measure(problem.changed(0, 1)).loss
    # The second output reads errors of one sign; the first none that are left.
    assert found[1] == pytest.approx(measured, rel=0.5)
    weight[2, 1] = 2.75
    model.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(weight, "w"))
    onnx.save(model, tmp_path / "m.onnx")
    session = prepare(space, origin="test", folder=tmp_path)
    (found,) = gradient_scores(session.evaluator, problem, split="search").losses(problem)
    assert found[1] == pytest.approx(0, abs=1e-12)


def test_what_the_bias_puts_back_scores_nothing(tmp_path: Path) -> None:
    """Errors of one sign, which meet inputs that hardly leave their mean."""
    text = """
    <ir_version: 8, opset_import: ["" : 17]>
    g (float[batch, 4] x) => (float[batch, 2] y) { y = Gemm(x, w, b) }
    """
    model = onnx.parser.parse_model(text)
    weight = np.array([[7, 7], [1.25, 1.25], [3.25, 2.75], [0, 0]], np.float32)
    for name, values in (("w", weight), ("b", np.zeros(2, np.float32))):
        model.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    onnx.save(model, tmp_path / "m.onnx")
    inputs = np.linspace(0.99, 1.01, 12, dtype=np.float32)[:, None].repeat(4, axis=1)
    np.savez(tmp_path / "data.npz", x=inputs, labels=np.zeros(12, np.int64))
    found = {}
    for word in ("", ":uncorrected"):
        space = parse_space(CANCELLING.replace(":uncorrected", word), origin="test")
        session = prepare(space, origin="test", folder=tmp_path)
        problem = session.design.problem
        (losses,) = gradient_scores(session.evaluator, problem, split="search").losses(problem)
        found[word] = losses[1], session.evaluator.measure(problem.changed(0, 1)).loss
    for scored, measured in found.values():
        assert scored == pytest.approx(measured, rel=0.7)
    assert found[""][0] < 0.01 * found[":uncorrected"][0]


def test_scores_learn_nothing_about_weights_that_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every pass over the calibration split was made before, for all weights at once."""
    text = """
    <ir_version: 8, opset_import: ["" : 17]>
    g (float[batch, 4] x) => (float[batch, 2] y) { y = Gemm(x, w, b) }
    """
    model = onnx.parser.parse_model(text)
    rng = np.random.default_rng(0)
    for name, shape in (("w", (4, 2)), ("b", (2,))):
        values = rng.standard_normal(shape).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    onnx.save(model, tmp_path / "m.onnx")
    inputs = rng.standard_normal((12, 4)).astype(np.float32)
    np.savez(tmp_path / "data.npz", x=inputs, labels=np.zeros(12, np.int64))
    space = parse_space(CANCELLING.replace(":uncorrected", ""), origin="test")
    session = prepare(space, origin="test", folder=tmp_path)
    assert session.evaluator.weights.macs > 0

    def again(*_: object, **__: object) -> None:
        raise AssertionError("moments are taken again")

    monkeypatch.setattr("dse.execute.weights.learn.observe_moments", again)
    (losses,) = gradient_scores(session.evaluator, session.design.problem).losses(
        session.design.problem
    )
    assert losses[1] > 0
