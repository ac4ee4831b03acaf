"""Q/DQ in the bodies of If and Loop, under ONNX Runtime; weights of both branches stored once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest
import torch

from dse.evaluate.evaluator import Evaluator
from dse.evaluate.setup import build_evaluator
from dse.export.base import Recipe, Refusal
from dse.export.onnx_qdq.exporter import OnnxQdq
from dse.graph.ir.assignment import Assignment
from dse.model import open_model
from dse.sensitivity.gradient import gradient_scores
from dse.space.build import build_problem
from dse.space.load import parse_space
from dse.space.schema import Data
from dse.zoo.split import Split, Splits
from hwmodels.formats.catalog import quantizer
from tests.export.recipes import recipe_of

MERGED = """
g (float[n, 64] x, bool use) => (float[n, 16] y)
{
    [act] h = Relu (x)
    [pick] p = If (use) <
        then_branch = t () => (float[n, 64] a) {
            [up] b = MatMul (h, w) [shift] c = Neg (b) [down] a = MatMul (c, v)
        },
        else_branch = e () => (float[n, 64] a) { [up] b = MatMul (h, w) [down] a = MatMul (b, v) }
    >
    [head] y = MatMul (p, u)
}
"""
LOOP = """
g (float[n, 64] x, bool use) => (float[n, 64] y)
<int64 times = {3}>
{
    [turns] y = Loop (times, use, x) <
        body = b (int64 i, bool on, float[n, 64] s) => (bool on2, float[n, 64] r) {
            on2 = Identity (on) [step] m = MatMul (s, w) r = Tanh (m)
        }
    >
}
"""
SHAPES = {"w": (64, 64), "v": (64, 64), "u": (64, 16)}

Evaluators = Callable[[str, Assignment], Evaluator]


@pytest.fixture
def evaluator(tmp_path: Path) -> Evaluators:
    rng = np.random.default_rng(0)

    def made(text: str, assignment: Assignment) -> Evaluator:
        model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]>{text}')
        for name, shape in SHAPES.items():
            weight = (rng.normal(size=shape) / 8).astype(np.float32)
            if f", {name})" in text:
                model.graph.initializer.append(onnx.numpy_helper.from_array(weight, name))
        onnx.save(model, tmp_path / "m.onnx")
        analysis = open_model(str(tmp_path / "m.onnx")).analysis
        x = rng.normal(size=(8, 64)).astype(np.float32)
        inputs = {"x": x, "use": np.ones(8, dtype=bool)}
        split = Split(inputs=inputs, labels=None, kind="images", axes={"use": None})
        return build_evaluator(
            analysis,
            Data(source="given"),
            analysis.by_key,
            tuple(assignment),
            splits=Splits(calibration=split, search=split, report=split),
        )

    return made


PRODUCTS = {
    MERGED: ["pick/then_branch/up", "pick/then_branch/down", "head"],
    LOOP: ["turns/body/step"],
}
"""That a call with the condition true executes."""


def _assignment(text: str, weight: str, activation: str = "") -> Assignment:
    """Weights everywhere, activations of what runs."""
    ran = PRODUCTS[text]
    every = {*ran, *(name.replace("then", "else") for name in ran)}
    sites = {f"{name}/in1": quantizer(weight) for name in every}
    if activation:
        sites |= {f"{name}/in0": quantizer(activation) for name in ran}
    return Assignment.of(sites)


def _recipe(made: Evaluator, assignment: Assignment) -> Recipe:
    """As a run would export it; one value of the condition for all samples."""
    found = recipe_of(made, assignment)
    assert found.samples is not None
    return replace(found, samples={**found.samples, "use": torch.tensor(True)})


@pytest.mark.parametrize("text", [MERGED, LOOP], ids=["if", "loop"])
@pytest.mark.parametrize(
    ("weight", "activation"),
    [("int8_channel", ""), ("int8_channel", "uint8:static"), ("bf16", "bf16")],
)
def test_onnxruntime_computes_bodies_as_the_emulator_does(
    evaluator: Evaluators, text: str, weight: str, activation: str, tmp_path: Path
) -> None:
    assignment = _assignment(text, weight, activation)
    recipe = _recipe(evaluator(text, assignment), assignment)
    target = OnnxQdq()
    assert target.can_express(recipe) == ()
    target.write(recipe, tmp_path / "out.onnx")
    checks = target.verify(recipe, tmp_path / "out.onnx")
    found = next(one for one in checks if one.checker.startswith("ONNX Runtime"))
    assert found.compared == "outputs"
    assert found.difference == pytest.approx(0, abs=1e-5)


def test_a_weight_of_both_branches_is_stored_once(evaluator: Evaluators, tmp_path: Path) -> None:
    assignment = _assignment(MERGED, "int8_channel")
    OnnxQdq().write(_recipe(evaluator(MERGED, assignment), assignment), tmp_path / "out.onnx")
    written = onnx.load(tmp_path / "out.onnx")
    codes = [t for t in written.graph.initializer if t.data_type == onnx.TensorProto.INT8]
    sizes = [int(np.prod(tensor.dims)) for tensor in codes if len(tensor.dims) == 2]
    assert sorted(sizes) == sorted(int(np.prod(shape)) for shape in SHAPES.values())


def test_a_static_activation_of_a_branch_that_never_ran_is_refused_by_name(
    evaluator: Evaluators,
) -> None:
    assignment = Assignment.of({"pick/else_branch/up/in0": quantizer("uint8:static")})
    (found,) = OnnxQdq().can_express(_recipe(evaluator(MERGED, assignment), assignment))
    assert isinstance(found, Refusal)
    assert found.site == "pick/else_branch/up/in0"
    assert "its branch did not run" in found.reason


def test_branches_that_share_weights_are_one_decision(evaluator: Evaluators) -> None:
    made = evaluator(MERGED, Assignment.of({}))
    space = parse_space(
        "model: m.onnx\ndata: {source: d.npz}\nscenario: {phases: {call: {dims: {n: 1}}}}\n"
        "targets: [{device: h100-sxm}]\ncandidates: [{match: {}, use: [bf16, w8a16]}]\n"
        "objectives: [quality_loss, latency_s]\n",
        origin="s.yaml",
    )
    regions = made.program.analysis.regions
    problem = build_problem(space, regions)
    sizes = sorted(len(variable.regions) for variable in problem.variables)
    assert sizes == [1, 2, 2]
    weights = [
        {site.value for site in variable.sites if site.role == "weight"}
        for variable in problem.variables
    ]
    assert sorted(map(len, weights)) == [1, 1, 1]
    # The branch that does not run adds nothing, and fails nothing.
    losses = gradient_scores(made, problem, split="search").losses(problem)
    assert all(np.isfinite(one).all() and (one > 0).any() for one in losses)


def test_the_emulator_takes_the_branch_that_runs(evaluator: Evaluators) -> None:
    taken = Assignment.of({"pick/then_branch/up/in1": quantizer("int4_channel")})
    other = Assignment.of({"pick/else_branch/up/in1": quantizer("int4_channel")})
    made = evaluator(MERGED, taken)
    feeds = {"x": torch.randn(2, 64), "use": torch.tensor(True)}
    plain = made.program.run(feeds).outputs["y"]
    assert not torch.equal(made.program.run(feeds, made.bound(taken)).outputs["y"], plain)
    assert torch.equal(made.program.run(feeds, made.bound(other)).outputs["y"], plain)


@pytest.mark.parametrize("weight", ["int4_channel", "int4_channel:gptq"])
def test_what_is_learned_about_a_shared_weight_is_one(
    evaluator: Evaluators, weight: str, tmp_path: Path
) -> None:
    assignment = _assignment(MERGED, weight)
    made = evaluator(MERGED, assignment)
    bound = made.bound(assignment)
    for name, constant in (("up", "w"), ("down", "v")):
        values = made.program.constant(constant)
        assert values is not None
        first, second = (
            bound[f"pick/{branch}_branch/{name}/in1"](values.clone())
            for branch in ("then", "else")
        )
        assert torch.equal(first, second)
    OnnxQdq().write(_recipe(made, assignment), tmp_path / "out.onnx")
    codes = [
        tensor
        for tensor in onnx.load(tmp_path / "out.onnx").graph.initializer
        if tensor.data_type == onnx.TensorProto.INT4
    ]
    assert len(codes) == 3
